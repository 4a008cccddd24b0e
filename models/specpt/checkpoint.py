"""File format of the weights of SpecPT."""

from __future__ import annotations

from dataclasses import dataclass

from ojala.models.checkpoint import CheckpointFormat, NetworkInfo
from ojala.models.specpt.galaxies import GalaxyClassifier
from ojala.models.specpt.network import SpecPT, SpecPTConfig


@dataclass(frozen=True)
class SpecPTInfo(NetworkInfo[SpecPTConfig]):
    """Header of a file of weights, and the stored part.

    Attributes
    ----------
    galaxies : GalaxyClassifier or None
        Classifier of galaxies; None where none was fitted.
    """

    galaxies: GalaxyClassifier | None = None


FORMAT = CheckpointFormat(
    "specpt-weights/1", SpecPTConfig, SpecPT, SpecPTInfo, {"galaxies": GalaxyClassifier}
)
"""Format of the files."""

save, load = FORMAT.save, FORMAT.load
