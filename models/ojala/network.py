"""OJALA: a photometric foundation model with a query for each quantity.

Any subset of bands is the context: one value-gated token per band (flux, its error, its signal-to-noise
ratio and the band's wavelength), an encoder with a relative-wavelength attention bias, and request tokens
answered by cross-attention, each on its own. After Martínez-Solaeche et al. (arXiv:2604.00661), whose
network descends from Leung & Bovy (2024, MNRAS 527, 1494). What differs on purpose: slots are fixed and
masked instead of shuffled (the same function, less work), there is one forward path for training and
serving, all requests share the keys and values, errors are read, and a redshift is predicted with a PDF
instead of one Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.models.layers.attention import Block, ValidSlots, WavelengthBias
from ojala.models.layers.distributions import LOG_SCALE_RANGE, MEAN_LIMIT
from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, N_REDSHIFT_BINS
from ojala.models.ojala.headers import NO_BAND_REQUESTS
from ojala.models.ojala.tokens import N_BANDS, N_FEATURES, Tokens
from ojala.models.quantities import CLASSES, QUANTITIES, Kind
from ojala.models.settings import checked

BAND_LIMIT = 20.0
"""The same for bands: an emission line in one narrow band is far from the band's usual flux."""


@checked
@dataclass(frozen=True)
class OjalaConfig:
    """Shape of the network; `PRESETS` has the named ones.

    Attributes
    ----------
    width : int
        Width of every token.
    encoder, decoder : tuple of (heads, feed-forward width)
        One entry per self-attention block over bands, per cross-attention block of the requests.
    trunk : tuple of int
        Hidden layers between the decoder and the heads, shared by all requests.
    pre_norm : bool
        Place of the normalisation in the blocks.
    reads_errors : bool
        Whether a token holds the error and the signal-to-noise ratio besides the flux.
    redshift_pdf : bool
        Whether a redshift is predicted with a free PDF over the bins, or (as first published) with the mean
        and variance of one Gaussian in dz / (1 + z).
    chain : bool
        Whether scalars and bands are predicted given the class and the redshift of the first pass:
        class -> redshift -> properties.
    band_requests : bool
        Whether the flux in a band can be requested.
    """

    width: int
    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]
    trunk: tuple[int, ...]
    pre_norm: bool
    reads_errors: bool
    redshift_pdf: bool = True
    chain: bool = False
    band_requests: bool = False


PRESETS: dict[str, OjalaConfig] = {
    # The published shape: besides the fixed slots, only the brightness token is this project's.
    "published": OjalaConfig(
        width=128,
        encoder=((16, 1024), (8, 512)),
        decoder=((16, 2048), (8, 1024), (4, 512)),
        trunk=(2048, 1024, 512, 256),
        pre_norm=False,
        reads_errors=False,
        redshift_pdf=False,
    ),
    # What is trained here: deeper over bands, narrow heads, errors read, properties after the redshift.
    "base": OjalaConfig(
        width=128,
        encoder=((4, 512),) * 4,
        decoder=((4, 512),) * 2,
        trunk=(512,),
        pre_norm=True,
        reads_errors=True,
        chain=True,
        band_requests=True,
    ),
}
"""Named shapes."""

REQUESTS: tuple[str, ...] = tuple(quantity.name for quantity in QUANTITIES)
_KINDS: dict[str, Kind] = {quantity.name: quantity.kind for quantity in QUANTITIES}
FIRST = tuple(name for name in REQUESTS if _KINDS[name] != Kind.SCALAR)
"""Quantities that a chain predicts before the scalars: class and redshifts."""

BANDS = "bands"
"""Name of the output of the bands that are queried."""

_Z_WAVES = 12
"""Cosines and sines of ln(1 + z) by which a chain knows a redshift; the shortest wave is 0.004 long."""


