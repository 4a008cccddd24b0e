"""Operations and rates of the network of OJALA.

Timed functions run in the processes of a `ProcessPool` and return rows and seconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from upath import UPath

from ojala.flows.bench.machine import Shape
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala.tokens import Tokens, tokenise
from ojala.models.ojala_published.inputs import INPUTS, PublishedInputs, as_read
from ojala.models.ojala_published.network import CONTEXT, PublishedConfig, PublishedOjala
from ojala.models.ojala_published.network import REQUESTS as PUBLISHED_REQUESTS
from ojala.models.serving.precision import Precision
from ojala.pipeline.inference.adapters.ojala_published import PublishedAdapter
from ojala.pipeline.inference.photometry import Photometry, read_photometry
from ojala.pipeline.storage.hats import read_leaves

REFERENCE_BATCH = 64
"""Batch size of the authors' way of serving."""


@cache
def predictor(precision: Precision) -> OjalaPredictor:
    """Load the bundled weights, once per process."""
    return OjalaPredictor.load(precision=precision)


@cache
def photometry(root: str) -> Photometry:
    """Read all rows of a photometry catalogue, once per process."""
    return read_photometry(leaves_of(root))


def leaves_of(root: str) -> pa.Table:
    """Read all rows of a catalogue into one table."""
    catalogue = UPath(root)
    leaves = [catalogue / partition.leaf for partition in read_leaves(catalogue)]
    return pa.concat_tables([pq.ParquetFile(leaf.path).read() for leaf in leaves])


def batches(root: str, rows: int, size: int) -> list[Tokens]:
    """Tokenise rows in full batches."""
    of = photometry(root)
    return [
        tokenise(of.flux[i : i + size], of.error[i : i + size], of.ebv[i : i + size])
        for i in range(0, rows - size + 1, size)
    ]


# --- timed functions --------------------------------------------------------------------------------


def forward(root: str, rows: int, precision: Precision) -> tuple[float, float]:
    """Time the network, from tokens to raw outputs and the embedding."""
    forward = predictor(precision).predict_uncalibrated
    tokens = batches(root, rows, predictor(precision).batch_size)
    forward(tokens[0])
    begin = time.perf_counter()
    for batch in tokens:
        forward(batch)
    return float(len(tokens) * predictor(precision).batch_size), time.perf_counter() - begin


def predict(root: str, rows: int, precision: Precision, bands: bool = False) -> tuple[float, float]:
    """Time the predictor, from photometry to the columns of the catalogue, also with bands."""
    of, model = photometry(root), predictor(precision)
    ways = (model.predict, model.predict_bands) if bands else (model.predict,)
    columns = (of.flux[:rows], of.error[:rows], of.ebv[:rows])
    for way in ways:
        way(*(column[: model.batch_size] for column in columns))
    begin = time.perf_counter()
    for way in ways:
        way(*columns)
    return float(len(columns[0])), time.perf_counter() - begin


def predicts_bands() -> bool:
    """Whether the weights can be asked for bands."""
    return predictor("fp32").network.band_requests is not None


@cache
def published_network() -> PublishedOjala:
    """The published network with random weights, whose values do not change its speed."""
    names = (*INPUTS, *PUBLISHED_REQUESTS, "MORPHTYPE")
    config = PublishedConfig(names, (0.0,) * (len(names) + 1), (1.0,) * (len(names) + 1))
    generator = torch.Generator().manual_seed(1)
    network = PublishedOjala(config).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
    return network


def published_inputs(root: str, rows: int) -> Tensor:
    """Inputs of the published network for so many rows, (N, 60)."""
    of = photometry(root)
    inputs = PublishedInputs(of.flux[:rows], np.full(rows, np.nan, np.float32), of.ebv[:rows])
    return torch.from_numpy(as_read(inputs.script_columns()[0]))


