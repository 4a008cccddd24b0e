"""File format of the weights of AVIS."""

from __future__ import annotations

from ojala.models.avis.network import Avis, AvisConfig
from ojala.models.checkpoint import CheckpointFormat, NetworkInfo

AvisInfo = NetworkInfo[AvisConfig]
"""Header of a file of weights."""

FORMAT = CheckpointFormat("avis-weights/1", AvisConfig, Avis, AvisInfo, half=True)
"""Format of the files."""

save, load = FORMAT.save, FORMAT.load
