"""File format of the weights of the tokenizer: network, heads and factors of their errors."""

from __future__ import annotations

from dataclasses import dataclass

from ojala.models.checkpoint import CheckpointFormat, NetworkInfo
from ojala.models.spectral_tokenizer.calibration import ErrorScales
from ojala.models.spectral_tokenizer.heads import TokenizerWithHeads
from ojala.models.spectral_tokenizer.network import TokenizerConfig


@dataclass(frozen=True)
class TokenizerInfo(NetworkInfo[TokenizerConfig]):
    """Header of a file of weights, and the stored parts.

    Attributes
    ----------
    error_scales : ErrorScales or None
        Factors of the errors; None if they were not fitted.
    """

    error_scales: ErrorScales | None = None


FORMAT = CheckpointFormat(
    "spectral-tokenizer-weights/1",
    TokenizerConfig,
    TokenizerWithHeads,
    TokenizerInfo,
    {"error_scales": ErrorScales},
)
"""Format of the files."""

save, load = FORMAT.save, FORMAT.load
