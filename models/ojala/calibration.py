"""Calibration: probabilities and errors that come true as often as they say.

A trained network is sure of itself in the wrong measure. A handful of numbers, fitted on held-out mock
objects after the training, correct that:

* class probabilities: a temperature (Guo et al. 2017, ICML), which keeps their order, and one bias per class,
  drawn to zero. They are never made sharper than the network gave them: where mocks would allow it, objects
  that differ from mocks do not.
* redshift PDFs: p -> (1 - f) p^(1/T) + f q, with a temperature T and a share f of catastrophic errors that
  are spread as the population's redshifts q, both by maximum likelihood of the true redshifts. What comes
  out is broadened by `MISMATCH`, or by what observed objects say (`fit_floors`).
* scalars, fluxes in bands: a factor on the scale of each, so that 68.3 % of the truths lie within the stated
  error; for scalars of observed objects also a floor of the scale.

All but biases, broadening and floors are piecewise-linear functions of the object's depth: arcsinh of its
median signal-to-noise ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.models.checkpoint import StoredPart
from ojala.models.layers.distributions import _STUDENT_T3_HALF_WIDTH_95, STUDENT_T3_HALF_WIDTH
from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, N_REDSHIFT_BINS
from ojala.models.ojala.losses import REDSHIFTS
from ojala.models.ojala.network import BANDS
from ojala.models.ojala.outputs import RawBands, RawOutputs
from ojala.models.ojala.tokens import N_BANDS
from ojala.models.quantities import CLASSES, SCALARS

ClassWeights = tuple[float, float, float]
"""Weights of galaxies, stars and quasars."""

MISMATCH = 0.001
"""Standard deviation in ln(1 + z) by which redshift PDFs are broadened for what mocks leave out: the bands'
central wavelengths, which vary with place and angle on the filter, are taken to be known to 0.1 %. This is an
assumption, which `fit_floors` replaces by a fit to observed objects."""
_BROADENINGS = (0.0, *(0.2 * 1.15**step for step in range(33)))  # bins, up to 17.5
FEWEST = 100
"""Objects that a correction needs: around a knot, below which the whole sample speaks for it, or in all."""

_ONE_SIGMA, _TWO_SIGMA = (0.158655, 0.841345), (0.022750, 0.977250)
_KNOT_QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)
_NEVER = -30.0  # log-odds of a share that is nil
_RIDGE = 10.0  # in nats over the whole sample, per squared step between knots; ten times that for a bias
_POPULATION_SIGMA = 20.0  # bins over which the population's redshifts are smoothed


@dataclass(frozen=True, slots=True)
class Calibration(StoredPart):
    """Corrections of a network's outputs, at K knots of the depth.

    Attributes
    ----------
    knots : Tensor, shape (K,)
        Depths, increasing; beyond them the first and the last value hold.
    class_log_temperature : Tensor, shape (K,)
        ln of the temperature by which the class's logits are divided.
    class_bias : Tensor, shape (3,)
        Bias that is then added to them.
    redshift_log_temperature, redshift_floor : Tensor, shape (2, K)
        ln T, and the log-odds of f, for z_gal and z_qso.
    redshift_population : Tensor, shape (2, 1825)
        The redshifts' distribution q over the bins.
    redshift_kernel : Tensor, shape (2 R + 1,) or (2, 2 R + 1)
        Kernel of the PDFs, or one each for those of z_gal and z_qso.
    scalar_log_factor : Tensor, shape (12, K)
        ln of the factor on the scale of each of `SCALARS`.
    scalar_log_floor : Tensor, shape (12,)
        ln of the floor that is then added in quadrature to the scale, in units of the network's target.
    band_log_factor : Tensor, shape (63, K)
        ln of the factor on the scale of the flux in each band.
    """

    TITLE = "the calibration"

    knots: Tensor
    class_log_temperature: Tensor
    class_bias: Tensor
    redshift_log_temperature: Tensor
    redshift_floor: Tensor
    redshift_population: Tensor
    redshift_kernel: Tensor
    scalar_log_factor: Tensor
    scalar_log_floor: Tensor
    band_log_factor: Tensor

    @classmethod
    def none(cls, knots: Tensor | None = None) -> Calibration:
        """The calibration that changes nothing."""
        knots = torch.arange(2.0) if knots is None else knots
        k, n = len(knots), len(REDSHIFTS)
        population = torch.full((n, N_REDSHIFT_BINS), 1.0 / N_REDSHIFT_BINS)
        return cls(
            knots=knots,
            class_log_temperature=torch.zeros(k),
            class_bias=torch.zeros(len(CLASSES)),
            redshift_log_temperature=torch.zeros(n, k),
            redshift_floor=torch.full((n, k), _NEVER),
            redshift_population=population,
            redshift_kernel=torch.ones(1),
            scalar_log_factor=torch.zeros(len(SCALARS), k),
            scalar_log_floor=torch.full((len(SCALARS),), _NEVER),
            band_log_factor=torch.zeros(N_BANDS, k),
        )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Calibration:
        """Make the inverse of `tensors`; older weights have no factors of bands and floors."""
        nothing = cls.none(tensors.get("knots", torch.arange(2.0)))
        absent = {name: getattr(nothing, name) for name in ("band_log_factor", "scalar_log_floor")}
        return super(Calibration, cls).from_tensors(absent | dict(tensors))

    def check_shapes(self) -> None:
        """Check the shapes against the number of knots; the kernel may be of any length."""
        for name, tensor in Calibration.none(self.knots).tensors().items():
            found = getattr(self, name).shape
            kernel = name == "redshift_kernel" and found[:-1] in ((), (len(REDSHIFTS),))
            if found != tensor.shape and not kernel:
                raise ValueError(f"{name} of {self.TITLE} has another shape")

    def class_logits(self, logits: Tensor, depth: Tensor) -> Tensor:
        """Calibrated logits of the classes (N, 3) of objects with the given depth (N,)."""
        near = interpolation_weights(depth, self.knots)
        temperature = (near @ self.class_log_temperature).exp()
        return logits / temperature[:, None] + self.class_bias

    def redshift_pdfs(self, logits: Tensor, depth: Tensor) -> Tensor:
        """Calibrated probabilities over bins, from logits (2, N, B) of z_gal and z_qso."""
        near = interpolation_weights(depth, self.knots).T
        temperature = (self.redshift_log_temperature @ near).exp()[..., None]
        floor = (self.redshift_floor @ near).sigmoid()[..., None]
        p = torch.lerp(F.softmax(logits / temperature, dim=-1), self.redshift_population[:, None], floor)
        return p if self.redshift_kernel.shape[-1] == 1 else smooth(p, self.redshift_kernel)

    def scalar_log_scales(self, log_scale: Tensor, depth: Tensor) -> Tensor:
        """Calibrated log-scales (12, N) of `SCALARS`, from those of the network."""
        scaled = log_scale + self.scalar_log_factor @ interpolation_weights(depth, self.knots).T
        return 0.5 * torch.logaddexp(2.0 * scaled, 2.0 * self.scalar_log_floor[:, None])

    def band_log_factors(self, depth: Tensor) -> Tensor:
        """Addition to the log-scale of the flux in each band: (N, 63)."""
        return interpolation_weights(depth, self.knots) @ self.band_log_factor.T


def smooth(p: Tensor, kernel: Tensor) -> Tensor:
    """Probabilities (..., B) convolved with a symmetric kernel, reflected at the grid's ends.

    The kernel is one for all (2 R + 1,) or one for each row (C, 2 R + 1) of the first axis of p.
    """
    reach, size = kernel.shape[-1] // 2, p.shape[-1]
    kernel = kernel.movedim(-1, 0).reshape(-1, *kernel.shape[:-1], *([1] * (p.ndim - kernel.ndim + 1)))
    padded = torch.cat([p[..., :reach].flip(-1), p, p[..., -reach:].flip(-1)], dim=-1)
    # The kernel has some seven values: adding rows is several times as fast as a convolution of one channel.
    out = kernel[reach] * p
    for away in range(1, reach + 1):
        both = padded[..., reach - away :][..., :size] + padded[..., reach + away :][..., :size]
        out = out + kernel[reach + away] * both
    return out


def gaussian(sigma: float) -> Tensor:
    """A Gaussian of this standard deviation [bins] over the bins within three of them, of sum 1."""
    reach = math.ceil(3.0 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    return kernel / kernel.sum()


def interpolation_weights(depth: Tensor, knots: Tensor) -> Tensor:
    """Weights (N, K) of linear interpolation between knots (K,), constant beyond them."""
    inside = depth.clamp(knots[0], knots[-1])[:, None]
    place = ((inside - knots[:-1]) / knots.diff()).clamp(0.0, 1.0)
    return F.pad(place, (1, 0), value=1.0) - F.pad(place, (0, 1))


def knots_of(depth: Tensor) -> Tensor:
    """Knots between which the depths (N,) of a sample lie, in equal numbers but for the ends."""
    knots = depth.quantile(torch.tensor(_KNOT_QUANTILES))
    return knots + 1e-3 * torch.arange(len(knots))  # apart, should many objects have one depth


def weights_by_class(class_code: Tensor, class_weights: ClassWeights) -> Tensor:
    """Weight of each object (N,), of mean 1; 0 where the class is not known."""
    weight = torch.tensor([*class_weights, 0.0])[class_code]  # the last stands for -1
    return weight / weight.mean()


def fit_calibration(
    raw: RawOutputs,
    class_weights: ClassWeights,
    bands: RawBands | None = None,
    knots: Tensor | None = None,
) -> Calibration:
    """Fit a calibration on objects that the network was not trained on.

    Parameters
    ----------
    raw : RawOutputs
        As from `predict_uncalibrated`; a few thousand objects of each class.
    class_weights : tuple of float
        Weights of galaxies, stars and quasars: the shares that the probabilities shall assume over the shares
        of the objects.
    bands : RawBands, optional
        As from `predict_uncalibrated_bands`, for weights that have band requests.
    knots : Tensor, optional
        Depths between which the corrections are linear; by default those between which the objects lie in
        equal numbers.
    """
    knots = knots_of(raw.depth) if knots is None else knots
    log_temperature, bias = _fit_classes(raw, knots, weights_by_class(raw.targets.class_code, class_weights))
    redshifts = [_fit_redshift(raw, which, knots) for which in range(len(REDSHIFTS))]
    return Calibration(
        knots=knots,
        class_log_temperature=log_temperature.clamp_min(0.0),
        class_bias=bias,
        redshift_log_temperature=torch.stack([found[0] for found in redshifts]),
        redshift_floor=torch.stack([found[1] for found in redshifts]),
        redshift_population=torch.stack([found[2] for found in redshifts]),
        redshift_kernel=gaussian(MISMATCH / LOG1PZ_STEP),
        scalar_log_floor=torch.full((len(SCALARS),), _NEVER),
        scalar_log_factor=torch.stack(
            [
                _scale_factor((target - mean) * torch.exp(-log_scale), raw.depth, knots)
                for target, (mean, log_scale) in zip(
                    raw.targets.scalars, (scalar.unbind(-1) for scalar in raw.scalars), strict=True
                )
            ]
        ),
        band_log_factor=(
            torch.zeros(N_BANDS, len(knots))
            if bands is None
            else torch.stack([_scale_factor(pull, bands.depth, knots) for pull in bands.pull.T])
        ),
    )


def fit_floors(calibration: Calibration, observed: RawOutputs) -> Calibration:
    """Measure on observed objects what mocks leave out.

    PDFs of z_gal and z_qso are broadened by the Gaussian with which the cumulative probabilities of the known
    redshifts are nearest to uniform. The scale of each scalar gets the floor with which 68.3 % of the known
    values lie within the stated error, which therefore holds the errors of the labels, too. What fewer than
    `FEWEST` objects tell stays as it is.

    Parameters
    ----------
    calibration : Calibration
        Fitted to mocks.
    observed : RawOutputs
        As from `predict_uncalibrated`, of observed objects that the network was not trained on.
    """
    kernels = list(calibration.redshift_kernel.expand(len(REDSHIFTS), -1))
    sharp = replace(calibration, redshift_kernel=torch.ones(1))
    for which, truth in enumerate(observed.targets.redshift):
        known = torch.isfinite(truth)
        if int(known.sum()) >= FEWEST:
            logits = observed.redshift_logits[which]
            p = sharp.redshift_pdfs(torch.stack([logits, logits]), observed.depth[known])[which]
            found = [gaussian(sigma) for sigma in _BROADENINGS]
            distance = [_redshift_measures(smooth(p, kernel), truth[known])["pit_ks"] for kernel in found]
            kernels[which] = found[int(np.argmin(distance))]
    reach = max(len(kernel) // 2 for kernel in kernels)
    kernels = [F.pad(kernel, [reach - len(kernel) // 2] * 2) for kernel in kernels]
    log_floor = calibration.scalar_log_floor.clone()
    mean, log_scale = observed.scalars.unbind(-1)
    bare = replace(calibration, scalar_log_floor=torch.full_like(log_floor, _NEVER))
    scale = bare.scalar_log_scales(log_scale, observed.depth).exp()
    lacking = ((observed.targets.scalars - mean) / STUDENT_T3_HALF_WIDTH).square() - scale.square()
    for index, square in enumerate(lacking):
        square = square[torch.isfinite(square)]
        if len(square) >= FEWEST:
            log_floor[index] = 0.5 * square.quantile(0.6827).clamp_min(math.exp(2.0 * _NEVER)).log()
    return replace(calibration, redshift_kernel=torch.stack(kernels), scalar_log_floor=log_floor)


def _fit_classes(raw: RawOutputs, knots: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Temperature and biases that maximise the weighted likelihood of the true classes."""
    near, code = interpolation_weights(raw.depth, knots), raw.targets.class_code
    log_temperature, bias = torch.zeros(len(knots)), torch.zeros(len(CLASSES))

    def loss() -> Tensor:
        logits = raw.class_logits / (near @ log_temperature).exp()[:, None] + bias
        found = F.cross_entropy(logits, code, reduction="none", ignore_index=-1)
        return (weight * found).sum() + _RIDGE * (
            log_temperature.diff().square().sum() + 10.0 * bias.square().sum()
        )

    _minimise(loss, [log_temperature, bias])
    return log_temperature.detach(), bias.detach()


