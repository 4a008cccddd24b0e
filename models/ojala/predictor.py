"""From photometry to a catalogue's numbers with trained weights."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.catalogs_schema.ojala import MIN_CLASS_PROBABILITY, PDF_MASS
from ojala.models.checkpoint import NetworkInfo
from ojala.models.data import CALIBRATION_FLOOR, valid_bands
from ojala.models.layers.distributions import STUDENT_T3_HALF_WIDTH
from ojala.models.layers.redshift_pdf import RedshiftSummary, most_probable_bins, summarise
from ojala.models.ojala.calibration import Calibration
from ojala.models.ojala.checkpoint import FORMAT, WeightsInfo
from ojala.models.ojala.headers import NO_BAND_REQUESTS, heads_beside
from ojala.models.ojala.heads import Head, in_units, load_head
from ojala.models.ojala.losses import REDSHIFTS
from ojala.models.ojala.network import Ojala
from ojala.models.ojala.novelty import raw_vector
from ojala.models.ojala.outputs import leave_one_out, snr_level
from ojala.models.ojala.tokens import (
    N_BANDS,
    Tokens,
    expand,
    require_photometry,
    tokens_of,
)
from ojala.models.ojala.zero_points import ZeroPoints
from ojala.models.quantities import CLASSES, FINE_TUNED, SCALARS
from ojala.models.serving.batching import MAX_CONCURRENCY, BatchPipeline, Compute, CpuBuffer
from ojala.models.serving.cuda_graph import CudaBuffer, CudaGraphRunner
from ojala.models.serving.precision import Precision
from ojala.models.serving.predictor import BasePredictor

QUANTILE_NAMES: tuple[str, ...] = ("z_q02", "z_q16", "z_q50", "z_q84", "z_q98")
_CLASS_OF = tuple(CLASSES.index(name) for name in ("GALAXY", "QSO"))  # of `REDSHIFTS`
_FINE_TUNED = {quantity.name for quantity in FINE_TUNED}


class OjalaPredictor(BasePredictor):
    """OJALA with trained weights, as the pipeline uses it.

    Attributes
    ----------
    network : Ojala
        The network, in evaluation mode.
    heads : tuple of (str, str)
        Names and SHA-256 of the heads on the network: those stored with the weights, and those of the option
        ``own_heads`` (files) of `load`.
    pdfs : bool
        Whether redshift PDFs are among the predictions; to leave them out saves their time.
    bands : bool
        Whether the predictions of `predict_bands` are among the predictions.
    max_concurrency : int
        Threads that may call `predict` at a time.
    """

    FORMAT = FORMAT
    WEIGHTS = "ojala-base.safetensors"
    BATCH_SIZE = 128

    def __init__(
        self,
        model: Ojala,
        info: WeightsInfo,
        *,
        device: str,
        precision: Precision,
        batch_size: int,
        heads: Sequence[Head] = (),
        pdfs: bool = True,
        bands: bool = False,
    ) -> None:
        super().__init__(model, info, device=device, precision=precision, batch_size=batch_size)
        self.network = model
        self._calibration = (info.calibration or Calibration.none()).to(device)
        self._novelty = info.novelty.to(device) if info.novelty else None
        self._zero_points = (info.zero_points or ZeroPoints.none()).to(device).factor
        self.heads = tuple((head.quantity.name, head.sha256) for head in heads)
        self._heads = heads
        self.pdfs, self.bands = pdfs, bands
        for head in heads:
            head.mlp.to(device)
        if precision == "bf16":
            self.network = copy.deepcopy(self.network)  # a training goes on with what it has checked
            self.network.cast_bf16()
        on_gpu = torch.device(device).type == "cuda"
        self.max_concurrency = MAX_CONCURRENCY if on_gpu else 1
        # Joining operations saves most of a GPU's traffic with its memory; a CPU's caches do as well.
        self._forward = (
            torch.compile(self.predict_uncalibrated, dynamic=False, fullgraph=True)
            if on_gpu
            else self.predict_uncalibrated
        )
        self._pipelines: dict[str, BatchPipeline] = {}
        self._making = threading.Lock()

    @classmethod
    def _load_options(cls, weights: Path, info: NetworkInfo[Any], **options: object) -> dict[str, Any]:
        """Heads in the folder of the weights (see `headers.heads_beside`), and those of ``own_heads``."""
        own = cast("Sequence[Path | str]", options.pop("own_heads", ()))
        stored = heads_beside(weights, lambda: info.sha256)
        heads = [load_head(Path(path), info.sha256) for path in (*stored.values(), *own)]
        return options | {"heads": heads}

    def halve_batch(self) -> None:
        """See `BasePredictor`; the way through the device is made anew."""
        self._pipelines.clear()
        super().halve_batch()

    def predict(self, flux: np.ndarray, error: np.ndarray, ebv: np.ndarray) -> dict[str, np.ndarray]:
        """Predictions for N objects.

        Parameters
        ----------
        flux, error : ndarray, shape (N, 63)
            Flux densities and standard errors [uJy] in the order of
            `ojala.catalogs_schema.bands.MODEL_BANDS`, NaN where not observed; whatever cannot be a
            measurement is not read. A row without any band gets the prediction of the training's prior.
        ebv : ndarray, shape (N,)
            Galactic E(B-V) [mag].

        Returns
        -------
        dict of str to ndarray, N rows each; float32 unless said
            * ``class_code`` int8 (index into `CLASSES`) and ``p_galaxy``, ``p_star``, ``p_qso``.
            * Of the most probable class, NaN for stars: ``z`` (mean of the PDF within 0.01 (1 + z) of its
              highest mode), ``z_err`` (half the width between ``z_q16`` and ``z_q84``), ``z_q02 z_q16 z_q50
              z_q84 z_q98`` (2.28, 15.87, 50, 84.13, 97.72 % quantiles: the median and one and two sigma of a
              Gaussian), ``z_odds`` (mass within 0.03 (1 + z) of ``z``), ``z_mode2`` and ``z_mode2_p`` (second
              mode and its mass; NaN and 0 where it holds less than 0.01).
            * ``z_gal``, ``z_qso`` and their ``_err``: the same under the assumption of the class, for every
              row.
            * Each scalar quantity [its unit] and its ``_err``: half the width of the central 68.3 %
              interval of the predictive distribution (a Student-t with nu = 3 in the quantity's transform,
              whose ends are mapped to the unit), under the assumption of the class, for every row.
            * Each of `FINE_TUNED` and its ``_err``, in the same way (one standard deviation of a Gaussian);
              NaN without a head for these weights.
            * ``head.NAME`` and ``head.NAME_err``: the same of each other head.
            * ``novelty``: see `ojala.models.ojala.novelty`; NaN where the weights do not hold what it needs.
            * ``z_gal_pdf`` float16 (M,) and ``z_gal_pdf_bin`` int16 (M,): probabilities of bins of 0.001 in
              ln(1 + z) and the bins' numbers, those of all rows one after the other, ``z_gal_pdf_n`` int32
              (N,) of each: the most probable bins, which hold 99.9 %, of the PDF from which ``z_gal`` comes.
              None for rows whose ``p_galaxy`` is below 0.01. The same for ``z_qso``. Not without `pdfs`.
            * ``embedding`` float16 (N, width): mean of the encoded tokens.

            * With `bands` also those of `predict_bands`.

            Probabilities, PDFs and errors are calibrated where the weights hold a calibration.
        """
        require_photometry(flux, error, ebv)
        columns = self._catalogue(self._pipeline("catalogue", self._predict_batch).run(flux, error, ebv))
        return columns | self.predict_bands(flux, error, ebv) if self.bands else columns

    def predict_bands(self, flux: np.ndarray, error: np.ndarray, ebv: np.ndarray) -> dict[str, np.ndarray]:
        """Flux in each band of N objects from their other bands, and how well it fits what was measured.

        A band that was measured is hidden together with every eighth other one, one that was not is predicted
        from all that were (see `ojala.models.ojala.outputs.leave_one_out`): nine encodings.

        Parameters
        ----------
        flux, error, ebv : ndarray
            As in `predict`.

        Returns
        -------
        dict of str to ndarray, N rows each
            * ``band_flux``, ``band_flux_err`` float32 (N, 63): flux density that the band would measure
              without noise [uJy], Galactic extinction included, and its standard error: half the width of the
              central 68.3 % interval of the predictive distribution. For bands that were observed and for
              those that were not; NaN where no band was left to predict from.
            * ``band_sigma`` float32 (N, 63): (measured - predicted) / sqrt(error^2 + predicted error^2); NaN
              where not observed. The error is at least `ojala.models.data.CALIBRATION_FLOOR` of the
              flux.
            * ``chi2_bands`` float32: sum of its squares, and ``n_chi2_bands`` int16: their number.
            * ``worst_band`` int16: index of the band that is farthest off, -1 without any; and
              ``worst_band_sigma`` float32: its ``band_sigma``.

        Raises
        ------
        ValueError
            The shapes do not fit, or these weights cannot be asked for bands.
        """
        require_photometry(flux, error, ebv)
        if self.network.band_requests is None:
            raise ValueError(NO_BAND_REQUESTS)
        return self._pipeline("bands", self._predict_bands_batch).run(flux, error, ebv)

    def warm_up(self) -> None:
        """Make the way through the device: on a GPU, compile and record the network for its batches."""
        self._pipeline("catalogue", self._predict_batch)
        if self.bands:
            self._pipeline("bands", self._predict_bands_batch)

    def _pipeline(self, name: str, compute: Compute) -> BatchPipeline:
        """The way through the device of a computation, for batches of the size that is asked for now."""
        with self._making:
            pipeline = self._pipelines.get(name)
            if pipeline is None or pipeline.size != self.batch_size:
                self._pipelines.pop(name, None)  # its memory is needed
                pipeline = self._pipelines[name] = self._make_pipeline(compute, self.batch_size)
            return pipeline

    def _make_pipeline(self, compute: Compute, size: int) -> BatchPipeline:
        if torch.device(self.device).type == "cuda":
            function = CudaGraphRunner(compute, ((N_BANDS,), (N_BANDS,), ()), size)
            return BatchPipeline(lambda: CudaBuffer(function), size, self.max_concurrency, _pack_pdfs)
        return BatchPipeline(lambda: CpuBuffer(compute, size), size, self.max_concurrency, _pack_pdfs)

    @torch.no_grad()
    def predict_uncalibrated(self, tokens: Tokens) -> tuple[dict[str, Tensor], Tensor]:
        """The network alone: raw outputs of all requests, and the embedding (N, d)."""
        encoded = self.network.encode(tokens)
        return self.network.decode_requests(encoded, tokens.valid), self.network.embed(encoded, tokens.valid)

    @torch.no_grad()
    def _predict_batch(self, flux: Tensor, error: Tensor, ebv: Tensor) -> dict[str, Tensor]:
        """Predictions for a batch, all on the device: nothing is copied from or to it, nothing waits."""
        flux, error = flux / self._zero_points, error / self._zero_points
        tokens = tokens_of(flux, error, ebv)
        outputs, embedding = self._forward(tokens)
        depth = snr_level(tokens)
        found = _class_and_redshift(outputs, self._calibration, depth, pdfs=self.pdfs)
        scalars = torch.stack([outputs[q.name] for q in SCALARS])
        if self._novelty is not None:
            raw = raw_vector(outputs["class"], scalars)
            found["novelty"] = self._novelty.score(embedding, raw, depth)
        scalars[..., 1] = self._calibration.scalar_log_scales(scalars[..., 1], depth)
        found |= {q.name: scalar for q, scalar in zip(SCALARS, scalars, strict=True)}
        found["embedding"] = embedding.half()
        return found | {f"head.{head.quantity.name}": head.mlp(embedding.float()) for head in self._heads}

    @torch.no_grad()
    def _predict_bands_batch(self, flux: Tensor, error: Tensor, ebv: Tensor) -> dict[str, Tensor]:
        """Predictions of `predict_bands` for a batch, all on the device."""
        flux, error = flux / self._zero_points, error / self._zero_points
        mean, log_scale, brightness = leave_one_out(self.network, flux, error, ebv)
        depth = snr_level(tokens_of(flux, error, ebv))
        half_width = STUDENT_T3_HALF_WIDTH * torch.exp(log_scale + self._calibration.band_log_factors(depth))
        low, predicted, high = (
            expand(mean + step, ebv, brightness) for step in (-half_width, torch.zeros_like(mean), half_width)
        )
        predicted_error = 0.5 * (high - low)
        valid = valid_bands(flux, error) & torch.isfinite(predicted)
        floored = torch.maximum(error, CALIBRATION_FLOOR * flux.abs())
        sigma = torch.where(
            valid, (flux - predicted) / torch.sqrt(floored**2 + predicted_error**2), torch.nan
        )
        worst = sigma.abs().nan_to_num(-1.0).argmax(dim=1, keepdim=True)
        count = valid.sum(dim=1)
        return {
            "band_flux": predicted * self._zero_points,
            "band_flux_err": predicted_error * self._zero_points,
            "band_sigma": sigma,
            "chi2_bands": torch.where(count > 0, sigma.square().nansum(dim=1), torch.nan),
            "n_chi2_bands": count.to(torch.int16),
            "worst_band": torch.where(count > 0, worst[:, 0], -1).to(torch.int16),
            "worst_band_sigma": sigma.gather(1, worst)[:, 0],
        }

    def _catalogue(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The predictions, with quantities in their units."""
        catalogue = dict(found)
        for quantity in SCALARS:
            mean, log_scale = found[quantity.name].astype(np.float64).T
            half_width = STUDENT_T3_HALF_WIDTH * np.exp(log_scale)
            interval = quantity.restore(mean + half_width) - quantity.restore(mean - half_width)
            catalogue[quantity.name] = quantity.restore(mean).astype(np.float32)
            catalogue[f"{quantity.name}_err"] = (0.5 * interval).astype(np.float32)
        unknown = np.full(len(found["z"]), np.nan, np.float32)
        catalogue.setdefault("novelty", unknown)
        for quantity in FINE_TUNED:
            catalogue[quantity.name] = catalogue[f"{quantity.name}_err"] = unknown
        for head in self._heads:
            value, half_interval = in_units(head, catalogue.pop(f"head.{head.quantity.name}"))
            name = head.quantity.name if head.quantity.name in _FINE_TUNED else f"head.{head.quantity.name}"
            catalogue[name] = value.astype(np.float32)
            catalogue[f"{name}_err"] = half_interval.astype(np.float32)
        return catalogue


