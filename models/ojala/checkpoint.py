"""File format of OJALA's weights: the network, its calibration, its novelty score and zero points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ojala.models.checkpoint import CheckpointFormat, NetworkInfo
from ojala.models.ojala.calibration import Calibration
from ojala.models.ojala.network import Ojala, OjalaConfig
from ojala.models.ojala.novelty import Novelty
from ojala.models.ojala.zero_points import ZeroPoints


@dataclass(frozen=True)
class WeightsInfo(NetworkInfo[OjalaConfig]):
    """Header of a file of weights, and the stored parts.

    Attributes
    ----------
    calibration : Calibration or None
        Corrections of the network's probabilities and errors; None where none were fitted.
    novelty : Novelty or None
        Densities of the training's objects; None where none were fitted.
    zero_points : ZeroPoints or None
        Factors that a survey's fluxes are divided by; None for fluxes as the training's.
    """

    calibration: Calibration | None = None
    novelty: Novelty | None = None
    zero_points: ZeroPoints | None = None


FORMAT = CheckpointFormat(
    "ojala-weights/1",
    OjalaConfig,
    Ojala,
    WeightsInfo,
    {"calibration": Calibration, "novelty": Novelty, "zero_points": ZeroPoints},
)
"""Format of the files."""

save, load = FORMAT.save, FORMAT.load


def save_again(path: Path, network: Ojala, info: WeightsInfo) -> None:
    """Write weights with the name, version, training and parts of ``info``."""
    save(
        path,
        network,
        name=info.name,
        version=info.version,
        training=info.training,
        calibration=info.calibration,
        novelty=info.novelty,
        zero_points=info.zero_points,
    )