def _fit_redshift(raw: RawOutputs, which: int, knots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Temperature, log-odds of the floor and the population's redshifts."""
    bins = raw.targets.redshift[which]
    known = torch.isfinite(bins)
    truth, logits = bins[known].long(), raw.redshift_logits[which]
    near, population = interpolation_weights(raw.depth[known], knots), _population(truth)
    at_truth = logits.gather(-1, truth[:, None])[:, 0]
    log_temperature, floor = torch.zeros(len(knots)), torch.full((len(knots),), -4.0)

    def loss() -> Tensor:
        temperature, share = (near @ log_temperature).exp(), near @ floor
        sharp = at_truth / temperature - torch.logsumexp(logits / temperature[:, None], dim=-1)
        both = torch.stack([F.logsigmoid(-share) + sharp, F.logsigmoid(share) + population[truth].log()])
        steps = log_temperature.diff().square().sum() + 0.1 * floor.diff().square().sum()
        return -torch.logsumexp(both, dim=0).sum() + _RIDGE * (steps + 0.001 * floor.square().sum())

    _minimise(loss, [log_temperature, floor])
    return log_temperature.detach(), floor.detach(), population


def _population(truth: Tensor) -> Tensor:
    """Distribution over the bins of true redshifts (n,), smoothed, nowhere nil."""
    counts = smooth(torch.bincount(truth, minlength=N_REDSHIFT_BINS).float(), gaussian(_POPULATION_SIGMA))
    never_nil = counts + 1e-3 * counts.mean() + 1e-9
    return never_nil / never_nil.sum()


def _scale_factor(pull: Tensor, depth: Tensor, knots: Tensor) -> Tensor:
    """Logarithms of the factors on a scale with which 68.3 % of the truths lie within.

    ``pull`` (N,) are the truths' distances over the scale, NaN where not known; ``depth`` (N,).
    """
    known = torch.isfinite(pull)
    if int(known.sum()) < FEWEST:
        return torch.zeros(len(knots))
    pull = pull[known].abs() / STUDENT_T3_HALF_WIDTH
    near = interpolation_weights(depth[known], knots)
    everywhere = weighted_quantile(pull, torch.ones_like(pull), 0.6827)
    factors = [
        weighted_quantile(pull, weight, 0.6827) if float(weight.sum()) >= FEWEST else everywhere
        for weight in near.T
    ]
    return torch.stack(factors).clamp(0.1, 10.0).log()


def weighted_quantile(values: Tensor, weight: Tensor, fraction: float) -> Tensor:
    """The value (n,) below which this fraction of the weight (n,) lies."""
    order = values.argsort()
    reached = weight[order].cumsum(0) / weight.sum()
    return values[order][int(torch.searchsorted(reached, fraction).clamp_max(len(values) - 1))]


def _minimise(loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    """Change parameters in place so that they minimise a smooth loss."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=60, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-4
    )

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        torch.autograd.backward(value)
        return value

    optimizer.step(evaluate)  # type: ignore[no-untyped-call]  # torch leaves this one untyped


def calibration_measures(
    raw: RawOutputs,
    calibration: Calibration,
    class_weights: ClassWeights,
    bands: RawBands | None = None,
) -> dict[str, dict[str, float]]:
    """How far probabilities and errors come true, on objects that the calibration was not fitted on.

    Returns
    -------
    dict of dict
        ``class``: ``ece``, the expected calibration error of the most probable class in 15 bins of equal
        width, and ``nll``. ``z_gal``, ``z_qso``: ``pit_ks``, the largest distance of the distribution of
        the truths' cumulative probabilities from uniform; ``within_68`` and ``within_95``, the shares of
        truths within the central 68.3 % and 95.4 % intervals; ``nll``. Each scalar, and ``bands`` where they
        are given (all bands together): the two shares.
    """
    weight = weights_by_class(raw.targets.class_code, class_weights)
    log_p = F.log_softmax(calibration.class_logits(raw.class_logits, raw.depth), dim=-1)
    found = {"class": _class_measures(log_p, raw.targets.class_code, weight)}
    for which, name in enumerate(REDSHIFTS):
        bins = raw.targets.redshift[which]
        known = torch.isfinite(bins)
        if known.any():
            both = torch.stack([raw.redshift_logits[which]] * len(REDSHIFTS))
            p = calibration.redshift_pdfs(both, raw.depth[known])[which]
            found[name] = _redshift_measures(p, bins[known])
    mean, log_scale = raw.scalars.unbind(-1)
    pulls = (raw.targets.scalars - mean).abs() * torch.exp(
        -calibration.scalar_log_scales(log_scale, raw.depth)
    )
    for quantity, pull in zip(SCALARS, pulls, strict=True):
        pull = pull[torch.isfinite(pull)]
        if len(pull):
            found[quantity.name] = _within(pull)
    if bands is not None:
        pull = bands.pull.abs() * torch.exp(-calibration.band_log_factors(bands.depth))
        found[BANDS] = _within(pull[torch.isfinite(pull)])
    return found


def _within(pull: Tensor) -> dict[str, float]:
    """Shares of distances over the scale of a Student-t with nu = 3 that lie within its central intervals."""
    return {
        "n": float(len(pull)),
        "within_68": _share(pull <= STUDENT_T3_HALF_WIDTH),
        "within_95": _share(pull <= _STUDENT_T3_HALF_WIDTH_95),
    }


def _class_measures(log_p: Tensor, code: Tensor, weight: Tensor) -> dict[str, float]:
    known = code >= 0
    log_p, code, weight = log_p[known], code[known], weight[known]
    confidence, chosen = log_p.exp().max(dim=-1)
    right = (chosen == code).float()
    bin_of = (confidence * 15.0).long().clamp_max(14)
    gap = torch.zeros(15).index_add_(0, bin_of, weight * (confidence - right)).abs().sum() / weight.sum()
    nll = -(weight * log_p.gather(-1, code[:, None])[:, 0]).sum() / weight.sum()
    accuracy = (weight * right).sum() / weight.sum()
    values = {"ece": float(gap), "nll": float(nll), "accuracy": float(accuracy)}
    return {"n": float(len(code))} | values


def _redshift_measures(p: Tensor, bins: Tensor) -> dict[str, float]:
    truth = bins.long()[:, None]
    inside = p.gather(-1, truth)[:, 0]
    below = p.cumsum(dim=-1).gather(-1, truth)[:, 0] - inside
    pit = (below + inside * (bins - bins.floor())).clamp(0.0, 1.0)
    steps = torch.linspace(0.0, 1.0, len(pit) + 1)
    ordered = pit.sort().values
    distance = torch.maximum((ordered - steps[:-1]).abs().max(), (ordered - steps[1:]).abs().max())
    return {
        "n": float(len(pit)),
        "pit_ks": float(distance),
        "within_68": _share((pit > _ONE_SIGMA[0]) & (pit < _ONE_SIGMA[1])),
        "within_95": _share((pit > _TWO_SIGMA[0]) & (pit < _TWO_SIGMA[1])),
        "nll": -float(inside.clamp_min(1e-30).log().mean()),
    }


def _share(rows: Tensor) -> float:
    return float(rows.float().mean())
