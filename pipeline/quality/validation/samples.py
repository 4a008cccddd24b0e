"""Samples of objects with true values: redshifts, scalar quantities and diagrams of line ratios."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.ojala import BPT_CLASSES, CLASSES, LINES, OJALA, WHAN_CLASSES
from ojala.catalogs_schema.ojala import names as flag_names
from ojala.models.quantities import BY_NAME
from ojala.pipeline.inference.products.emission_lines import (
    bpt_class,
    line_quantities,
    reference_of,
    whan_class,
)
from ojala.pipeline.quality.validation.truth import LUMINOSITY, Matched

CATASTROPHIC = 0.15
"""|dz| / (1 + z) beyond which a redshift is a wrong prediction."""

STRONG_LINE = 3.0
"""Equivalent width [Angstrom] above which emission lines are also measured as a sample of their own."""

BRIGHT = 21.0
"""iSDSS magnitude of the bright sample, as in the published results."""

_LINE_LABELS = {*(f"ew_{line}" for line, _, _ in LINES), "cont_hbeta", "cont_halpha"}

Given = Literal["true class", "predicted class"]


@dataclass(frozen=True, slots=True)
class RedshiftSample:
    """Predicted and true redshifts of one kind of object.

    Attributes
    ----------
    objects : str
        GALAXY or QSO.
    given : str
        Whether the objects truly are of that class, or were given it.
    column : str
        Column of the catalogue that is judged.
    z, error, z_true : ndarray, shape (N,)
        Answer (NaN where none was given), its error, and truth; all N objects have a true redshift.
    i_mag : ndarray, shape (N,)
        Magnitude in iSDSS, NaN where not known.
    odds : ndarray, shape (N,)
        ``z_odds``, NaN where it is that of another class.
    class_right : ndarray of bool, shape (N,)
        Whether the most probable class is the true one.
    """

    objects: Literal["GALAXY", "QSO"]
    given: Given
    column: str
    z: np.ndarray
    error: np.ndarray
    z_true: np.ndarray
    i_mag: np.ndarray
    odds: np.ndarray
    class_right: np.ndarray

    @property
    def name(self) -> str:
        """Description of the objects."""
        return {"GALAXY": "Galaxies", "QSO": "Quasars"}[self.objects]

    @property
    def dz(self) -> np.ndarray:
        """(z - z_true) / (1 + z_true)."""
        return np.asarray((self.z - self.z_true) / (1.0 + self.z_true))

    def only(self, chosen: np.ndarray) -> RedshiftSample:
        """The same with some of the objects, by a mask of shape (N,) or by their indices."""
        arrays = ("z", "error", "z_true", "i_mag", "odds", "class_right")
        return replace(self, **{name: getattr(self, name)[chosen] for name in arrays})

    def best_half(self) -> RedshiftSample:
        """The half of the objects with the highest odds."""
        order = np.argsort(-np.nan_to_num(self.odds, nan=-1.0), kind="stable")
        return self.only(np.sort(order[: len(order) // 2]))


@dataclass(frozen=True, slots=True)
class LabelSample:
    """Predicted and true values of one scalar quantity.

    Attributes
    ----------
    name, unit : str
        Column and its unit.
    selection : str
        Which objects; empty for all.
    value, error, truth : ndarray, shape (N,)
        Finite predictions, their errors, true values.
    missing : int
        Objects whose true value is known and which have no prediction.
    """

    name: str
    unit: str
    selection: str
    value: np.ndarray
    error: np.ndarray
    truth: np.ndarray
    missing: int


@dataclass(frozen=True, slots=True)
class DiagramSample:
    """Classes in a diagram of line ratios.

    Attributes
    ----------
    name : str
        Column of the catalogue.
    selection : str
        Which galaxies; empty for all.
    classes : tuple of str
        Its classes, without NONE.
    prediction, true : ndarray of int64, shape (N,)
        Index into `classes`, -1 outside the diagram's selection; the true one from the true equivalent
        widths and redshift.
    """

    name: Literal["bpt_class", "whan_class"]
    selection: str
    classes: tuple[str, ...]
    prediction: np.ndarray
    true: np.ndarray


def redshift_samples(matched: Matched) -> list[RedshiftSample]:
    """Galaxies and quasars, each by the class that they are and by the class that they were given.

    The first asks how good the redshift is given the class, ``z_gal`` or ``z_qso``, whatever class was
    predicted; the second is what a user meets who selects a class: the catalogue's ``z`` of all objects that
    were given it, contaminants and all. Samples without objects are left out.
    """
    true, predicted, z_true = matched.words("true_class"), matched.words("class"), matched.z_true
    i_mag, odds = matched.i_mag, matched.numbers("z_odds")
    kinds: tuple[tuple[Literal["GALAXY", "QSO"], str], ...] = (("GALAXY", "z_gal"), ("QSO", "z_qso"))
    samples = []
    for objects, own in kinds:
        ways: tuple[tuple[Given, str, np.ndarray], ...] = (
            ("true class", own, true == objects),
            ("predicted class", "z", (predicted == objects) & (true != NONE)),
        )
        for given, column, members in ways:
            chosen = members & np.isfinite(z_true)
            if chosen.any():
                sample = RedshiftSample(
                    objects,
                    given,
                    column,
                    matched.numbers(column),
                    matched.numbers(f"{column}_err"),
                    z_true,
                    i_mag,
                    np.where(predicted == objects, odds, np.nan),
                    true == predicted,
                )
                samples.append(sample.only(chosen))
    return samples


def label_samples(matched: Matched) -> list[LabelSample]:
    """The scalar labels that the truth knows, of objects of the class for which they have a meaning.

    Equivalent widths are judged twice: of all, and of those with more than 3 Angstrom; and everything again
    for the objects brighter than `BRIGHT`, where there are others. Where the truth has the lines, but not
    their luminosity, that of H alpha is judged too, against `true_luminosity`.
    """
    samples = []
    truths = {name: matched.numbers(f"true_{name}") for name in matched.labels}
    if LUMINOSITY not in truths and truths.keys() >= _LINE_LABELS:
        truths[LUMINOSITY] = true_luminosity(matched)
    for name, truth in truths.items():
        value, error = matched.numbers(name), matched.numbers(f"{name}_err")
        known = np.isfinite(truth) & of_class(matched, name)
        choices = {"": known}
        if name.startswith("ew_"):
            choices[f"EW > {STRONG_LINE:g} Å"] = known & (truth > STRONG_LINE)
        elif name == LUMINOSITY and "ew_halpha" in truths:
            choices[f"EW(Hα) > {STRONG_LINE:g} Å"] = known & (truths["ew_halpha"] > STRONG_LINE)
        for selection, chosen in _also_bright(choices, matched.i_mag).items():
            both = chosen & np.isfinite(value)
            if chosen.any():
                samples.append(
                    LabelSample(
                        name,
                        OJALA[name].unit,
                        selection,
                        value[both],
                        error[both],
                        truth[both],
                        int((chosen & ~both).sum()),
                    )
                )
    return samples


def true_luminosity(matched: Matched) -> np.ndarray:
    """log10 of the dust-corrected H alpha luminosity [erg/s] from true widths, continua and redshift.

    By the catalogue's formulae and from the flux in iSDSS that the catalogue's own lines stand on, so that
    the noise of that flux is in neither. NaN, shape (N,), where H alpha or H beta is not in emission or the
    catalogue has no line.
    """
    true = {name: matched.numbers(f"true_{name}") for name in _LINE_LABELS}
    nothing = np.zeros(matched.rows.num_rows)
    true |= {f"{name}_err": nothing for name in _LINE_LABELS}
    true |= {"z_gal": matched.z_true, "z_gal_err": nothing}
    own = {name: matched.numbers(name) for name in ("f_halpha", "ew_halpha", "cont_halpha", "z_gal")}
    return line_quantities(true, reference_of(own), nothing)[LUMINOSITY]


def _also_bright(choices: dict[str, np.ndarray], i_mag: np.ndarray) -> dict[str, np.ndarray]:
    """Choices of objects, by name, and the bright ones of each, where that is another choice."""
    found = dict(choices)
    for name, chosen in choices.items():
        bright = chosen & (i_mag < BRIGHT)
        if bright.any() and bright.sum() < chosen.sum():
            found[", ".join(filter(None, (name, f"i < {BRIGHT:g}")))] = bright
    return found


def of_class(matched: Matched, label: str) -> np.ndarray:
    """Objects that truly are of the class for which a label has a meaning, bool of shape (N,)."""
    derived = "QSO" if label == "log_mbh" else "GALAXY"
    own = BY_NAME[label].applies_to if label in BY_NAME else derived
    return np.asarray(matched.words("true_class") == own)


def diagram_samples(matched: Matched) -> list[DiagramSample]:
    """BPT and WHAN classes of true galaxies; none where the truth lacks the equivalent widths.

    True classes follow from the true widths and redshift by the same cuts as the catalogue's; a width whose
    error the truth does not know is taken as exact.
    """
    galaxies = matched.words("true_class") == "GALAXY"
    truth = {"z_gal": matched.z_true}
    for line, _, _ in LINES:
        name = f"ew_{line}"
        if name in matched.labels:
            truth[name] = matched.numbers(f"true_{name}")
            error = f"true_{name}_err"
            known = error in matched.rows.column_names
            truth[f"{name}_err"] = matched.numbers(error) if known else np.zeros(len(galaxies))
    samples: list[DiagramSample] = []
    with np.errstate(all="ignore"):
        if len(truth) == 1 + 2 * len(LINES):
            samples += _diagram(matched, "bpt_class", BPT_CLASSES, bpt_class(truth), galaxies)
        if {"ew_halpha", "ew_nii_6584"} <= truth.keys():
            samples += _diagram(matched, "whan_class", WHAN_CLASSES, whan_class(truth), galaxies)
    return samples


def _diagram(
    matched: Matched,
    name: Literal["bpt_class", "whan_class"],
    words: tuple[str, ...],
    true: np.ndarray,
    galaxies: np.ndarray,
) -> list[DiagramSample]:
    classes = tuple(word for word in words if word != NONE)
    prediction, known = code_of(matched.words(name), classes), code_of(true, classes)
    choices = _also_bright({"": galaxies & (known >= 0)}, matched.i_mag)
    return [
        DiagramSample(name, selection, classes, prediction[chosen], known[chosen])
        for selection, chosen in choices.items()
        if chosen.any()
    ]


def code_of(words: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Index of each word in some classes, -1 for any other; int64, shape (N,)."""
    code = np.full(len(words), -1, dtype=np.int64)
    for i, name in enumerate(classes):
        code[words == name] = i
    return code


