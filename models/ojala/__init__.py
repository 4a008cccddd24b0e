"""OJALA: class, redshift and physical properties from photometry."""

from typing import TYPE_CHECKING

from ojala.models import lazy

if TYPE_CHECKING:
    from ojala.models.ojala.checkpoint import load, save
    from ojala.models.ojala.network import Ojala as Network
    from ojala.models.ojala.predictor import OjalaPredictor as Predictor
    from ojala.models.ojala.training import OjalaTraining as Settings
    from ojala.models.ojala.training import train

__all__ = ["Network", "Predictor", "Settings", "load", "save", "train"]

__getattr__ = lazy(
    __name__,
    {
        "Network": "network:Ojala",
        "Predictor": "predictor:OjalaPredictor",
        "Settings": "training:OjalaTraining",
        "load": "checkpoint:load",
        "save": "checkpoint:save",
        "train": "training:train",
    },
)