class BandQueries(NamedTuple):
    """Bands that are queried, as the decoder takes them.

    Attributes
    ----------
    tokens : Tensor, shape (Q, d) or (N, Q, d)
        Request tokens.
    biases : list of Tensor, shape (heads, Q, S + 1) or (N, heads, Q, S + 1)
        Bias of each block.
    """

    tokens: Tensor
    biases: list[Tensor]


class BandTokens(nn.Module):
    """Features of each band -> tokens: GELU((E + MLP(wavelength)) * flux + E' * error + E'' * S/N + b).

    The features are first standardised per band by their median and robust scatter over training draws
    (`fit`). These and the bands' wavelengths are stored with the weights, so that a later correction to the
    table of bands does not change what a trained network sees.
    """

    wavelength: Tensor
    center: Tensor
    scale: Tensor

    def __init__(self, width: int, n_features: int) -> None:
        super().__init__()
        log_wavelength = torch.tensor([math.log(band.pivot) for band in MODEL_BANDS])
        narrow = torch.tensor([float(band.is_narrow) for band in MODEL_BANDS])
        position = (log_wavelength - math.log(6500.0)) / 0.5
        self.register_buffer("wavelength", torch.stack([position, narrow], dim=-1))
        self.register_buffer("center", torch.zeros(N_BANDS, N_FEATURES))
        self.register_buffer("scale", torch.ones(N_BANDS, N_FEATURES))
        self.embedding = nn.Parameter(0.5 * torch.randn(n_features, N_BANDS, width))
        self.bias = nn.Parameter(0.5 * torch.randn(N_BANDS, width))
        self.of_wavelength = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Linear(64, width))
        self.brightness = nn.Parameter(0.5 * torch.randn(2, width))

    @torch.no_grad()
    def fit(self, tokens: Tokens) -> None:
        """Set center and scale of each band's features from draws; bands never seen keep (0, 1)."""
        nothing = torch.tensor(torch.nan)
        features = torch.where(tokens.valid[..., None], tokens.features, nothing)
        center = features.nanmedian(dim=0).values
        scale = 1.4826 * (features - center).abs().nanmedian(dim=0).values
        self.center.copy_(center.nan_to_num(0.0))
        self.scale.copy_(scale.nan_to_num(1.0).clamp_min(0.05))

    def forward(self, tokens: Tokens, bands: Tensor) -> Tensor:
        """Tokens of slots that hold the given bands, and the brightness token last: (N, S + 1, d).

        ``bands`` is (S,), or (N, S) where the rows' slots hold different bands.
        """
        features = (tokens.features - self.center[bands]) / self.scale[bands]
        features = torch.where(tokens.valid[..., None], features, 0.0).clamp(-20.0, 20.0)
        gate = self.embedding[0] + self.of_wavelength(self.wavelength)
        # One table, so that one look-up fetches all that belongs to the band of a slot.
        table = torch.cat([self.bias, gate, *self.embedding[1:]], dim=-1)
        x, *weight = F.embedding(bands, table).chunk(len(self.embedding) + 1, dim=-1)
        for channel, of_channel in enumerate(weight):
            x = x + of_channel * features[..., channel : channel + 1]
        slope, offset = self.brightness
        bright = slope * (tokens.brightness[:, None, None] - 1.0) + offset
        return F.gelu(torch.cat([x, bright], dim=1))


