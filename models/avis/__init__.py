"""AVIS: spectra and images in one embedding."""

from typing import TYPE_CHECKING

from ojala.models import lazy

if TYPE_CHECKING:
    from ojala.models.avis.checkpoint import load, save
    from ojala.models.avis.network import Avis as Network
    from ojala.models.avis.predictor import AvisPredictor as Predictor
    from ojala.models.avis.training import AvisTraining as Settings
    from ojala.models.avis.training import train

__all__ = ["Network", "Predictor", "Settings", "load", "save", "train"]

__getattr__ = lazy(
    __name__,
    {
        "Network": "network:Avis",
        "Predictor": "predictor:AvisPredictor",
        "Settings": "training:AvisTraining",
        "load": "checkpoint:load",
        "save": "checkpoint:save",
        "train": "training:train",
    },
)
