"""From spectra to a catalogue's numbers with a trained tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.ojala import CLASSES, MIN_CLASS_PROBABILITY
from ojala.catalogs_schema.spectral_tokenizer import SpectrumFlag
from ojala.models.data import Spectra
from ojala.models.layers.distributions import STUDENT_T3_HALF_WIDTH
from ojala.models.layers.redshift_pdf import summarise
from ojala.models.serving.precision import Precision
from ojala.models.serving.predictor import BasePredictor
from ojala.models.spectral_tokenizer.checkpoint import FORMAT, TokenizerInfo
from ojala.models.spectral_tokenizer.heads import STELLAR, HeadAnswers, TokenizerWithHeads
from ojala.models.spectral_tokenizer.patches import (
    PatchedSpectrum,
    Patches,
    in_batches,
    patchify,
    wavelength_code,
)

FEW_PIXELS = 500
UNCERTAIN_CLASS = 0.7
UNCERTAIN_Z = 0.5
POOR_CHI2, POOR_RESIDUAL = 9.0, 0.1
"""Thresholds of the flags; a spectrum counts as not reconstructed beyond both of the last two."""

_NUMBERS = (
    *("p_galaxy", "p_star", "p_qso", "z", "z_err", "z_odds"),
    *(f"{q.name}{suffix}" for q in STELLAR for suffix in ("", "_err")),
    *("reconstruction_chi2", "reconstruction_residual"),
)


class SpectralTokenizerPredictor(BasePredictor):
    """A trained tokenizer with its heads, as the pipeline uses it.

    Spectra are batched with others of about as many patches, in batches of a fixed size: a row's answer does
    not depend on what else is asked.

    Attributes
    ----------
    batch_size : int
        Rows per forward pass, of spectra of up to `ojala.models.spectral_tokenizer.patches.USUAL_SLOTS`
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

    def predict(self, spectra: Spectra) -> dict[str, np.ndarray]:
        """Answers for N spectra.

        Parameters
        ----------
        spectra : Spectra
            Of any instruments, each on its own wavelengths.

        Returns
        -------
        dict of str to ndarray, N rows each
            By the names of `ojala.catalogs_schema.spectral_tokenizer.SPECTRAL_TOKENIZER` besides the key
            columns: ``class`` as text, ``n_pixels`` and ``flags`` int32, ``embedding`` float16 (N, width),
            all else float32. Errors are scaled where the weights hold scales. NaN (NONE in ``class``) where
            there is no answer: everywhere for a spectrum of which no patch is readable, the redshift of
            stars, stellar parameters where ``p_star`` is below 0.01.
        """
        cuts = patchify(spectra, self._config.patch, self._config.width)
        found = {name: np.full(len(cuts), np.nan, np.float32) for name in _NUMBERS}
        found["embedding"] = np.full((len(cuts), self._config.width), np.nan, np.float16)
        for rows, batch in in_batches(cuts, self.batch_size, self.device):
            for name, values in self._answers([cuts[row] for row in rows], batch).items():
                found[name][rows] = values
        found["n_pixels"] = np.array([one.n_pixels for one in cuts], np.int32)
        found["class"] = _settle(found)
        if self._scales is not None:
            self._scales.apply(found)
        found["flags"] = _flags(cuts, found)
        return found

    def reconstruct(self, spectra: Spectra, wavelengths: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The flux of each spectrum on any wavelengths, its own or others, as the network has it.

        Parameters
        ----------
        spectra : Spectra
            N spectra.
        wavelengths : sequence of N ndarray
            Where the flux of each is wanted [Angstrom], increasing.

        Returns
        -------
        list of N ndarray of float32
            In the unit of the spectrum's flux; NaN for a spectrum of which no patch is readable.
        """
        config = self._config
        cuts = patchify(spectra, config.patch, config.width)
        made = [np.full(len(wavelength), np.nan, np.float32) for wavelength in wavelengths]
        for rows, batch in in_batches(cuts, self.batch_size, self.device):
            codes = [wavelength_code(wavelengths[row], config.patch, config.width) for row in rows]
            asked = np.zeros((len(batch.valid), max(map(len, codes)), config.width), np.float32)
            for row, code in enumerate(codes):
                asked[row, : len(code)] = code
            with torch.inference_mode(), self._arithmetic():
                encoded = self._model.encode(batch)
                on = torch.from_numpy(asked).to(self.device)
                flux = self._model.reconstruct(encoded, batch.valid, on).flatten(1).cpu().numpy()
            for at, row in enumerate(rows):
                made[row] = flux[at, : len(made[row])] * np.float32(cuts[row].brightness)
        return made

    @torch.inference_mode()
    def _answers(self, cuts: list[PatchedSpectrum], batch: Patches) -> dict[str, np.ndarray]:
        """Answers for the spectra of one batch, whose first rows they are."""
        with self._arithmetic():
            encoded = self._model.encode(batch)
            answers = self._heads(encoded, batch.valid)
            flux = self._model.reconstruct(encoded, batch.valid, batch.code)
            embedding = self._model.embed(encoded, batch.valid)
        found = _read_heads(answers) | {"embedding": embedding.half()}
        n = len(cuts)
        numbers = {name: values[:n].cpu().numpy() for name, values in found.items()}
        residuals = [_residuals(one, own) for one, own in zip(cuts, flux[:n].cpu().numpy(), strict=True)]
        names = ("reconstruction_chi2", "reconstruction_residual")
        return numbers | dict(zip(names, np.array(residuals, np.float32).T, strict=True))


def _read_heads(answers: HeadAnswers) -> dict[str, Tensor]:
    """Probabilities, redshift and stellar parameters of each row, whatever its class."""
    probability = answers.object_class.softmax(dim=-1)
    found = {f"p_{name.lower()}": probability[:, i] for i, name in enumerate(CLASSES)}
    redshift = summarise(answers.redshift.softmax(dim=-1))
    found |= {"z": redshift.z, "z_err": redshift.error, "z_odds": redshift.odds}
    for index, quantity in enumerate(STELLAR):
        mean, log_scale = answers.stellar[:, index].double().cpu().numpy().T
        half_width = STUDENT_T3_HALF_WIDTH * np.exp(log_scale)
        interval = quantity.restore(mean + half_width) - quantity.restore(mean - half_width)
        found[quantity.name] = torch.from_numpy(quantity.restore(mean))
        found[f"{quantity.name}_err"] = torch.from_numpy(0.5 * interval)
    return found


def _residuals(one: PatchedSpectrum, flux: np.ndarray) -> tuple[float, float]:
    """Reduced chi-square and median modulus of the residuals at the usable pixels of readable patches."""
    seen = one.kept(one.valid)
    usable = np.isfinite(seen.error)
    residual = seen.flux[usable] - flux[: len(seen.flux)][usable]
    with np.errstate(over="ignore"):
        chi2 = np.mean(np.square(residual / seen.error[usable], dtype=np.float64))
    return float(chi2), float(np.median(np.abs(residual)))


def _settle(found: dict[str, np.ndarray]) -> np.ndarray:
    """The class as text; what has no meaning for it, or is not finite, is taken away in place."""
    probability = np.stack([found[f"p_{name.lower()}"] for name in CLASSES], axis=1)
    predicted = np.isfinite(probability).all(axis=1) & np.isfinite(found["embedding"]).all(axis=1)
    for name in (*_NUMBERS, "embedding"):
        found[name][~predicted] = np.nan
    code = np.where(predicted, probability.argmax(axis=1), len(CLASSES))
    with np.errstate(invalid="ignore"):
        no_star = ~(found["p_star"] >= MIN_CLASS_PROBABILITY)
    for name in ("z", "z_err", "z_odds"):
        found[name][code == CLASSES.index("STAR")] = np.nan
    for quantity in STELLAR:
        found[quantity.name][no_star] = found[f"{quantity.name}_err"][no_star] = np.nan
    return np.array([*CLASSES, NONE])[code]


def _flags(cuts: list[PatchedSpectrum], found: dict[str, np.ndarray]) -> np.ndarray:
    """What is to be known of each row."""
    readable = np.array([bool(one.valid.any()) for one in cuts], bool)
    signal = np.array([one.signal_to_noise for one in cuts])
    positive = np.array([one.positive for one in cuts], bool)
    likeliest = np.max([found[f"p_{name.lower()}"] for name in CLASSES], axis=0)
    with np.errstate(invalid="ignore"):
        remarks = {
            SpectrumFlag.NO_PIXELS: ~readable,
            SpectrumFlag.FEW_PIXELS: found["n_pixels"] < FEW_PIXELS,
            SpectrumFlag.LOW_SIGNAL: signal < 1.0,
            SpectrumFlag.MEDIAN_NOT_POSITIVE: readable & ~positive,
            SpectrumFlag.CLASS_UNCERTAIN: likeliest < UNCERTAIN_CLASS,
            SpectrumFlag.Z_UNCERTAIN: found["z_odds"] < UNCERTAIN_Z,
            SpectrumFlag.NOT_RECONSTRUCTED: (found["reconstruction_chi2"] > POOR_CHI2)
            & (found["reconstruction_residual"] > POOR_RESIDUAL),
            SpectrumFlag.NOT_PREDICTED: readable & ~np.isfinite(likeliest),
        }
    flags = np.zeros(len(cuts), np.int32)
    for flag, rows in remarks.items():
        flags |= np.where(rows, np.int32(flag), np.int32(0))
    return flags
