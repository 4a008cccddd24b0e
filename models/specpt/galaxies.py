"""Classifier of galaxies on the tokens of a trained network: where its redshifts have a meaning.

SpecPT is trained on galaxies alone. A logistic regression on its encoded tokens, fitted afterwards to
galaxies, stars and quasars, tells which spectra are in its scope.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.models.checkpoint import StoredPart


@dataclass(frozen=True)
class GalaxyClassifier(StoredPart):
    """Logistic regression of the probability of a galaxy.

    Attributes
    ----------
    weight : Tensor, shape (2 d,)
        Coefficients of `token_features`.
    bias : Tensor, shape (1,)
        Constant term.
    """

    TITLE = "the classifier of galaxies"

    weight: Tensor
    bias: Tensor

    def probability(self, tokens: Tensor) -> Tensor:
        """Encoded tokens (N, T, d) -> probability of a galaxy (N,)."""
        features = token_features(tokens)
        return (features @ self.weight.to(features) + self.bias.to(features)).sigmoid()

    def check_shapes(self) -> None:
        """Check that there is one weight for each feature and one constant."""
        if self.weight.ndim != 1 or self.bias.shape != (1,):
            raise ValueError(f"the tensors of {self.TITLE} do not fit each other")


def token_features(tokens: Tensor) -> Tensor:
    """Mean and largest value of each channel of tokens (N, T, d), in single precision (N, 2 d)."""
    tokens = tokens.float()
    return torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=1)


def fit_classifier(
    features: Tensor, is_galaxy: Tensor, weight: Tensor, penalty: float = 1.0
) -> GalaxyClassifier:
    """Fit a logistic regression to standardised features.

    Parameters
    ----------
    features : Tensor, shape (N, 2 d)
        As of `token_features`.
    is_galaxy : Tensor of bool, shape (N,)
        Truth.
    weight : Tensor, shape (N,)
        Weight of each row in the cross entropy.
    penalty : float
        Factor of half of the squared coefficients, over the sum of the weights' N.

    Returns
    -------
    GalaxyClassifier
    """
    x = features.double()
    mean, scale = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    x, y = (x - mean) / scale, is_galaxy.double()
    share = weight.double() / weight.double().sum()
    coefficients = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([coefficients], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logit = x @ coefficients[:-1] + coefficients[-1]
        entropy = (share * F.binary_cross_entropy_with_logits(logit, y, reduction="none")).sum()
        total: Tensor = entropy + penalty / (2.0 * len(x)) * coefficients[:-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]  # torch's
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]  # torch's
    with torch.no_grad():
        slope = coefficients[:-1] / scale
        bias = coefficients[-1] - (slope * mean).sum()
    return GalaxyClassifier(slope.float(), bias.float().reshape(1))
