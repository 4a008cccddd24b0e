"""Mixture of two samplers of labelled photometry, such as of simulated and observed objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ojala.models.data import LabelledPhotometry, Sky


@dataclass(frozen=True)
class MixedSky:
    """Sampler of a mock sky and an observed sky, in random order.

    Attributes
    ----------
    mock, observed : Sky
        Samplers.
    share : float
        Probability of the observed sky.
    """

    mock: Sky
    observed: Sky
    share: float

    def draw(self, n: int, rng: np.random.Generator) -> LabelledPhotometry:
        """Draw photometry and labels of n objects."""
        count = int(rng.binomial(n, self.share))
        parts = [
            sky.draw(rows, rng) for sky, rows in ((self.mock, n - count), (self.observed, count)) if rows
        ]
        order = rng.permutation(n)

        def joined(name: str) -> np.ndarray:
            """Concatenate an array, NaN for a part without it."""
            each = [getattr(part, name) for part in parts]
            blank = [np.full_like(part.flux, np.nan) for part in parts]
            return np.concatenate([nan if a is None else a for a, nan in zip(each, blank, strict=True)])[
                order
            ]

        def label(name: str) -> np.ndarray:
            """Concatenate a label, NaN for a part without it."""
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
