"""Predictor of SpecPT: redshifts and reconstructions of spectra."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.specpt import (
    RECONSTRUCTED_FIRST,
    RECONSTRUCTED_SIZE,
    RECONSTRUCTED_STEP,
    SpecPTFlag,
)
from ojala.models.data import Spectra
from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, summarise
from ojala.models.serving.precision import Precision
from ojala.models.serving.predictor import BasePredictor
from ojala.models.specpt.checkpoint import FORMAT, SpecPTInfo
from ojala.models.specpt.losses import LABEL_WIDTH, nmad_loss, point_estimate
from ojala.models.specpt.network import SpecPT, input_channels, standardise
from ojala.models.specpt.wavelength_grid import Grid, rebin

FEW_PIXELS = 1.0 / 3.0
LOW_SNR = 0.3
MULTIMODAL = 0.1
UNCERTAIN = 0.5
POOR_CHI2, MODEL_ERROR = 2.5, 0.05
OUTSIDE = 0.1
MIN_P_GALAXY = 0.5
"""Thresholds of the flags; see `ojala.catalogs_schema.specpt.FLAG_MEANINGS`."""

LABEL_SPREAD = math.hypot(LABEL_WIDTH, 12.0**-0.5) * LOG1PZ_STEP
"""Standard deviation in ln(1 + z) of the PDF of an exact redshift: width of labels and of a bin."""

MIN_ERROR = 1e-4
"""Smallest error of a redshift, over (1 + z): 30 km/s."""

STORED_GRID = Grid("stored", RECONSTRUCTED_FIRST, RECONSTRUCTED_STEP, RECONSTRUCTED_SIZE, logarithmic=True)
"""Grid of the stored reconstructions."""

_PREDICTED = ("z", "z_err", "z_odds", "z_mode2", "z_mode2_p", "reconstruction_chi2", "reconstruction_nmad")


class SpecPTPredictor(BasePredictor):
    """Trained SpecPT for inference.

    Attributes
    ----------
    grid : str
        Wavelength grid of the network, a key of `ojala.models.specpt.wavelength_grid.GRIDS`.
    """

    FORMAT = FORMAT
    WEIGHTS = "specpt-base.safetensors"

    def __init__(
        self,
        model: SpecPT,
        info: SpecPTInfo,
        *,
        device: str,
        precision: Precision,
        batch_size: int,
    ) -> None:
        super().__init__(model, info, device=device, precision=precision, batch_size=batch_size)
        self._model = model
        self._head = info.config.redshift[0]
        self._galaxies = info.galaxies
        self.grid = info.config.grid

    def predict(self, spectra: Spectra) -> dict[str, np.ndarray]:
        """Predict N spectra.

        Parameters
        ----------
        spectra : Spectra
            Spectra of any instrument; they are rebinned to the network's grid, weighted by inverse variance.

        Returns
        -------
        dict of str to ndarray, N rows each
            By the names of `ojala.catalogs_schema.specpt.SPECPT`, without their prefix ``specpt_``, and of
            `SPECPT_SPECTRA` besides the key columns: ``n_pixels`` and ``flags`` int32, ``reconstruction``
            float16 (N, 1008), all else float32.
            NaN where there is no prediction: in all but ``snr``, ``n_pixels`` and ``flags`` of a spectrum
            without a positive median of usable pixels.
        """
        n, size = len(spectra), self.batch_size
        names = (*_PREDICTED, "flux_median", "p_galaxy")
        columns = {name: np.full(n, np.nan, np.float32) for name in names}
        columns["reconstruction"] = np.full((n, RECONSTRUCTED_SIZE), np.nan, np.float16)
        covered = np.zeros(n, np.float32)
        for begin in range(0, n, size):
            rows = slice(begin, min(begin + size, n))
            flux, ivar = rebin(spectra.rows(rows.start, rows.stop), self._model.grid)
            covered[rows] = (ivar > 0.0).mean(axis=1)
            flux, ivar, median = standardise(flux, ivar)
            known = np.isfinite(median)
            columns["flux_median"][rows] = median
            if not known.any():
                continue
            for name, values in self._predict_batch(flux, ivar).items():
                columns[name][rows] = np.where(_like(known, values), values, np.nan)
        columns |= _pixel_statistics(spectra, self._model.grid.edges[[0, -1]])
        columns["flags"] = _flags(columns, covered, columns.pop("outside"), columns.pop("p_galaxy"))
        return columns

    @torch.inference_mode()
    def _predict_batch(self, flux: np.ndarray, ivar: np.ndarray) -> dict[str, np.ndarray]:
        """Predict at most one batch of rows, padded with rows without usable pixels."""
        n, missing = len(flux), self.batch_size - len(flux)
        x, weight = (
            torch.from_numpy(np.pad(a, ((0, missing), (0, 0)))).to(self.device) for a in (flux, ivar)
        )
        with self._autocast():
            local, tokens = self._model.encode(input_channels(x, weight))
            redshift = self._model.redshift(local, tokens)[self._head]
            reconstructed = self._model.reconstruct(tokens, point_estimate(redshift))
        used = weight > 0.0
        chi2 = ((x - reconstructed) ** 2 * weight).sum(dim=1) / used.sum(dim=1).clamp_min(1)
        columns = _redshifts(redshift) | {
            "reconstruction_chi2": chi2,
            "reconstruction_nmad": nmad_loss(x, weight, reconstructed),
        }
        if self._galaxies is not None:
            columns["p_galaxy"] = self._galaxies.probability(tokens)
        catalogue = {name: tensor[:n].cpu().numpy() for name, tensor in columns.items()}
        return catalogue | {"reconstruction": self._coarse(reconstructed[:n].cpu().numpy())}

    def _coarse(self, reconstructed: np.ndarray) -> np.ndarray:
        """Rebin reconstructions (N, P) to `STORED_GRID`; float16 (N, 1008)."""
        n, wavelength = len(reconstructed), self._model.grid.wavelength.astype(np.float32)
        offsets = np.arange(n + 1, dtype=np.int64) * len(wavelength)
        flux = reconstructed.ravel()
        spectra = Spectra(offsets, np.tile(wavelength, n), flux, np.ones_like(flux))
        coarse, weight = rebin(spectra, STORED_GRID)
        return np.where(weight > 0.0, np.clip(coarse, -6e4, 6e4), np.nan).astype(np.float16)


def _redshifts(output: Tensor) -> dict[str, Tensor]:
    """Redshift columns from logits of a PDF (N, B), or from redshifts (N,) without errors."""
    if output.ndim == 1:
        missing = torch.full_like(output, torch.nan)
        return {name: output if name == "z" else missing for name in _PREDICTED[:5]}
    summary = summarise(output.softmax(dim=1))
    stretch = 1.0 + summary.z
    spread = (summary.error / stretch).square() - LABEL_SPREAD**2
    return {
        "z": summary.z.float(),
        "z_err": (spread.clamp_min(MIN_ERROR**2).sqrt() * stretch).float(),
        "z_odds": summary.odds.float(),
        "z_mode2": summary.mode2.float(),
        "z_mode2_p": summary.mode2_p.float(),
    }


def _like(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mask of rows (N,) in a shape that broadcasts with values (N,) or (N, P)."""
    return known if values.ndim == 1 else known[:, None]


