"""Measures of the predictions, embeddings and reconstructions of a tokenizer."""

from __future__ import annotations

import numpy as np

from ojala.models.data import Spectra
from ojala.models.evaluation.metrics import (
    NMAD,
    class_measures,
    confusion,
    redshift_metrics,
    scatter_metrics,
    within,
)
from ojala.models.quantities import CLASSES
from ojala.models.spectral_tokenizer.heads import STELLAR

Predictions = dict[str, np.ndarray]

_STAR = CLASSES.index("STAR")


def quality(
    predictions: Predictions, class_code: np.ndarray, labels: dict[str, np.ndarray]
) -> dict[str, float]:
    """Compute measures of predictions for labelled spectra.

    Parameters
    ----------
    predictions : dict
        Of `ojala.models.spectral_tokenizer.predictor.SpectralTokenizerPredictor.predict`, N rows.
    class_code : ndarray of int, shape (N,)
        True class, index into `CLASSES`.
    labels : dict of str to ndarray, shape (N,)
        ``z`` and the names of `STELLAR`; missing and NaN labels are left out.

    Returns
    -------
    dict of str to float
        * ``class_mean``, the mean completeness over the classes present, as published; ``class_<name>``, the
          completeness, and ``n_<name>``; a missing prediction counts as wrong.
        * For galaxies and quasars that were not classified as stars, ``z_<name>_nmad``, ``_bias``,
          ``_outliers_03`` and ``_outliers_15`` (fractions beyond 0.03 and 0.15 in dz / (1 + z)), ``_r2``,
          ``_within`` (fraction of truths within ``z_err``).
        * For true stars with p_star of at least 0.01, ``<parameter>_mad`` (median absolute deviation from the
          median, as published), ``_nmad`` (1.4826 times it), ``_bias``, ``_std``, ``_r2``, ``_within``.
    """
    code = class_codes(predictions["class"])
    completeness = class_measures(confusion(code, class_code))["completeness"]
    counts = np.bincount(class_code[class_code >= 0], minlength=len(CLASSES))
    measures = {"class_mean": float(np.mean(completeness[counts > 0]))}
    for index in np.flatnonzero(counts):
        name = CLASSES[index].lower()
        measures |= {f"class_{name}": float(completeness[index]), f"n_{name}": float(counts[index])}
        if index != _STAR and "z" in labels:
            rows = class_code == index
            measures |= _redshifts(
                f"z_{name}", predictions["z"][rows], predictions["z_err"][rows], labels["z"][rows]
            )
    stars = class_code == _STAR
    for quantity in STELLAR:
        if quantity.name in labels:
            columns = [predictions[quantity.name], predictions[f"{quantity.name}_err"], labels[quantity.name]]
            measures |= _parameters(quantity.name, *(column[stars].astype(np.float64) for column in columns))
    return measures


def _redshifts(name: str, z: np.ndarray, error: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    measures = redshift_metrics(z, truth)
    known = np.isfinite(z) & np.isfinite(truth)
    if not known.any():
        return {}
    names = {"nmad": "sigma_nmad"} | {own: own for own in ("bias", "outliers_03", "outliers_15", "r2")}
    chosen = {f"{name}_{own}": measures[measure] for own, measure in names.items()}
    return chosen | {f"{name}_within": float(within(z[known], error[known], truth[known]))}


def _parameters(name: str, value: np.ndarray, error: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    measures = scatter_metrics(value, truth)
    known = np.isfinite(value) & np.isfinite(truth)
    if not known.any():
        return {}
    chosen = {f"{name}_{measure}": measures[measure] for measure in ("nmad", "bias", "std", "r2")}
    return chosen | {
        f"{name}_mad": measures["nmad"] / NMAD,
        f"{name}_within": float(within(value[known], error[known], truth[known])),
        f"{name}_n": measures["n"],
    }


def class_codes(names: np.ndarray) -> np.ndarray:
    """Index into `CLASSES` of names of classes, -1 for any other name."""
    codes = np.full(len(names), -1)
    for index, name in enumerate(CLASSES):
        codes[names == name] = index
    return codes


def retrieval(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Retrieve objects by their embeddings from another instrument.

    The similarity is the cosine after subtraction of the mean embedding of each instrument.

    Parameters
    ----------
    one, other : ndarray, shape (N, d)
        Embeddings of the same N objects; rows that are not finite in both are left out.

    Returns
    -------
    dict of str to float
        ``median_rank`` of the same object among all (1 is best, n / 2 is random), ``top_1``, ``top_10``, and
        ``n``.
    """
    both = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    similarity = _directions(one[both]) @ _directions(other[both]).T
    rank = 1 + (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    return {
        "n": float(both.sum()),
        "median_rank": float(np.median(rank)),
        "top_1": float(np.mean(rank == 1)),
        "top_10": float(np.mean(rank <= 10)),
    }


def _directions(embedding: np.ndarray) -> np.ndarray:
    centred = embedding.astype(np.float64)
    centred -= centred.mean(axis=0)
    return np.asarray(centred / np.linalg.norm(centred, axis=1, keepdims=True))


def crop(spectra: Spectra, low: float, high: float) -> Spectra:
    """Crop spectra to a range of wavelengths [Angstrom]."""
    return Spectra.from_arrays(
        [(w[inside], f[inside], i[inside]) for w, f, i in spectra for inside in [(w >= low) & (w < high)]]
    )


def reconstruction_quality(
    spectra: Spectra, reconstructed: list[np.ndarray], low: float, high: float
) -> dict[str, float]:
    """Compare reconstructions with spectra within a range of wavelengths.

    Returns
    -------
    dict of str to float
        ``chi2``: median over the spectra of the mean squared residual over its variance. ``residual``: median
        of the median modulus of the residual over the median flux.
    """
    chi2, residual = [], []
    for (wavelength, flux, ivar), own in zip(spectra, reconstructed, strict=True):
        inside = (wavelength >= low) & (wavelength < high) & (ivar > 0.0)
        difference = own[inside] - flux[inside]
        chi2.append(np.mean(difference**2 * ivar[inside]))
        residual.append(np.median(np.abs(difference)) / np.median(np.abs(flux[inside])))
    return {"chi2": float(np.median(chi2)), "residual": float(np.median(residual))}
