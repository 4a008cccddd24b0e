"""How good a run's answers are, where the truth is known."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from catalogs_schema.bands import REFERENCE_BAND
from catalogs_schema.contract import NONE
from catalogs_schema.flags import names as flag_names
from catalogs_schema.value_added import CLASSES, OJALA
from models.metrics import redshift_metrics, scatter_metrics
from models.quantities import BY_NAME
from pipeline.report.truth import Matched

CATASTROPHIC = 0.15
"""|dz| / (1 + z) beyond which a redshift is a wrong answer."""

ANSWERS: tuple[str, ...] = (*CLASSES, NONE)
"""What can be answered: the columns of the confusion matrix. Its rows are CLASSES."""

MAGNITUDE_EDGES: tuple[float, ...] = (
    -np.inf,
    17.0,
    18.0,
    19.0,
    20.0,
    20.5,
    21.0,
    21.5,
    22.0,
    22.5,
    23.0,
    np.inf,
)
"""Edges of the bins of iSDSS magnitude."""

LISTED = 60
"""Wrong answers that each table on the page shows."""


@dataclass(frozen=True, slots=True)
class RedshiftSample:
    """Redshifts of one kind of object beside the true ones.

    Attributes
    ----------
    name : str
        What the objects are.
    column : str
        Column of the catalogue that is judged.
    z, error, z_true : ndarray, shape (N,)
        Answer (NaN where none was given), its error, and truth; all N objects have a true redshift.
    i_mag : ndarray, shape (N,)
        Magnitude in iSDSS, NaN where not measured.
    class_right : ndarray of bool, shape (N,)
        Whether the most probable class is the true one.
    """

    name: str
    column: str
    z: np.ndarray
    error: np.ndarray
    z_true: np.ndarray
    i_mag: np.ndarray
    class_right: np.ndarray

    @property
    def dz(self) -> np.ndarray:
        """(z - z_true) / (1 + z_true)."""
        return np.asarray((self.z - self.z_true) / (1.0 + self.z_true))

    def scores(self, chosen: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Measures of dz, how many had no answer, and the part of the true values within one error."""
        z, z_true, error = self.z[chosen], self.z_true[chosen], self.error[chosen]
        answered = np.isfinite(z)
        measures = redshift_metrics(z, z_true)
        within = np.abs(z - z_true)[answered] <= error[answered]
        dz = np.abs((z - z_true) / (1.0 + z_true))[answered]
        return measures | {
            "unanswered": float((~answered).sum()),
            "outliers_15_n": float((dz > 0.15).sum()),
            "outliers_03_n": float((dz > 0.03).sum()),
            "within_error": float(within.mean()) if len(within) else np.nan,
        }


@dataclass(frozen=True, slots=True)
class LabelSample:
    """One scalar quantity beside its true values.

    Attributes
    ----------
    name, unit : str
        Column and its unit.
    value, error, truth : ndarray, shape (N,)
        Finite answers, their errors, true values.
    unanswered : int
        Objects whose true value is known and which have no answer.
    """

    name: str
    unit: str
    value: np.ndarray
    error: np.ndarray
    truth: np.ndarray
    unanswered: int

    @property
    def scores(self) -> dict[str, float]:
        """Scatter of value - truth, and the part of the true values within one error."""
        within = np.abs(self.value - self.truth) <= self.error
        return scatter_metrics(self.value, self.truth) | {
            "unanswered": float(self.unanswered),
            "within_error": float(within.mean()) if len(within) else np.nan,
        }