@torch.inference_mode()
def forward_published(root: str, rows: int) -> tuple[float, float]:
    """The published network as this program serves it: all answers from one pass; single precision."""
    network, size = published_network(), PublishedAdapter.cpu_batch
    parts = torch.split(published_inputs(root, rows // size * size), size)
    network(parts[0])
    begin = time.perf_counter()
    for part in parts:
        network(part)
    return float(sum(map(len, parts))), time.perf_counter() - begin


@torch.inference_mode()
def serve_as_published(root: str, rows: int) -> tuple[float, float]:
    """The published network in its authors' way: see `one_request_at_a_time`; single precision, eager."""
    network = published_network()
    parts = torch.split(published_inputs(root, rows // REFERENCE_BATCH * REFERENCE_BATCH), REFERENCE_BATCH)
    one_request_at_a_time(network, parts[0])
    begin = time.perf_counter()
    for part in parts:
        one_request_at_a_time(network, part)
    return float(sum(map(len, parts))), time.perf_counter() - begin


@torch.inference_mode()
def one_request_at_a_time(network: PublishedOjala, values: Tensor) -> Tensor:
    """Means (N, 15) of `values` (N, 60) in the authors' way.

    The inputs are a list of tokens, padded to the context of 75; each object's embeddings are gathered, its
    mask is a whole matrix, and each request passes the decoder alone, which makes its keys and values anew.
    """
    standardised, valid = network.standardise(values)
    padding = (0, CONTEXT - values.shape[1])
    ids = F.pad(torch.where(valid, network.input_ids, 0), padding)
    meta = network.meta.new_zeros(len(network.embeddings), 3)
    meta[network.input_ids] = network.meta
    of = meta[ids]
    gate = network.embeddings[ids] + network.meta_mlp(of) * of[..., 1:2]
    x = F.gelu(gate * F.pad(standardised, padding)[..., None] + network.offsets[ids])
    empty = ids == 0
    pairs = -1e4 * (empty[:, :, None] | empty[:, None]).float()[:, None]
    for gain, block in zip(network.gain, network.encoder, strict=True):
        x = block(x, None, gain * pairs)
    mask = -1e4 * empty.float()[:, None, None]
    heads = (network.mean_head, network.logvar_head, network.class_head, network.morphology_head)
    means = []
    for request in network.request_ids:
        answer = network.embeddings[request].expand(len(values), 1, -1)
        for block in network.decoder:
            answer = block(answer, x, mask)
        features = network.trunk(answer)
        mean, *_ = [head(features) for head in heads]
        means.append(mean[:, 0])
    return torch.cat(means, dim=1)


# --- counts ---------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is not typed
    """Context that counts matrix products and the bytes of all operands.

    Attributes
    ----------
    products : Counter of (rows, inner, columns)
        Number of products with weights by shape.
    moved : int
        Bytes read and written by operations other than views.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # neither is this
        self.products: Counter[Shape] = Counter()
        self.moved = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Count an operation; called by torch."""
        out = func(*args, **(kwargs or {}))
        if func.is_view:
            return out
        operands = [a for a in (*args, out) if isinstance(a, Tensor)]
        self.moved += sum(a.numel() * a.element_size() for a in operands)
        if func is torch.ops.aten.linear.default:
            x, weight, *_ = operands
            self.products[x.numel() // x.shape[-1], x.shape[-1], len(weight)] += 1
        return out


def count(root: str) -> tuple[float, float, float, dict[Shape, int]]:
    """Count floating-point operations and bytes per object, in the first batch of a run.

    Returns
    -------
    flops : float
        Floating-point operations of matrix products, per object.
    moved : float
        Bytes of all operands, per object, without fusion of operations.
    least : float
        Lower limit of the bytes, per object: inputs, outputs and the weights over the batch size.
    products : dict of (rows, inner, columns) to int
        Matrix products of a batch by the network's weights.
    """
    model = predictor("fp32")
    size = model.batch_size
    (tokens,) = batches(root, size, size)
    apart = sdpa_kernel(SDPBackend.MATH)  # products in fused kernels are not counted
    with torch.inference_mode(), apart, FlopCounterMode(display=False) as counter:
        model.predict_uncalibrated(tokens)
    with torch.inference_mode(), Operations() as operations:
        outputs, embedding = model.predict_uncalibrated(tokens)
    outside = [*tokens, *outputs.values(), embedding, *model.network.parameters()]
    least = sum(a.numel() * a.element_size() for a in outside)
    return counter.get_total_flops() / size, operations.moved / size, least / size, dict(operations.products)
