"""File format of the weights of SpecPT."""

from __future__ import annotations

from ojala.models.checkpoint import CheckpointFormat, NetworkInfo
from ojala.models.specpt.network import SpecPT, SpecPTConfig

SpecPTInfo = NetworkInfo[SpecPTConfig]
"""Header of a file of weights."""

FORMAT = CheckpointFormat("specpt-weights/1", SpecPTConfig, SpecPT, SpecPTInfo)
"""Format of the files."""

save, load = FORMAT.save, FORMAT.load