def _class_and_redshift(
    outputs: dict[str, Tensor], calibration: Calibration, depth: Tensor, *, pdfs: bool
) -> dict[str, Tensor]:
    """Class probabilities, and what follows from the two redshift PDFs; the PDFs (N, B) where asked for."""
    probability = F.softmax(calibration.class_logits(outputs["class"], depth), dim=-1)
    code = probability.argmax(dim=-1)
    found = {"class_code": code.to(torch.int8)}
    found |= {f"p_{name.lower()}": probability[:, i] for i, name in enumerate(CLASSES)}
    pdf = calibration.redshift_pdfs(torch.stack([outputs[name] for name in REDSHIFTS]), depth)
    summaries = [summarise(p) for p in pdf]
    for name, summary in zip(REDSHIFTS, summaries, strict=True):
        found |= {name: summary.z.float(), f"{name}_err": summary.error.float()}

    is_qso, is_star = code == CLASSES.index("QSO"), code == CLASSES.index("STAR")
    chosen = _choose(is_qso, is_star, *summaries)
    found |= {name: values.float() for name, values in chosen.items()}
    if pdfs:
        for name, p, column in zip(REDSHIFTS, most_probable_bins(pdf, PDF_MASS), _CLASS_OF, strict=True):
            possible = probability[:, column, None].double() >= MIN_CLASS_PROBABILITY
            found[f"{name}_pdf"] = torch.where(possible, p, 0.0).half()
    return found