def confusion_matrix(true: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """Counts (true class, answer), shape (3, 4): an object without an answer is counted as such.

    Parameters
    ----------
    true, answered : ndarray of str, shape (N,)
        Classes; objects whose true class is NONE are left out.
    """
    counts = [[np.sum((true == t) & (answered == a)) for a in ANSWERS] for t in CLASSES]
    return np.array(counts, dtype=np.int64)


def class_scores(counts: np.ndarray) -> dict[str, Any]:
    """Completeness, purity and F1 of each class, and their mean weighted by true counts.

    Parameters
    ----------
    counts : ndarray of int64, shape (3, 4)
        A confusion matrix; no answer counts against completeness.

    Returns
    -------
    dict
        ``n``, ``accuracy``, ``f1_weighted`` and ``classes``; NaN where there is nothing to divide by.
    """
    right = counts.diagonal().astype(np.float64)
    support, given = counts.sum(axis=1), counts[:, : len(CLASSES)].sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        completeness, purity, f1 = right / support, right / given, 2.0 * right / (support + given)
        weighted = np.where(support > 0, f1 * support, 0.0).sum() / np.float64(support.sum())
        accuracy = right.sum() / np.float64(support.sum())
    return {
        "n": int(counts.sum()),
        "accuracy": float(accuracy),
        "f1_weighted": float(weighted),
        "classes": {
            name: {
                "n": int(support[i]),
                "answered": int(given[i]),
                "completeness": float(completeness[i]),
                "purity": float(purity[i]),
                "f1": float(f1[i]),
            }
            for i, name in enumerate(CLASSES)
        },
    }


def redshift_samples(matched: Matched) -> list[RedshiftSample]:
    """Galaxies by ``z_gal``, quasars by ``z_qso``, and both by the catalogue's ``z``.

    The first two ask how good the redshift is given the class, whatever class was answered; the third is
    what a user of the catalogue meets. Samples without objects are left out.
    """
    true, answered, z_true = matched.words("true_class"), matched.words("class"), matched.numbers("true_z")
    samples = []
    for name, column, members in (
        ("Galaxies", "z_gal", true == "GALAXY"),
        ("Quasars", "z_qso", true == "QSO"),
        ("Both, as catalogued", "z", (true == "GALAXY") | (true == "QSO")),
    ):
        chosen = members & np.isfinite(z_true)
        if chosen.any():
            samples.append(
                RedshiftSample(
                    name,
                    column,
                    matched.numbers(column)[chosen],
                    matched.numbers(f"{column}_err")[chosen],
                    z_true[chosen],
                    matched.numbers("i_mag")[chosen],
                    (true == answered)[chosen],
                )
            )
    return samples


def label_samples(matched: Matched) -> list[LabelSample]:
    """The scalar labels that the truth knows, of objects of the class for which they have a meaning."""
    true, samples = matched.words("true_class"), []
    for name in matched.labels:
        truth, value = matched.numbers(f"true_{name}"), matched.numbers(name)
        known = np.isfinite(truth)
        if name in BY_NAME and BY_NAME[name].applies_to:
            known &= true == BY_NAME[name].applies_to
        both = known & np.isfinite(value)
        if known.any():
            error = matched.numbers(f"{name}_err")
            samples.append(
                LabelSample(
                    name, OJALA[name].unit, value[both], error[both], truth[both], int((known & ~both).sum())
                )
            )
    return samples


def magnitude_bins(i_mag: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Name and members of each bin of magnitude that holds objects; those without a magnitude come last."""
    bins = []
    for low, high in itertools.pairwise(MAGNITUDE_EDGES):
        if np.isinf(low):
            name = f"< {high:g}"
        elif np.isinf(high):
            name = f"≥ {low:g}"
        else:
            name = f"{low:g} – {high:g}"
        bins.append((name, (i_mag >= low) & (i_mag < high)))
    bins.append((f"no {REFERENCE_BAND}", ~np.isfinite(i_mag)))
    return [(name, members) for name, members in bins if members.any()]


def scores_by_magnitude(sample: RedshiftSample) -> list[dict[str, Any]]:
    """The scores of a sample in each bin of magnitude."""
    return [
        {"bin": name, "i_mag": _middle(sample.i_mag[members]), "n_true": int(members.sum())}
        | sample.scores(members)
        for name, members in magnitude_bins(sample.i_mag)
    ]


def class_scores_by_magnitude(matched: Matched) -> list[dict[str, Any]]:
    """Weighted F1 in each bin of magnitude, over the objects of known class."""
    true, answered, i_mag = matched.words("true_class"), matched.words("class"), matched.numbers("i_mag")
    known = true != NONE
    true, answered = true[known], answered[known]
    found = []
    for name, members in magnitude_bins(i_mag[known]):
        scores = class_scores(confusion_matrix(true[members], answered[members]))
        found.append({"bin": name} | {key: scores[key] for key in ("n", "f1_weighted", "accuracy")})
    return found


def wrong_classes(matched: Matched) -> list[dict[str, Any]]:
    """Every object whose class is wrong, the surest of them first."""
    true, answered = matched.words("true_class"), matched.words("class")
    sure = np.max([matched.numbers(f"p_{name.lower()}") for name in CLASSES], axis=0)
    wrong = np.flatnonzero((true != NONE) & (true != answered))
    return _listing(matched, wrong[np.argsort(-np.nan_to_num(sure[wrong]), kind="stable")])


def wrong_redshifts(matched: Matched) -> list[dict[str, Any]]:
    """Every object of right class whose redshift is wrong by more than `CATASTROPHIC`, the worst first."""
    true, answered = matched.words("true_class"), matched.words("class")
    z, z_true = matched.numbers("z"), matched.numbers("true_z")
    dz = np.abs((z - z_true) / (1.0 + z_true))
    judged = (true == answered) & np.isin(true, ["GALAXY", "QSO"])
    wrong = np.flatnonzero(judged & (np.nan_to_num(dz) > CATASTROPHIC))
    return _listing(matched, wrong[np.argsort(-dz[wrong], kind="stable")])


def _listing(matched: Matched, chosen: np.ndarray) -> list[dict[str, Any]]:
    numbers = {
        name: matched.numbers(name)
        for name in ("tile_id", "number", "z", "z_err", "z_odds", "true_z", "i_mag", "flags", "n_bands")
    }
    probability = np.stack([matched.numbers(f"p_{name.lower()}") for name in CLASSES])
    true, answered = matched.words("true_class"), matched.words("class")
    remarks = {name: matched.words(f"true_{name}") for name in matched.remarks}
    listing = []
    for row in chosen:
        entry: dict[str, Any] = {name: float(values[row]) for name, values in numbers.items()}
        entry |= {name: int(entry[name]) for name in ("tile_id", "number", "flags", "n_bands")}
        entry["class"], entry["true_class"] = answered[row], true[row]
        entry["p_class"] = float(probability[:, row].max())
        entry["p_true"] = float(probability[CLASSES.index(true[row]), row])
        dz = (entry["z"] - entry["true_z"]) / (1.0 + entry["true_z"])
        # The velocity of a star is no redshift to miss.
        entry["dz"] = np.nan if true[row] == "STAR" else dz
        entry |= {name: words[row] for name, words in remarks.items()}
        entry["flag_names"] = flag_names(entry["flags"])
        listing.append(entry)
    return listing


def _middle(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else np.nan
