"""SpecPT: redshift and reconstruction from spectra of galaxies."""

from typing import TYPE_CHECKING

from ojala.models import lazy

if TYPE_CHECKING:
    from ojala.models.specpt.checkpoint import load, save
    from ojala.models.specpt.network import SpecPT as Network
    from ojala.models.specpt.predictor import SpecPTPredictor as Predictor
    from ojala.models.specpt.training import SpecPTTraining as Settings
    from ojala.models.specpt.training import train

__all__ = ["Network", "Predictor", "Settings", "load", "save", "train"]

__getattr__ = lazy(
    __name__,
    {
        "Network": "network:SpecPT",
        "Predictor": "predictor:SpecPTPredictor",
        "Settings": "training:SpecPTTraining",
        "load": "checkpoint:load",
        "save": "checkpoint:save",
        "train": "training:train",
    },
)
