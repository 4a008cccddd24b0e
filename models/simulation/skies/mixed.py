"""Two skies in one: simulated and observed spectra drawn side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ojala.models.data import LabelledPhotometry
from ojala.models.simulation.skies.observed import ObservedSky
from ojala.models.simulation.skies.photometric import MockSky


@dataclass(frozen=True)
class MixedSky:
    """Draws from a mock sky and from an observed one, in random order.

    Attributes
    ----------
    mock, observed : MockSky, ObservedSky
        The two.
    share : float
        Chance that an object is drawn from the observed sky.
    """

    mock: MockSky
    observed: ObservedSky
    share: float

    def draw(self, n: int, rng: np.random.Generator) -> LabelledPhotometry:
        """Photometry and labels of n objects."""
        count = int(rng.binomial(n, self.share))
        parts = [
            sky.draw(rows, rng) for sky, rows in ((self.mock, n - count), (self.observed, count)) if rows
        ]
        order = rng.permutation(n)

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])[order]

        def label(name: str) -> np.ndarray:
            """The label, NaN in a part that does not have it."""
            unknown = [np.full(len(part.flux), np.nan, np.float32) for part in parts]
            each = [part.labels.get(name, nan) for part, nan in zip(parts, unknown, strict=True)]
            return np.concatenate(each)[order]

        labels = {name: label(name) for part in parts for name in part.labels}
        return LabelledPhotometry(
            joined("flux"),
            joined("error"),
            joined("ebv"),
            joined("class_code"),
            labels,
            joined("noiseless"),
            joined("noiseless_error"),
        )