class GaussianRedshift(nn.Module):
    """Mean and variance of ln(1 + z) -> logits of a Gaussian over the bins, so that one loss serves both.

    Cross-entropy with it is the negative log-likelihood of dz / (1 + z) under a Gaussian.
    """

    bins: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parameters_of = nn.Linear(width, 2)
        self.register_buffer("bins", (torch.arange(N_REDSHIFT_BINS) + 0.5) * LOG1PZ_STEP, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., d) -> logits (..., B)."""
        mean, log_sigma = self.parameters_of(features).float().unbind(-1)
        sigma = 0.05 * torch.exp(log_sigma.clamp(-4.5, 2.5))
        logits: Tensor = -0.5 * ((self.bins - 0.5 - mean[..., None]) / sigma[..., None]) ** 2
        return logits


class BandRequests(nn.Module):
    """Request tokens of bands, and the bias with which they look up the bands that were given.

    Parameters
    ----------
    width : int
        Of a token.
    heads : tuple of int
        Heads of each block of the decoder.
    """

    def __init__(self, width: int, heads: tuple[int, ...]) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.5 * torch.randn(N_BANDS, width))
        self.of_wavelength = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Linear(64, width))
        self.bias = _wavelength_bias(heads)

    def forward(self, queried: Tensor, wavelength: Tensor) -> Tensor:
        """Request tokens (..., d) of bands (...); ``wavelength`` (63, 2) is that of `BandTokens`."""
        return F.embedding(queried, self.embedding + self.of_wavelength(wavelength))


class Found(nn.Module):
    """Class and redshift of a chain, as an addition to the request tokens of scalars and bands.

    The class's probabilities and, for both redshifts, the mean over the PDF of cosines and sines of
    ln(1 + z): a broad PDF averages the short waves away, so its width is known too. It starts at zero, as if
    nothing were known, and passes no gradient back: properties do not bend the redshift.
    """

    waves: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        grid = (torch.arange(N_REDSHIFT_BINS) + 0.5) * LOG1PZ_STEP
        phase = grid[:, None] * (2.0 * math.pi / torch.logspace(math.log10(4.0), math.log10(0.004), _Z_WAVES))
        self.register_buffer("waves", torch.cat([phase.cos(), phase.sin()], dim=-1), persistent=False)
        self.hidden = nn.Linear(len(CLASSES) + 2 * 2 * _Z_WAVES, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, outputs: dict[str, Tensor]) -> Tensor:
        """Logits of class and redshifts -> (N, 1, d)."""
        known = [F.softmax(outputs["class"].detach().float(), dim=-1)]
        known += [F.softmax(outputs[z].detach().float(), dim=-1) @ self.waves for z in ("z_gal", "z_qso")]
        out: Tensor = self.out(F.gelu(self.hidden(torch.cat(known, dim=-1))))[:, None]
        return out


class Ojala(nn.Module):
    """The network.

    Consumes `Tokens` (any subset of bands valid) and the names of requests; outputs each request:

    * ``class``: logits, shape (N, 3), in the order of `CLASSES`;
    * ``z_gal``, ``z_qso``: logits over the bins of ln(1 + z), shape (N, 1825);
    * a scalar: location and log-scale of a Student-t distribution (nu = 3) of the standardised value,
      shape (N, 2);
    * ``bands``, the Q bands that are queried (a shape with band requests): the same of arcsinh(flux / s),
      standardised by `Ojala.band_units`, shape (N, Q, 2). The flux is that which the band would measure
      without noise, dereddened, s the object's own scale (see `ojala.models.ojala.tokens.compress`).

    An output does not depend on what else is requested, nor on the other rows. The network is trained to
    predict bands that were not given to it; to query one that was measured, take it out of the tokens.
    """

    def __init__(self, config: OjalaConfig) -> None:
        super().__init__()
        self.config = config
        width, norm = config.width, config.pre_norm
        self.tokens = BandTokens(width, N_FEATURES if config.reads_errors else 1)
        self.wavelength_bias = _wavelength_bias(tuple(heads for heads, _ in config.encoder))
        self.encoder = nn.ModuleList(
            Block(width, *shape, cross=False, pre_norm=norm) for shape in config.encoder
        )
        self.decoder = nn.ModuleList(
            Block(width, *shape, cross=True, pre_norm=norm) for shape in config.decoder
        )
        self.norm_encoded = nn.LayerNorm(width) if norm else nn.Identity()
        self.norm_decoded = nn.LayerNorm(width) if norm else nn.Identity()
        self.request = nn.Parameter(0.5 * torch.randn(len(REQUESTS), width))
        sizes = (width, *config.trunk)
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.GELU())]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {
                Kind.CLASS.value: nn.Linear(sizes[-1], len(CLASSES)),
                Kind.REDSHIFT.value: (
                    nn.Linear(sizes[-1], N_REDSHIFT_BINS)
                    if config.redshift_pdf
                    else GaussianRedshift(sizes[-1])
                ),
                Kind.SCALAR.value: nn.Linear(sizes[-1], 2),
            }
        )
        self.found = Found(width) if config.chain else None
        self.band_requests = None
        if config.band_requests:
            self.band_requests = BandRequests(width, tuple(heads for heads, _ in config.decoder))
            self.heads[BANDS] = nn.Linear(sizes[-1], 2)

    def forward(
        self,
        tokens: Tokens,
        requests: Sequence[str] = REQUESTS,
        bands: Tensor | None = None,
        queried: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Answer the requests from the tokens; see the class for the outputs.

        Parameters
        ----------
        tokens : Tokens
            The photometry, in S slots.
        requests : sequence of str
            Names in `REQUESTS`.
        bands : Tensor of int64, shape (S,) or (N, S), optional
            The band in each slot, of all rows or of each; by default the slots are the 63 bands in order.
        queried : Tensor of int64, shape (Q,) or (N, Q), optional
            Bands that are queried, by all rows or by each.

        Raises
        ------
        ValueError
            Bands are queried and the network has no band requests.
        """
        return self.decode_requests(self.encode(tokens, bands), tokens.valid, requests, bands, queried)

    def encode(self, tokens: Tokens, bands: Tensor | None = None) -> Tensor:
        """Tokens -> encoded tokens (N, S + 1, d), the brightness token last; undefined in empty slots."""
        if bands is None:
            bands = torch.arange(N_BANDS, device=tokens.valid.device)
        hidden, x = _hide(tokens.valid), self.tokens(tokens, bands)
        blocks = cast("Sequence[Block]", self.encoder)
        slots = ValidSlots.where_faster(_shown(tokens.valid), blocks[0].attention.query.weight.dtype)
        x = x if slots is None else slots.pick(x)
        for block, bias in zip(blocks, self.wavelength_bias(bands), strict=True):
            x = block.cross_attend(x, None, bias + hidden, slots)
        out: Tensor = self.norm_encoded(x)
        return out if slots is None else slots.spread(out)

    def decode_requests(
        self,
        encoded: Tensor,
        valid: Tensor,
        requests: Sequence[str] = REQUESTS,
        bands: Tensor | None = None,
        queried: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Encoded tokens (N, S + 1, d) and their validity (N, S) -> outputs by name; see `forward`."""
        memories = self.precompute_kv(encoded)
        queries = None if queried is None else self.band_queries(queried, bands)
        if self.found is None or (queries is None and all(name in FIRST for name in requests)):
            return self.decode(memories, valid, requests, queries=queries)
        first = self.decode(memories, valid, FIRST)
        scalars = [name for name in requests if name not in FIRST]
        outputs = first | self.decode(memories, valid, scalars, self.found(first), queries)
        return {name: outputs[name] for name in (*requests, *([] if queries is None else [BANDS]))}

    def band_queries(self, queried: Tensor, bands: Tensor | None) -> BandQueries:
        """Request tokens and biases of the bands that are queried; see `forward`."""
        if self.band_requests is None:
            raise ValueError(NO_BAND_REQUESTS)
        if bands is None:
            bands = torch.arange(N_BANDS, device=queried.device)
        bias = self.band_requests.bias
        near = F.pad(bias.kernel(queried, bands), (0, 1))  # the brightness token has no wavelength
        return BandQueries(self.band_requests(queried, self.tokens.wavelength), bias.scaled(near))

    def band_units(self, queried: Tensor) -> tuple[Tensor, Tensor]:
        """Center and scale (...) by which arcsinh(flux / s) in bands (...) is standardised."""
        return self.tokens.center[queried, 0], self.tokens.scale[queried, 0]

    def precompute_kv(self, encoded: Tensor) -> list[Tensor]:
        """What each block of the decoder looks things up in; see `Attention.precompute_kv`."""
        return [block.attention.precompute_kv(encoded) for block in cast("Iterable[Block]", self.decoder)]

    def decode(
        self,
        memories: list[Tensor],
        valid: Tensor,
        requests: Sequence[str],
        found: Tensor | None = None,
        queries: BandQueries | None = None,
    ) -> dict[str, Tensor]:
        """Answer each request on its own, with what a chain has found (N, 1, d) added to its token."""
        # Taken one by one: a list of indices would have to be copied to a GPU for each batch.
        tokens = [self.request[REQUESTS.index(name)].expand(len(valid), 1, -1) for name in requests]
        biases = [_hide(valid)] * len(memories)
        if queries is not None:
            tokens.append(queries.tokens.expand(len(valid), -1, -1))
            # Rows of zeros for the requests before them.
            near = [F.pad(bias, (0, 0, len(requests), 0)) for bias in queries.biases]
            biases = [hidden + bias for hidden, bias in zip(biases, near, strict=True)]
        x = torch.cat(tokens, dim=1)
        if found is not None:
            x = x + found
        for block, memory, bias in zip(cast("Iterable[Block]", self.decoder), memories, biases, strict=True):
            x = block.cross_attend(x, memory, bias)
        x = self.norm_decoded(x).to(next(self.trunk.parameters()).dtype)
        features = self.trunk(x)
        outputs: dict[str, Tensor] = {}
        if queries is not None:
            outputs[BANDS] = _bound(self.heads[BANDS](features[:, len(requests) :]).float(), BAND_LIMIT)
        for kind, head in self.heads.items():
            names = [name for name in requests if _KINDS[name] == kind]
            if names:
                of_names = torch.stack([features[:, requests.index(name)] for name in names], dim=1)
                of_kind = head(of_names).float()
                outputs |= dict(zip(names, of_kind.unbind(1), strict=True))
        for name in requests:
            if _KINDS[name] == Kind.SCALAR:
                outputs[name] = _bound(outputs[name], MEAN_LIMIT)
        return {name: outputs[name] for name in (*requests, *([] if queries is None else [BANDS]))}

    def cast_bf16(self) -> None:
        """Keep the weights of the matrix products of blocks, trunk and heads as bfloat16, for good.

        What they are multiplied with is rounded to it too; the rest stays in single precision.
        """
        for part in (self.encoder, self.decoder, self.trunk, self.heads):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    module.to(torch.bfloat16)

    def embed(self, encoded: Tensor, valid: Tensor) -> Tensor:
        """Mean of the encoded tokens that are valid, the brightness token included: (N, d)."""
        weight = _shown(valid).unsqueeze(-1).float()
        return (encoded.float() * weight).sum(dim=1) / weight.sum(dim=1)


def _shown(valid: Tensor) -> Tensor:
    """Which tokens can be attended to (N, S + 1): those of valid slots and the brightness token."""
    return F.pad(valid, (0, 1), value=True)


def _hide(valid: Tensor) -> Tensor:
    """Additive mask (N, 1, 1, S + 1): 0 for valid slots and the brightness token, -inf for the rest."""
    shown = _shown(valid)
    return torch.zeros(shown.shape, device=valid.device).masked_fill(~shown, -math.inf)[:, None, None, :]


def _bound(output: Tensor, limit: float) -> Tensor:
    """Location and log-scale (..., 2) within their bounds."""
    mean, log_scale = output.unbind(-1)
    return torch.stack([mean.clamp(-limit, limit), log_scale.clamp(*LOG_SCALE_RANGE)], dim=-1)


def _wavelength_bias(heads: tuple[int, ...]) -> WavelengthBias:
    """The bias of blocks with so many heads over the model's bands."""
    return WavelengthBias(
        torch.tensor([math.log(band.pivot) for band in MODEL_BANDS]),
        torch.tensor([band.is_narrow for band in MODEL_BANDS]),
        heads,
    )