def wrong_classes(matched: Matched) -> list[dict[str, Any]]:
    """Every object whose class is wrong, the surest of them first."""
    true, predicted = matched.words("true_class"), matched.words("class")
    sure = np.max([matched.numbers(f"p_{name.lower()}") for name in CLASSES], axis=0)
    wrong = np.flatnonzero((true != NONE) & (true != predicted))
    return _listing(matched, wrong[np.argsort(-np.nan_to_num(sure[wrong]), kind="stable")])


def wrong_redshifts(matched: Matched) -> list[dict[str, Any]]:
    """Every object of right class whose redshift is wrong by more than `CATASTROPHIC`, the worst first."""
    true, predicted = matched.words("true_class"), matched.words("class")
    z, z_true = matched.numbers("z"), matched.numbers("true_z")
    dz = np.abs((z - z_true) / (1.0 + z_true))
    judged = (true == predicted) & np.isin(true, ["GALAXY", "QSO"])
    wrong = np.flatnonzero(judged & (np.nan_to_num(dz) > CATASTROPHIC))
    return _listing(matched, wrong[np.argsort(-dz[wrong], kind="stable")])


def _listing(matched: Matched, chosen: np.ndarray) -> list[dict[str, Any]]:
    numbers = {
        name: matched.numbers(name)
        for name in ("tile_id", "number", "z", "z_err", "z_odds", "true_z", "flags", "n_bands")
    } | {"i_mag": matched.i_mag}
    probability = np.stack([matched.numbers(f"p_{name.lower()}") for name in CLASSES])
    true, predicted = matched.words("true_class"), matched.words("class")
    remarks = {name: matched.words(f"true_{name}") for name in matched.remarks}
    listing = []
    for row in chosen:
        entry: dict[str, Any] = {name: float(values[row]) for name, values in numbers.items()}
        entry |= {name: int(entry[name]) for name in ("tile_id", "number", "flags", "n_bands")}
        entry["class"], entry["true_class"] = predicted[row], true[row]
        entry["p_class"] = float(probability[:, row].max())
        entry["p_true"] = float(probability[CLASSES.index(true[row]), row])
        dz = (entry["z"] - entry["true_z"]) / (1.0 + entry["true_z"])
        # The velocity of a star is no redshift to miss.
        entry["dz"] = np.nan if true[row] == "STAR" else dz
        entry |= {name: words[row] for name, words in remarks.items()}
        entry["flag_names"] = flag_names(entry["flags"])
        listing.append(entry)
    return listing
