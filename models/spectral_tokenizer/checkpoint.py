"""File format of the weights of the tokenizer: network, heads and factors of their errors."""

from __future__ import annotations

from dataclasses import dataclass

from ojala.models.checkpoint import CheckpointFormat, NetworkInfo
from ojala.models.spectral_tokenizer.calibration import ErrorScales, StellarCalibration
from ojala.models.spectral_tokenizer.heads import TokenizerWithHeads
from ojala.models.spectral_tokenizer.network import TokenizerConfig


@dataclass(frozen=True)
class TokenizerInfo(NetworkInfo[TokenizerConfig]):
    """Header of a file of weights, and the stored parts.

    Attributes
    ----------
    error_scales : ErrorScales or None
        Factors of the errors; None if they were not fitted.
    stellar_calibration : StellarCalibration or None
        Calibration of the parameters of stars; None if they are the network's own.
    """

    error_scales: ErrorScales | None = None
    stellar_calibration: StellarCalibration | None = None


FORMAT = CheckpointFormat(
    "spectral-tokenizer-weights/1",
    TokenizerConfig,
    TokenizerWithHeads,
    TokenizerInfo,
    {"error_scales": ErrorScales, "stellar_calibration": StellarCalibration},
)
"""Format of the files."""

save, load = FORMAT.save, FORMAT.load