def _pack_pdfs(predictions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Predictions with the bins of redshift PDFs that are not zero in the place of all bins."""
    packed = dict(predictions)
    for name in REDSHIFTS:
        if f"{name}_pdf" in predictions:
            pdf = predictions[f"{name}_pdf"]
            place = np.flatnonzero(pdf)
            packed[f"{name}_pdf"] = pdf.reshape(-1)[place]
            packed[f"{name}_pdf_bin"] = (place % pdf.shape[1]).astype(np.int16)
            packed[f"{name}_pdf_n"] = np.count_nonzero(pdf, axis=1).astype(np.int32)
    return packed


def _choose(
    is_qso: Tensor, is_star: Tensor, galaxy: RedshiftSummary, quasar: RedshiftSummary
) -> dict[str, Tensor]:
    """The redshift columns of the most probable class; NaN (mass: 0) for stars."""
    columns = {
        "z": (galaxy.z, quasar.z),
        "z_err": (galaxy.error, quasar.error),
        "z_odds": (galaxy.odds, quasar.odds),
    }
    for i, name in enumerate(QUANTILE_NAMES):
        columns[name] = (galaxy.quantiles[:, i], quasar.quantiles[:, i])
    columns["z_mode2"] = (galaxy.mode2, quasar.mode2)
    chosen = {
        name: torch.where(is_qso, q, g).masked_fill(is_star, torch.nan) for name, (g, q) in columns.items()
    }
    chosen["z_mode2_p"] = torch.where(is_qso, quasar.mode2_p, galaxy.mode2_p).masked_fill(is_star, 0.0)
    return chosen
