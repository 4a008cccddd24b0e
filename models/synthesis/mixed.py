"""Two skies in one: simulated and observed spectra drawn side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.batch import LabelledPhotometry
from models.synthesis.observed import ObservedSky
from models.synthesis.sky import MockSky


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

        labels = {
            name: np.concatenate([part.labels[name] for part in parts])[order] for name in parts[0].labels
        }
        return LabelledPhotometry(
            joined("flux"), joined("error"), joined("ebv"), joined("class_code"), labels
        )