def _pixel_statistics(spectra: Spectra, ends: np.ndarray) -> dict[str, np.ndarray]:
    """Number of usable pixels, their median signal-to-noise ratio, and their fraction outside of ``ends``."""
    n = len(spectra)
    count, snr, outside = np.zeros(n, np.int32), np.full(n, np.nan, np.float32), np.zeros(n, np.float32)
    for row, (wavelength, flux, ivar) in enumerate(spectra):
        usable = (ivar > 0.0) & np.isfinite(ivar) & np.isfinite(flux)
        count[row] = usable.sum()
        if count[row]:
            with np.errstate(over="ignore"):
                snr[row] = np.median(flux[usable] * np.sqrt(ivar[usable]))
            inside = (wavelength[usable] > ends[0]) & (wavelength[usable] < ends[1])
            outside[row] = 1.0 - inside.mean()
    return {"n_pixels": count, "snr": snr, "outside": outside}


def _flags(
    columns: dict[str, np.ndarray], covered: np.ndarray, outside: np.ndarray, p_galaxy: np.ndarray
) -> np.ndarray:
    """Flags of the rows; int32, shape (N,)."""
    readable = covered > 0.0
    positive = np.isfinite(columns["flux_median"])
    with np.errstate(invalid="ignore"):
        conditions = {
            SpecPTFlag.NO_PIXELS: ~readable,
            SpecPTFlag.FEW_PIXELS: covered < FEW_PIXELS,
            SpecPTFlag.LOW_SNR: ~(columns["snr"] >= LOW_SNR),
            SpecPTFlag.MEDIAN_NOT_POSITIVE: readable & ~positive,
            SpecPTFlag.Z_MULTIMODAL: columns["z_mode2_p"] >= MULTIMODAL,
            SpecPTFlag.Z_UNCERTAIN: columns["z_odds"] < UNCERTAIN,
            SpecPTFlag.POOR_RECONSTRUCTION: columns["reconstruction_chi2"]
            > POOR_CHI2 * (1.0 + (MODEL_ERROR * columns["snr"]) ** 2),
            SpecPTFlag.OUT_OF_GRID: outside > OUTSIDE,
            SpecPTFlag.NOT_PREDICTED: positive & ~np.isfinite(columns["z"]),
            SpecPTFlag.NO_GALAXY: p_galaxy < MIN_P_GALAXY,
        }
    flags = np.zeros(len(covered), np.int32)
    for flag, where in conditions.items():
        flags[where] |= int(flag)
    return flags
