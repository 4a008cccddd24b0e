"""A network of SpecPT that is small enough for tests."""

import dataclasses

from ojala.models.specpt.network import PRESETS

SMALL = dataclasses.replace(
    PRESETS["base"],
    channels=(4, 8, 8),
    width=16,
    heads=2,
    hidden=32,
    encoder=1,
    decoder=1,
    evidence=4,
    rest=3,
)
