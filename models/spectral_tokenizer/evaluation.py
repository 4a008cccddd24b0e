"""How good a tokenizer's answers and embeddings are."""

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

Answers = dict[str, np.ndarray]

_STAR = CLASSES.index("STAR")


def quality(answers: Answers, class_code: np.ndarray, labels: dict[str, np.ndarray]) -> dict[str, float]:
    """Measures of the answers to spectra whose class, and as far as known redshift and parameters, are known.

    Parameters
    ----------
    answers : dict
        As from `ojala.models.spectral_tokenizer.predictor.SpectralTokenizerPredictor.predict`, N rows.
    class_code : ndarray of int, shape (N,)
        True class, index into `CLASSES`.
    labels : dict of str to ndarray, shape (N,)
        ``z`` and the names of `STELLAR`; what is missing, or NaN, is not judged.

    Returns
    -------
    dict of str to float
        * ``class_mean``, the mean over the classes present of the share that is recognised, as published;
          ``class_<name>``, that share, and ``n_<name>``; no answer counts as wrong.
        * For galaxies and quasars that were not taken for stars, ``z_<name>_nmad``, ``_bias``,
          ``_outliers_03`` and ``_outliers_15`` (shares beyond 0.03 and 0.15 in dz / (1 + z)), ``_r2``,
          ``_within`` (truths within ``z_err``).
        * For true stars with p_star of at least 0.01, ``<parameter>_mad`` (median absolute deviation from the
          median, as published), ``_nmad`` (1.4826 times it), ``_bias``, ``_std``, ``_r2``, ``_within``.
    """
    code = codes(answers["class"])
    shares = class_measures(confusion(code, class_code))["completeness"]
    counts = np.bincount(class_code[class_code >= 0], minlength=len(CLASSES))
    found = {"class_mean": float(np.mean(shares[counts > 0]))}
    for index in np.flatnonzero(counts):
        name = CLASSES[index].lower()
        found |= {f"class_{name}": float(shares[index]), f"n_{name}": float(counts[index])}
        if index != _STAR and "z" in labels:
            rows = class_code == index
            found |= _redshifts(f"z_{name}", answers["z"][rows], answers["z_err"][rows], labels["z"][rows])
    stars = class_code == _STAR
    for quantity in STELLAR:
        if quantity.name in labels:
            columns = [answers[quantity.name], answers[f"{quantity.name}_err"], labels[quantity.name]]
            found |= _parameters(quantity.name, *(column[stars].astype(np.float64) for column in columns))
    return found


def _redshifts(name: str, z: np.ndarray, error: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    measures = redshift_metrics(z, truth)
    known = np.isfinite(z) & np.isfinite(truth)
    if not known.any():
        return {}
    wanted = {"nmad": "sigma_nmad", "bias": "bias", "outliers_03": "outliers_03"}
    wanted |= {"outliers_15": "outliers_15", "r2": "r2"}
    found = {f"{name}_{ours}": measures[theirs] for ours, theirs in wanted.items()}
    return found | {f"{name}_within": float(within(z[known], error[known], truth[known]))}


def _parameters(name: str, value: np.ndarray, error: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    measures = scatter_metrics(value, truth)
    known = np.isfinite(value) & np.isfinite(truth)
    if not known.any():
        return {}
    found = {f"{name}_{measure}": measures[measure] for measure in ("nmad", "bias", "std", "r2")}
    inside = float(within(value[known], error[known], truth[known]))
    return found | {
        f"{name}_mad": measures["nmad"] / NMAD,
        f"{name}_within": inside,
        f"{name}_n": measures["n"],
    }


def codes(words: np.ndarray) -> np.ndarray:
    """Classes as text -> index into `CLASSES`, -1 for any other word."""
    found = np.full(len(words), -1)
    for index, name in enumerate(CLASSES):
        found[words == name] = index
    return found


def retrieval(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """How well an object is found again by its embedding from another instrument.

    Each instrument's mean embedding is subtracted, and distance is the cosine's.

    Parameters
    ----------
    one, other : ndarray, shape (N, d)
        Embeddings of the same N objects; rows that are not finite in both are left out.

    Returns
    -------
    dict of str to float
        ``median_rank`` of the right one among all (1 is best), ``top_1``, ``top_10``, and ``n``; by chance
        the median rank is half of n.
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


def between(spectra: Spectra, low: float, high: float) -> Spectra:
    """The spectra with what lies outside of a range of wavelengths [Angstrom] cut away."""
    return Spectra.of(
        [(w[inside], f[inside], i[inside]) for w, f, i in spectra for inside in [(w >= low) & (w < high)]]
    )


def likeness(spectra: Spectra, made: list[np.ndarray], low: float, high: float) -> dict[str, float]:
    """How well reconstructions meet spectra within a range of wavelengths.

    Returns
    -------
    dict of str to float
        ``chi2``: median over the spectra of the mean squared residual over its variance. ``residual``: median
        of the median modulus of the residual over the median flux.
    """
    chi2, residual = [], []
    for (wavelength, flux, ivar), got in zip(spectra, made, strict=True):
        inside = (wavelength >= low) & (wavelength < high) & (ivar > 0.0)
        difference = got[inside] - flux[inside]
        chi2.append(np.mean(difference**2 * ivar[inside]))
        residual.append(np.median(np.abs(difference)) / np.median(np.abs(flux[inside])))
    return {"chi2": float(np.median(chi2)), "residual": float(np.median(residual))}
