"""Universal spectral tokenizer: embedding, class, redshift and stellar parameters from spectra."""

from typing import TYPE_CHECKING

from ojala.models import lazy

if TYPE_CHECKING:
    from ojala.models.spectral_tokenizer.checkpoint import load, save
    from ojala.models.spectral_tokenizer.heads import TokenizerWithHeads as Network
    from ojala.models.spectral_tokenizer.predictor import SpectralTokenizerPredictor as Predictor
    from ojala.models.spectral_tokenizer.training import TokenizerTraining as Settings
    from ojala.models.spectral_tokenizer.training import train

__all__ = ["Network", "Predictor", "Settings", "load", "save", "train"]

__getattr__ = lazy(
    __name__,
    {
        "Network": "heads:TokenizerWithHeads",
        "Predictor": "predictor:SpectralTokenizerPredictor",
        "Settings": "training:TokenizerTraining",
        "load": "checkpoint:load",
        "save": "checkpoint:save",
        "train": "training:train",
    },
)
