"""Layers, distributions and redshift PDFs that several networks share."""

from ojala.models.layers.attention import Attention, Block, WavelengthBias
from ojala.models.layers.distributions import redshift_loss, student_t_loss
from ojala.models.layers.redshift_pdf import RedshiftSummary, summarise

__all__ = [
    "Attention",
    "Block",
    "RedshiftSummary",
    "WavelengthBias",
    "redshift_loss",
    "student_t_loss",
    "summarise",
]
