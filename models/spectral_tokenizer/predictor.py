"""Predictor of the spectral tokenizer: class, redshift, stellar parameters, embedding, reconstruction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.ojala import CLASSES, MIN_CLASS_PROBABILITY
from ojala.catalogs_schema.spectral_tokenizer import TRAINED_RANGE, SpectrumFlag
from ojala.models.data import Spectra
from ojala.models.layers.redshift_pdf import summarise
from ojala.models.serving.precision import Precision
from ojala.models.serving.predictor import BasePredictor
from ojala.models.spectral_tokenizer.calibration import coarse, features
from ojala.models.spectral_tokenizer.checkpoint import FORMAT, TokenizerInfo
from ojala.models.spectral_tokenizer.heads import STELLAR, HeadOutputs, TokenizerWithHeads, decode_stellar
from ojala.models.spectral_tokenizer.patches import (
    PatchedSpectrum,
    Patches,
    batches_by_length,
    patchify,
    wavelength_code,
)

FEW_PIXELS = 500
UNCERTAIN_CLASS = 0.7
UNCERTAIN_Z = 0.5
POOR_CHI2, POOR_RESIDUAL = 9.0, 0.1
"""Thresholds of the flags; a reconstruction is poor beyond both of the last two."""

_NUMBERS = (
    *("p_galaxy", "p_star", "p_qso", "z", "z_err", "z_odds"),
    *(f"{q.name}{suffix}" for q in STELLAR for suffix in ("", "_err")),
    *("reconstruction_chi2", "reconstruction_residual"),
)


class SpectralTokenizerPredictor(BasePredictor):
    """Trained tokenizer with heads for inference.

    Spectra are batched by number of patches, in batches of a fixed size, so that the predictions of a row do
    not depend on other rows.

    Attributes
    ----------
    batch_size : int
        Rows per forward pass, of spectra of up to `ojala.models.spectral_tokenizer.patches.TYPICAL_SLOTS`
        patches.
    """

    FORMAT = FORMAT
    WEIGHTS = "spectral-tokenizer-base.safetensors"

    def __init__(
        self,
        model: TokenizerWithHeads,
        info: TokenizerInfo,
        *,
        device: str,
        precision: Precision,
        batch_size: int,
    ) -> None:
        super().__init__(model, info, device=device, precision=precision, batch_size=batch_size)
        self._model, self._heads = model.network, model.heads
        self._config, self._scales = info.config, info.error_scales
        calibration = info.stellar_calibration
        self._calibration = None if calibration is None else calibration.to(device)

    def predict(self, spectra: Spectra) -> dict[str, np.ndarray]:
        """Predict N spectra.

        Parameters
        ----------
        spectra : Spectra
            Spectra of any instruments, each on its own wavelengths.

        Returns
        -------
        dict of str to ndarray, N rows each
            By the names of `ojala.catalogs_schema.spectral_tokenizer.SPECTRAL_TOKENIZER` without their prefix
            ``tokenizer_``, besides the key columns: ``class`` as text, ``n_pixels`` and ``flags`` int32,
            ``embedding`` float16 (N, width), all else float32. Errors are calibrated if the weights hold
            factors. NaN (NONE in ``class``) where there is no prediction: in all columns without a readable
            patch, in the redshift of stars, in stellar parameters where ``p_star`` is below 0.01.
        """
        patched = patchify(spectra, self._config.patch, self._config.width)
        columns = {name: np.full(len(patched), np.nan, np.float32) for name in _NUMBERS}
        columns["embedding"] = np.full((len(patched), self._config.width), np.nan, np.float16)
        wide = coarse(spectra)
        for rows, batch in batches_by_length(patched, self.batch_size, self.device):
            for name, values in self._predict_batch(
                [patched[row] for row in rows], batch, wide[rows]
            ).items():
                columns[name][rows] = values
        columns["n_pixels"] = np.array([one.n_pixels for one in patched], np.int32)
        columns["class"] = _classify(columns)
        if self._scales is not None:
            self._scales.apply(columns)
        columns["flags"] = _flags(patched, columns, _untrained(spectra))
        return columns

    def reconstruct(self, spectra: Spectra, wavelengths: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Reconstruct spectra on any wavelengths.

        Parameters
        ----------
        spectra : Spectra
            N spectra.
        wavelengths : sequence of N ndarray
            Wavelengths for each spectrum [Angstrom], increasing.

        Returns
        -------
        list of N ndarray of float32
            In the unit of the spectrum's flux; NaN for a spectrum without a readable patch.
        """
        config = self._config
        patched = patchify(spectra, config.patch, config.width)
        reconstructed = [np.full(len(wavelength), np.nan, np.float32) for wavelength in wavelengths]
        for rows, batch in batches_by_length(patched, self.batch_size, self.device):
            codes = [wavelength_code(wavelengths[row], config.patch, config.width) for row in rows]
            queries = np.zeros((len(batch.valid), max(map(len, codes)), config.width), np.float32)
            for row, code in enumerate(codes):
                queries[row, : len(code)] = code
            with torch.inference_mode(), self._autocast():
                encoded = self._model.encode(batch)
                flux = self._model.reconstruct(
                    encoded, batch.valid, torch.from_numpy(queries).to(self.device)
                )
            for own, row in zip(flux.flatten(1).cpu().numpy(), rows, strict=False):
                reconstructed[row] = own[: len(wavelengths[row])] * np.float32(patched[row].brightness)
        return reconstructed

    @torch.inference_mode()
    def _predict_batch(
        self, spectra: list[PatchedSpectrum], batch: Patches, wide: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Predict the spectra of one batch, which are its first rows."""
        with self._autocast():
            encoded = self._model.encode(batch)
            outputs = self._heads(encoded, batch.valid)
            flux = self._model.reconstruct(encoded, batch.valid, batch.code)
            embedding = self._model.embed(encoded, batch.valid)
        if self._calibration is not None:
            known = torch.zeros(len(embedding), dtype=torch.bool, device=self.device)
            known[: len(wide)] = torch.from_numpy(wide).to(self.device)
            stellar = self._calibration.apply(outputs.stellar, features(outputs, embedding), known)
            outputs = outputs._replace(stellar=stellar)
        columns = _decode_heads(outputs) | {"embedding": embedding.half()}
        n = len(spectra)
        numbers = {name: values[:n].cpu().numpy() for name, values in columns.items()}
        residuals = [_residuals(one, own) for one, own in zip(spectra, flux[:n].cpu().numpy(), strict=True)]
        names = ("reconstruction_chi2", "reconstruction_residual")
        return numbers | dict(zip(names, np.array(residuals, np.float32).T, strict=True))


def _decode_heads(outputs: HeadOutputs) -> dict[str, Tensor]:
    """Decode probabilities, redshift and stellar parameters, for all classes."""
    probability = outputs.object_class.softmax(dim=-1)
    columns = {f"p_{name.lower()}": probability[:, i] for i, name in enumerate(CLASSES)}
    redshift = summarise(outputs.redshift.softmax(dim=-1))
    columns |= {"z": redshift.z, "z_err": redshift.error, "z_odds": redshift.odds}
    stellar = decode_stellar(outputs.stellar)
    return columns | {name: torch.from_numpy(values) for name, values in stellar.items()}


def _residuals(one: PatchedSpectrum, flux: np.ndarray) -> tuple[float, float]:
    """Reduced chi-square and median absolute residual at the usable pixels of readable patches."""
    readable = one.select(one.valid)
    usable = np.isfinite(readable.error)
    residual = readable.flux[usable] - flux[: len(readable.flux)][usable]
    with np.errstate(over="ignore"):
        chi2 = np.mean(np.square(residual / readable.error[usable], dtype=np.float64))
    return float(chi2), float(np.median(np.abs(residual)))


def _classify(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Most probable class as text; sets non-finite and inapplicable predictions to NaN in place."""
    probability = np.stack([columns[f"p_{name.lower()}"] for name in CLASSES], axis=1)
    predicted = np.isfinite(probability).all(axis=1) & np.isfinite(columns["embedding"]).all(axis=1)
    for name in (*_NUMBERS, "embedding"):
        columns[name][~predicted] = np.nan
    code = np.where(predicted, probability.argmax(axis=1), len(CLASSES))
    with np.errstate(invalid="ignore"):
        no_star = ~(columns["p_star"] >= MIN_CLASS_PROBABILITY)
    for name in ("z", "z_err", "z_odds"):
        columns[name][code == CLASSES.index("STAR")] = np.nan
    for quantity in STELLAR:
        columns[quantity.name][no_star] = columns[f"{quantity.name}_err"][no_star] = np.nan
    return np.array([*CLASSES, NONE])[code]


def _untrained(spectra: Spectra) -> np.ndarray:
    """Spectra with usable pixels of which fewer than half are at wavelengths of the training; (N,)."""
    low, high = TRAINED_RANGE
    usable = np.concatenate([[False], (spectra.ivar > 0.0) & np.isfinite(spectra.flux)])
    wavelength = np.concatenate([[0.0], spectra.wavelength])
    inside = usable & (wavelength >= low) & (wavelength <= high)
    n_usable, n_inside = (np.diff(np.cumsum(one)[spectra.offsets]) for one in (usable, inside))
    return np.asarray(2 * n_inside < n_usable)


def _flags(
    spectra: list[PatchedSpectrum], columns: dict[str, np.ndarray], untrained: np.ndarray
) -> np.ndarray:
    """Flags of the rows; int32, shape (N,)."""
    readable = np.array([bool(one.valid.any()) for one in spectra], bool)
    signal = np.array([one.signal_to_noise for one in spectra])
    positive = np.array([one.positive for one in spectra], bool)
    likeliest = np.max([columns[f"p_{name.lower()}"] for name in CLASSES], axis=0)
    with np.errstate(invalid="ignore"):
        conditions = {
            SpectrumFlag.NO_PIXELS: ~readable,
            SpectrumFlag.FEW_PIXELS: columns["n_pixels"] < FEW_PIXELS,
            SpectrumFlag.LOW_SIGNAL: signal < 1.0,
            SpectrumFlag.MEDIAN_NOT_POSITIVE: readable & ~positive,
            SpectrumFlag.CLASS_UNCERTAIN: likeliest < UNCERTAIN_CLASS,
            SpectrumFlag.Z_UNCERTAIN: columns["z_odds"] < UNCERTAIN_Z,
            SpectrumFlag.NOT_RECONSTRUCTED: (columns["reconstruction_chi2"] > POOR_CHI2)
            & (columns["reconstruction_residual"] > POOR_RESIDUAL),
            SpectrumFlag.NOT_PREDICTED: readable & ~np.isfinite(likeliest),
            SpectrumFlag.NOT_TRAINED: untrained,
        }
    flags = np.zeros(len(spectra), np.int32)
    for flag, rows in conditions.items():
        flags |= np.where(rows, np.int32(flag), np.int32(0))
    return flags
