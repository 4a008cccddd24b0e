"""The published OJALÁ (arXiv:2604.00661): the authors' network and weights, read and run as they are."""

from typing import TYPE_CHECKING

from ojala.models import lazy

if TYPE_CHECKING:
    from ojala.models.ojala_published.checkpoint import convert, load
    from ojala.models.ojala_published.network import PublishedOjala as Network
    from ojala.models.ojala_published.predictor import PublishedPredictor as Predictor

__all__ = ["Network", "Predictor", "convert", "load"]

__getattr__ = lazy(
    __name__,
    {
        "Network": "network:PublishedOjala",
        "Predictor": "predictor:PublishedPredictor",
        "convert": "checkpoint:convert",
        "load": "checkpoint:load",
    },
)
