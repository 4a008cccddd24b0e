"""Rows of OJALA's products from its predictions, with the flags of each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.finetuned import FinetunedHead, heads_contract
from ojala.catalogs_schema.ojala import (
    CLASSES,
    MIN_CLASS_PROBABILITY,
    OJALA,
    OJALA_BANDS,
    OJALA_VECTORS,
    Flag,
    predicted_flux,
)
from ojala.models.quantities import FINE_TUNED, SCALARS
from ojala.pipeline.inference.photometry import Photometry
from ojala.pipeline.inference.products.emission_lines import Columns, line_quantities
from ojala.pipeline.inference.products.table import build_table

FEW_BANDS = 10
"""Fewer usable bands than this are flagged."""

CERTAIN_CLASS = 0.7
"""A lower probability of the most probable class is flagged."""

SECOND_MODE = 0.2
"""A second redshift mode with this probability or more is flagged."""

FLAGGED_INPUT = 3
"""SExtractor flags above this (saturated, truncated, incomplete) are flagged."""

_PROBABILITY = {"GALAXY": "p_galaxy", "STAR": "p_star", "QSO": "p_qso"}
_CONDITIONAL = {
    "p_galaxy": ["z_gal", *(q.name for q in SCALARS if q.applies_to == "GALAXY")],
    "p_qso": ["z_qso", *(q.name for q in FINE_TUNED if q.applies_to == "QSO")],
    "p_star": [q.name for q in SCALARS if q.applies_to == "STAR"],
}
_BANDS = np.array([*(band.name for band in MODEL_BANDS), NONE], dtype=object)  # of no band: the last
_REDSHIFTS = ["z", "z_err", "z_q02", "z_q16", "z_q50", "z_q84", "z_q98", "z_odds", "z_mode2", "z_mode2_p"]


def value_added_table(table: pa.Table, photometry: Photometry, predicted: Columns) -> pa.Table:
    """The value-added catalogue's rows for a table of photometry.

    Parameters
    ----------
    table : pyarrow.Table
        Photometry, N rows.
    photometry : Photometry
        The same as arrays.
    predicted : dict of str to ndarray
        Answers of the model, N each.

    Returns
    -------
    pyarrow.Table
        N rows in the same order that keep the contract, whatever came in.
    """
    flags = _input_flags(table, photometry)
    n_bands = photometry.usable.sum(axis=1)
    probabilities = np.stack([predicted[_PROBABILITY[name]] for name in CLASSES], axis=1)
    lost = (n_bands > 0) & ~np.isfinite(probabilities).all(axis=1)
    flags |= np.where(lost, Flag.NOT_PREDICTED, 0)
    known = (n_bands > 0) & ~lost

    columns = {
        name: np.asarray(values, dtype=np.float64)
        for name, values in predicted.items()
        if values.ndim == 1 and "_pdf" not in name
    }
    columns |= line_quantities(columns, *photometry.reference())
    for probability, names in _CONDITIONAL.items():
        applies = known & (columns[probability] >= MIN_CLASS_PROBABILITY)
        for name in names:
            for part in (name, f"{name}_err"):
                columns[part] = np.where(applies, columns[part], np.nan)
    _hide_lines(columns)

    code = np.where(known, np.asarray(predicted["class_code"], dtype=np.int64), len(CLASSES))
    words = np.array([*CLASSES, NONE], dtype=object)[code]
    star = words == "STAR"
    for name in _REDSHIFTS:
        columns[name] = np.where(known & ~star, columns[name], np.nan)
    for name in _PROBABILITY.values():
        columns[name] = np.where(known, columns[name], np.nan)
    comparison = _band_comparison(predicted, known)
    columns["novelty"] = np.where(known, columns["novelty"], np.nan)
    columns["z_mode2"] = np.where(columns["z_mode2_p"] > 0, columns["z_mode2"], np.nan)

    best = np.where(known, probabilities.max(axis=1, initial=0.0), np.nan)
    flags |= np.where(best < CERTAIN_CLASS, Flag.CLASS_UNCERTAIN, 0)
    flags |= np.where(columns["z_mode2_p"] >= SECOND_MODE, Flag.Z_MULTIMODAL, 0)
    flags |= np.where(columns["novelty"] > 1.0, Flag.NOVEL, 0)

    others = {"class": words, "n_bands": n_bands, "flags": flags}
    return build_table(OJALA, table, columns | comparison | others)


def vectors_table(table: pa.Table, photometry: Photometry, predicted: Columns) -> pa.Table:
    """The vectors' rows for a table of photometry.

    Where nothing is predicted, the PDFs have no bins and the embedding is NaN.
    """
    known = np.asarray(photometry.usable.any(axis=1))
    values: dict[str, np.ndarray | pa.Array] = {}
    for name in ("z_gal_pdf", "z_qso_pdf"):
        count = predicted[f"{name}_n"]
        kept = np.repeat(known, count)
        ends = np.cumsum(np.where(known, count, 0), dtype=np.int32)
        offsets = pa.array(np.concatenate([np.zeros(1, np.int32), ends]))
        for part in (name, f"{name}_bin"):
            values[part] = pa.ListArray.from_arrays(offsets, pa.array(predicted[part][kept]))
    values["embedding"] = np.where(known[:, None], predicted["embedding"], np.nan)
    return build_table(OJALA_VECTORS, table, values)


def bands_table(table: pa.Table, predicted: Columns) -> pa.Table:
    """The rows of the predicted bands for a table of photometry, null where nothing is predicted."""
    values: Columns = {}
    for k, band in enumerate(MODEL_BANDS):
        name = predicted_flux(band)
        values |= {name: predicted["band_flux"][:, k], f"{name}_err": predicted["band_flux_err"][:, k]}
    return build_table(OJALA_BANDS, table, values)


def _band_comparison(predicted: Columns, known: np.ndarray) -> dict[str, np.ndarray | pa.Array]:
    """Columns of measured against predicted bands, null where bands were not asked for."""
    names = ("chi2_bands", "n_chi2_bands", "worst_band", "worst_band_sigma")
    given = {name: predicted.get(name, np.full(len(known), np.nan)) for name in names}
    compared = known & (np.nan_to_num(given["n_chi2_bands"]) > 0)
    numbers = {name: np.where(compared, given[name], np.nan) for name in ("chi2_bands", "worst_band_sigma")}
    count = pa.array(np.where(compared, given["n_chi2_bands"], 0).astype(np.int16), mask=~compared)
    worst = _BANDS[np.where(compared, given["worst_band"], -1).astype(int)]
    return {**numbers, "n_chi2_bands": count, "worst_band": worst}


def heads_table(heads: Sequence[FinetunedHead], main: pa.Table, predicted: Columns) -> pa.Table:
    """The rows of the product of fine-tuned heads, N as in the value-added table ``main``.

    ``predicted`` has ``head.NAME`` and ``head.NAME_err`` of each head, shape (N,). A value that is not
    finite, or of an object that is hardly of the quantity's class, is null.
    """
    values: Columns = {}
    for head in heads:
        probability = main[_PROBABILITY[head.object_class]].to_numpy(zero_copy_only=False)
        parts = {f"{head.name}{part}": predicted[f"head.{head.name}{part}"] for part in ("", "_err")}
        given = np.isfinite(list(parts.values())).all(axis=0) & (probability >= MIN_CLASS_PROBABILITY)
        values |= {name: np.where(given, part, np.nan) for name, part in parts.items()}
    return build_table(heads_contract(heads), main, values)


def _input_flags(table: pa.Table, photometry: Photometry) -> np.ndarray:
    n_bands = photometry.usable.sum(axis=1)
    with np.errstate(all="ignore"):
        ratio = np.where(photometry.usable, photometry.flux / photometry.error, np.nan)
    some = n_bands > 0
    flagged = pc.or_(
        pc.fill_null(pc.greater(table["flags"], FLAGGED_INPUT), False),
        pc.fill_null(pc.not_equal(table["mask_flags"], 0), False),
    ).to_numpy()
    conditions = {
        Flag.NO_BANDS: n_bands == 0,
        Flag.FEW_BANDS: some & (n_bands < FEW_BANDS),
        Flag.BAND_REJECTED: photometry.rejected,
        Flag.NO_REFERENCE_BAND: np.isnan(photometry.reference()[0]),
        Flag.NO_EBV: ~photometry.ebv_known,
        Flag.FAINT: some & (_median(ratio, n_bands) < 1.0),
        Flag.INPUT_FLAGGED: flagged,
    }
    mask = np.zeros(len(n_bands), dtype=np.int32)
    for flag, condition in conditions.items():
        mask |= np.where(condition, np.int32(flag), np.int32(0))
    return mask


def _median(values: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Median of each row's ``count`` numbers among NaNs, without numpy's masked arrays; NaN for none."""
    ordered = np.sort(values, axis=1)  # NaN comes last
    middle = np.stack([(count - 1) // 2, count // 2], axis=1).clip(0)
    return np.asarray(np.take_along_axis(ordered, middle, axis=1).mean(axis=1))


def _hide_lines(columns: Columns) -> None:
    """Line quantities are there only where the predictions they are made from are given."""
    hidden = np.isnan(columns["ew_halpha"])
    for name, array in columns.items():
        if name.startswith(("f_", "ha_hb", "log_l_halpha", "log_sfr_halpha")):
            columns[name] = np.where(hidden, np.nan, array)
    for name in ("bpt_class", "whan_class"):
        columns[name] = np.where(hidden, NONE, columns[name])
