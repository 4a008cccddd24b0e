"""OJALA's weights on disk: the network, its calibration and its novelty score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ojala.models.checkpoint import NetworkInfo, WeightsError, fill, read_network, take_part, write_network
from ojala.models.ojala.calibration import Calibration
from ojala.models.ojala.network import Ojala, OjalaConfig
from ojala.models.ojala.novelty import Novelty

FORMAT = "ojala-weights/1"
"""Written into every file of weights; another value is refused."""


@dataclass(frozen=True, slots=True)
class WeightsInfo(NetworkInfo[OjalaConfig]):
    """What a file of weights says of itself.

    Attributes
    ----------
    calibration : Calibration or None
        Corrections of the network's probabilities and errors; None where none were fitted.
    novelty : Novelty or None
        What the training's objects look like to the network; None where that was not recorded.
    """

    calibration: Calibration | None = None
    novelty: Novelty | None = None


def save_weights(
    path: Path,
    model: Ojala,
    *,
    name: str,
    version: str,
    training: dict[str, object],
    calibration: Calibration | None = None,
    novelty: Novelty | None = None,
) -> None:
    """Write a network's weights and what is known of them, all in one file."""
    tensors = dict(model.state_dict())
    for part, values in (("calibration", calibration), ("novelty", novelty)):
        if values is not None:
            tensors |= {f"{part}.{field}": tensor for field, tensor in values.tensors().items()}
    config = model.config.to_json()
    write_network(path, tensors, form=FORMAT, name=name, version=version, config=config, training=training)


def load_weights(path: Path) -> tuple[Ojala, WeightsInfo]:
    """Read weights and build their network, in evaluation mode on the CPU.

    Raises
    ------
    WeightsError
        If the file is damaged, was not written by `save_weights`, or its tensors are not exactly those of the
        network that its configuration describes, of its calibration and of its novelty score.
    """
    path = Path(path)
    tensors, info = read_network(path, FORMAT, OjalaConfig.from_json)
    model = Ojala(info.config)
    try:
        calibration = Calibration.from_tensors(own) if (own := take_part(tensors, "calibration")) else None
        novelty = Novelty.from_tensors(own) if (own := take_part(tensors, "novelty")) else None
    except ValueError as error:
        raise WeightsError(f"{path}: {error}; fetch the file again") from error
    fill(path, model, tensors)
    facts = (info.name, info.version, info.config, info.training, info.sha256)
    return model, WeightsInfo(*facts, calibration, novelty)
