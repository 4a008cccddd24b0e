"""Outputs of a network before any correction; calibration, novelty and heads are fitted to them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ojala.models.data import LabelledPhotometry
from ojala.models.ojala.losses import REDSHIFTS, Targets, targets_of
from ojala.models.ojala.network import BANDS, Ojala
from ojala.models.ojala.tokens import N_BANDS, WAVELENGTH_RANK, Tokens, compress, tokenise, tokens_of
from ojala.models.quantities import SCALARS


def snr_level(tokens: Tokens) -> Tensor:
    """Depth (N,): arcsinh of the median signal-to-noise ratio over the valid bands; 0 without any."""
    ratio = torch.where(tokens.valid, tokens.features[..., 2], torch.nan)
    return ratio.nanmedian(dim=1).values.nan_to_num(0.0)


@dataclass(frozen=True, slots=True)
class RawOutputs:
    """Outputs of a network for N labelled objects before any calibration.

    Attributes
    ----------
    targets : Targets
        The truth in the network's terms.
    depth : Tensor, shape (N,)
        See `snr_level`.
    embedding : Tensor, shape (N, d)
        Mean of the encoded tokens.
    class_logits : Tensor, shape (N, 3)
        Logits of the classes.
    redshift_logits : tuple of two Tensors
        Logits over the bins of the objects whose z_gal (z_qso) is known, in their order.
    scalars : Tensor, shape (12, N, 2)
        Location and log-scale of each scalar.
    """

    targets: Targets
    depth: Tensor
    embedding: Tensor
    class_logits: Tensor
    redshift_logits: tuple[Tensor, Tensor]
    scalars: Tensor

    def rows(self, chosen: Tensor) -> RawOutputs:
        """Only the rows where ``chosen`` (N,) holds."""
        known = torch.isfinite(self.targets.redshift)
        galaxy, quasar = (logits[chosen[k]] for logits, k in zip(self.redshift_logits, known, strict=True))
        code, redshift, scalars = self.targets
        return RawOutputs(
            targets=Targets(code[chosen], redshift[:, chosen], scalars[:, chosen]),
            depth=self.depth[chosen],
            embedding=self.embedding[chosen],
            class_logits=self.class_logits[chosen],
            redshift_logits=(galaxy, quasar),
            scalars=self.scalars[:, chosen],
        )


@torch.no_grad()  # what it returns is fitted to
def predict_uncalibrated(model: Ojala, photometry: LabelledPhotometry, batch_size: int = 128) -> RawOutputs:
    """Put labelled objects to a network, on its device, in single precision."""
    device, targets = next(model.parameters()).device, targets_of(photometry)
    known = torch.isfinite(targets.redshift)
    parts: list[list[Tensor]] = []
    for begin in range(0, len(photometry), batch_size):
        rows = slice(begin, begin + batch_size)
        tokens = tokenise(photometry.flux[rows], photometry.error[rows], photometry.ebv[rows]).to(device)
        encoded = model.encode(tokens)
        outputs = model.decode_requests(encoded, tokens.valid)
        part = [snr_level(tokens), model.embed(encoded, tokens.valid), outputs["class"]]
        part += [outputs[name][k[rows].to(device)] for name, k in zip(REDSHIFTS, known, strict=True)]
        part.append(torch.stack([outputs[q.name] for q in SCALARS], dim=1))
        parts.append([tensor.cpu() for tensor in part])
    depth, embedding, classes, galaxy, quasar, scalars = (
        torch.cat(tensors).clone() for tensors in zip(*parts, strict=True)
    )
    return RawOutputs(targets, depth, embedding, classes, (galaxy, quasar), scalars.transpose(0, 1))


BAND_GROUPS = 8
"""Groups in which bands are hidden in turn: each holds every eighth band in the order of wavelengths."""


class BandOutputs(NamedTuple):
    """Outputs of a network for each band of N objects, in arcsinh(flux / s); see `leave_one_out`.

    Attributes
    ----------
    mean, log_scale : Tensor, shape (N, 63)
        Location and log-scale of a Student-t distribution (nu = 3).
    brightness : Tensor, shape (N, 63)
        log10(s / uJy); NaN where no band was given to predict from.
    """

    mean: Tensor
    log_scale: Tensor
    brightness: Tensor


@torch.no_grad()
def leave_one_out(
    model: Ojala, flux: Tensor, error: Tensor, ebv: Tensor, groups: int = BAND_GROUPS
) -> BandOutputs:
    """Ask for every band, on the device where the photometry is.

    A band that was measured is predicted from the bands that are not in its group, one that was not from all
    that were: one encoding for each group and one more, where hiding each band by itself would need 63.

    Parameters
    ----------
    model : Ojala
        A network with band requests.
    flux, error, ebv : Tensor
        As in `ojala.models.ojala.tokens.tokens_of`.
    groups : int
        Number of groups, at least 2; a band's neighbours in wavelength are never in its group.

    Raises
    ------
    ValueError
        The network has no band requests.
    """
    parts = []
    every, back = _band_groups(groups, flux.device)
    for hidden, queried, given in every:
        features, valid, brightness = tokens_of(flux.masked_fill(hidden, torch.nan), error, ebv)
        parts.append(
            _predict_bands(model, Tokens(features[:, given], valid[:, given], brightness), given, queried)
        )
    tokens, bands = tokens_of(flux, error, ebv), torch.arange(N_BANDS, device=flux.device)
    plain = _predict_bands(model, tokens, bands, bands)
    return BandOutputs(*torch.where(tokens.valid, torch.cat(parts, dim=-1)[..., back], plain))


def _predict_bands(model: Ojala, tokens: Tokens, given: Tensor, queried: Tensor) -> Tensor:
    """Parts (3, N, Q) of `BandOutputs` for the Q bands that are queried, from tokens of the given bands."""
    output = model.decode_requests(model.encode(tokens, given), tokens.valid, (), given, queried)[BANDS]
    center, scale = model.band_units(queried)
    known = torch.where(tokens.valid.any(dim=1), tokens.brightness, torch.nan)
    return torch.stack(
        [
            output[..., 0] * scale + center,
            output[..., 1] + scale.log(),
            known[:, None].expand(-1, len(queried)),
        ]
    )


@functools.cache
def _band_groups(groups: int, device: torch.device) -> tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor]:
    """Of each group which bands are hidden, their indices and those of the others; and the way back in order.

    Kept on the device: nothing may be copied to it while a batch is computed.
    """
    rank = torch.from_numpy(WAVELENGTH_RANK)
    hidden = [rank % groups == group for group in range(groups)]
    every = [(of, of.nonzero()[:, 0], (~of).nonzero()[:, 0]) for of in hidden]
    back = torch.cat([queried for _, queried, _ in every]).argsort()
    return [(a.to(device), b.to(device), c.to(device)) for a, b, c in every], back.to(device)


class RawBands(NamedTuple):
    """Residuals of the true fluxes in bands from the outputs of a network before any calibration.

    Attributes
    ----------
    depth : Tensor, shape (N,)
        See `snr_level`.
    pull : Tensor, shape (N, 63)
        (truth - location) / scale of arcsinh(flux / s); NaN where not known.
    """

    depth: Tensor
    pull: Tensor

    def rows(self, chosen: Tensor) -> RawBands:
        """Only the rows where ``chosen`` (N,) holds."""
        return RawBands(self.depth[chosen], self.pull[chosen])


@torch.inference_mode()
def predict_uncalibrated_bands(
    model: Ojala, photometry: LabelledPhotometry, batch_size: int = 128, groups: int = BAND_GROUPS
) -> RawBands:
    """Ask for the bands of objects whose noiseless fluxes are known, on the network's device."""
    if photometry.noiseless is None:
        raise ValueError("bands are compared with their noiseless fluxes: draw objects from a simulated sky")
    device = next(model.parameters()).device
    depth, pull = [], []
    for begin in range(0, len(photometry), batch_size):
        rows = slice(begin, begin + batch_size)
        flux, error, ebv, truth = (
            torch.from_numpy(part[rows]).to(device)
            for part in (photometry.flux, photometry.error, photometry.ebv, photometry.noiseless)
        )
        outputs = leave_one_out(model, flux, error, ebv, groups)
        value, _ = compress(truth, torch.zeros_like(truth), ebv, outputs.brightness)
        pull.append(((value - outputs.mean) * torch.exp(-outputs.log_scale)).cpu())
        depth.append(snr_level(tokens_of(flux, error, ebv)).cpu())
    return RawBands(torch.cat(depth).clone(), torch.cat(pull).clone())


class Embedded(NamedTuple):
    """Embeddings (N, d) and depths (N,) of objects."""

    embedding: Tensor
    depth: Tensor


@torch.inference_mode()
def embed(model: Ojala, photometry: LabelledPhotometry, batch_size: int = 128) -> Embedded:
    """Encoded tokens of objects, on the network's device, in single precision."""
    device = next(model.parameters()).device
    parts = []
    for begin in range(0, len(photometry), batch_size):
        rows = slice(begin, begin + batch_size)
        tokens = tokenise(photometry.flux[rows], photometry.error[rows], photometry.ebv[rows]).to(device)
        parts.append((model.embed(model.encode(tokens), tokens.valid).cpu(), snr_level(tokens).cpu()))
    embedding, depth = (torch.cat(tensors).clone() for tensors in zip(*parts, strict=True))
    return Embedded(embedding, depth)
