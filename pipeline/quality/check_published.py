"""Acceptance test of the published weights: recompute rows of the published catalogue.

The authors' table of ratios and magnitudes is read as their script reads it, so that agreement proves
network, weights and standardisation. What their files settle besides, such as the version of the script, is
said.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala_published import DISTINCT
from ojala.catalogs_schema.photometry import KEY_SHIFT
from ojala.models.ojala_published.derived import derived_columns
from ojala.models.ojala_published.inputs import INPUTS, NARROW, OPTIONS, as_read
from ojala.models.ojala_published.network import SCALARS, PublishedOjala
from ojala.models.ojala_published.predictor import PublishedPredictor
from ojala.pipeline.inference.adapters.ojala_published import PublishedAdapter
from ojala.pipeline.storage.hats import current_release, read_objects

LIMIT = 1e-5
"""Largest median |difference| / scale of a column that agrees."""

DEFAULT_ROWS = 10_000
"""Rows that are recomputed, spread evenly over the table."""

REVISED = ("L_HALPHA_CORR", "LOGSFR_HA", "LOGSFR_HA_ERR")
"""Columns in which the two stored versions of the authors' script differ."""

LUMINOSITY = "L_HALPHA_CORR"
"""Column that is compared by its logarithm, since it spans decades."""

VARIANTS = ("without wavelength bias", "with wavelength bias")
"""The network as served, and as trained."""

_KEY = ["TILE_ID", "NUMBER"]
_CHUNK = 50_000


@dataclass(frozen=True, slots=True)
class ColumnAgreement:
    """Agreement of one column.

    Attributes
    ----------
    column : str
        Published name; those of the other version of the script end in ``(8987be9)``.
    median, largest : float
        Of |difference| / scale over the rows where both have a value. The scale of predicted quantities is
        that of their standardisation, that of derived ones the median of their modulus, that of probabilities
        and of log10 of `LUMINOSITY` 1; of CLASS it is the share of rows that differ.
    one_sided : int
        Rows where only one of both has a value.
    agrees : bool
        Whether the median is below `LIMIT`, and at most one row in a thousand is one-sided.
    """

    column: str
    median: float
    largest: float
    one_sided: int
    agrees: bool


@dataclass(frozen=True, slots=True)
class PublishedCheck:
    """Outcome of the acceptance test.

    Attributes
    ----------
    rows : int
        Rows that were compared.
    columns : dict of str to list of ColumnAgreement
        By variant of the network, one of `VARIANTS`.
    agrees : str
        Variant whose predicted columns all agree; empty for none.
    settled : list of str
        One sentence for each open question.
    """

    rows: int
    columns: dict[str, list[ColumnAgreement]]
    agrees: str
    settled: list[str]

    def table(self) -> str:
        """The outcome as a Markdown table and sentences."""
        lines = [f"{self.rows:,} rows; median |difference| / scale, agreement below {LIMIT:g}", ""]
        lines += [f"| column | {' | '.join(VARIANTS)} | |", "|---|---|---|---|"]
        for pair in zip(*(self.columns[variant] for variant in VARIANTS), strict=True):
            cells = [
                f"{one.median:.1e}" + (f", {one.one_sided} one-sided" * bool(one.one_sided)) for one in pair
            ]
            agreeing = [variant for one, variant in zip(pair, VARIANTS, strict=True) if one.agrees]
            lines.append(f"| {pair[0].column} | {' | '.join(cells)} | {' and '.join(agreeing) or 'none'} |")
        return "\n".join([*lines, "", *self.settled])


def check_published(
    weights: Path,
    photometry: Path,
    catalogue: Path,
    *,
    aperture: str = "APER_COR_3_0",
    rows: int = DEFAULT_ROWS,
    archive: UPath | None = None,
) -> PublishedCheck:
    """Recompute rows of the published catalogue and compare them column by column.

    Parameters
    ----------
    weights : Path
        The authors' ``weights.pt`` with ``config.json`` beside it, or the converted file.
    photometry : Path
        The authors' input table, CSV.
    catalogue : Path
        Their catalogue, CSV.
    aperture : str
        Prefix of the ratios in the table.
    rows : int
        Most rows to recompute.
    archive : UPath, optional
        Photometry catalogue that `ojala ingest` made of the archive's tables of the same objects, to settle
        how the authors' table came from them.

    Raises
    ------
    InputError
        A file lacks a column, holds a cell that is no number, or has no object of the other.
    ojala.models.checkpoint.WeightsError
        The weights cannot be read.
    """
    inputs = [f"{aperture}_{name}" if name in NARROW else name for name in INPUTS]
    table = _columns(photometry, [*_KEY, *inputs, "AUTO_iSDSS"])
    table = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(rows, len(table))).astype(int))]
    expected = _rows_of(catalogue, [*_KEY, *DISTINCT], table.index)
    table = table.loc[expected.index]
    values, kron = table[inputs].to_numpy(np.float64), table["AUTO_iSDSS"].to_numpy(np.float64)

    found: dict[str, list[ColumnAgreement]] = {}
    for variant, bias in zip(VARIANTS, (False, True), strict=True):
        predictor = PublishedPredictor.load(weights, wavelength_bias=bias)
        predicted = predictor.predict(values)
        predicted |= derived_columns(predicted, kron)
        revised = derived_columns(predicted, kron, revised=True)
        scales = dict(zip(SCALARS, _scales(predictor.network), strict=True))
        found[variant] = [_compare(name, predicted[name], expected[name], scales) for name in DISTINCT]
        found[variant] += [
            _compare(name, revised[name], expected[name], scales, "(8987be9)") for name in REVISED
        ]
    predicted_columns = {name for scalar in SCALARS for name in (scalar, f"{scalar}_ERR")}
    whole = [
        variant
        for variant, columns in found.items()
        if all(one.agrees for one in columns if one.column in predicted_columns)
    ]
    agrees = whole[0] if whole else ""
    settled = _settled(predictor.network, found, agrees, len(whole) > 1, aperture)
    if archive is not None:
        settled += _archive(archive, predictor.network, table.index.to_numpy(), values)
    return PublishedCheck(len(table), found, agrees, settled)


def _read(path: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    try:
        header = pd.read_csv(path, nrows=0).columns
        if missing := [name for name in columns if name not in header]:
            raise InputError(f"{path}: lacks the columns {', '.join(missing[:5])}: is this the right file?")
        yield from pd.read_csv(path, usecols=list(columns), chunksize=_CHUNK, low_memory=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error


def _keyed(path: Path, chunk: pd.DataFrame, first: int) -> pd.DataFrame:
    """Rows by ``object_id``; text that is no number is missing, as in the script, except in the key."""
    numbers = chunk.drop(columns="CLASS", errors="ignore").apply(pd.to_numeric, errors="coerce")
    strange = numbers[_KEY].isna().any(axis=1).to_numpy()
    if strange.any():
        row = first + int(np.argmax(strange))
        raise InputError(f"{path}, row {row}: TILE_ID or NUMBER is no number: mend the table")
    tile, number = (numbers[name].to_numpy().astype(np.int64) for name in _KEY)
    if "CLASS" in chunk.columns:
        numbers["CLASS"] = chunk["CLASS"]
    return numbers.set_index(pd.Index((tile << KEY_SHIFT) | number, name="object_id"))


def _columns(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    parts, first = [], 1
    for chunk in _read(path, columns):
        parts.append(_keyed(path, chunk, first))
        first += len(chunk)
    if not parts or not sum(map(len, parts)):
        raise InputError(f"{path}: has no rows")
    return pd.concat(parts)


def _rows_of(path: Path, columns: Sequence[str], keys: pd.Index) -> pd.DataFrame:
    parts, first = [], 1
    for chunk in _read(path, columns):
        keyed = _keyed(path, chunk, first)
        parts.append(keyed[keyed.index.isin(keys)])
        first += len(chunk)
    found = pd.concat(parts) if parts else pd.DataFrame()
    if not len(found):
        raise InputError(f"{path}: has none of the objects of the photometry: do both belong together?")
    return found[~found.index.duplicated()]


def _scales(network: PublishedOjala) -> np.ndarray:
    return np.asarray(network.scale[network.request_ids[1:]].numpy(), np.float64)


def _compare(
    name: str, ours: np.ndarray, theirs: pd.Series[Any], scales: dict[str, float], version: str = ""
) -> ColumnAgreement:
    label = " ".join(filter(None, (name, version)))
    if name == "CLASS":
        differs = float(np.mean(np.asarray(ours) != theirs.to_numpy()))
        return ColumnAgreement(label, differs, float(differs > 0), 0, differs <= 1e-3)
    here, there = np.asarray(ours, np.float64), theirs.to_numpy(np.float64)
    if name == LUMINOSITY:
        with np.errstate(divide="ignore", invalid="ignore"):
            here, there = np.log10(here), np.log10(there)
    both = np.isfinite(here) & np.isfinite(there)
    scale = scales.get(name.removesuffix("_ERR"))
    if scale is None:
        plain = name.startswith("P_") or name == LUMINOSITY or not both.any()
        scale = 1.0 if plain else float(np.median(np.abs(there[both])))
    with np.errstate(divide="ignore", invalid="ignore"):
        away = np.nan_to_num(np.abs(here[both] - there[both]) / scale, nan=0.0)
    one_sided = int((np.isfinite(here) != np.isfinite(there)).sum())
    median, largest = (float(np.median(away)), float(away.max())) if both.any() else (0.0, 0.0)
    # A value at the edge of its definition, such as a redshift of zero, can fall on either side.
    tolerated = one_sided <= 1e-3 * len(here)
    return ColumnAgreement(label, median, largest, one_sided, median < LIMIT and tolerated)


def _settled(
    network: PublishedOjala,
    found: dict[str, list[ColumnAgreement]],
    agrees: str,
    both: bool,
    aperture: str,
) -> list[str]:
    """Results of the comparison for the open questions."""
    if not agrees:
        return [
            f"Neither variant agrees: weights, photometry and catalogue do not belong together, or the "
            f"ratios are of another aperture than {aperture} (--aperture)."
        ]
    columns = {one.column: one for one in found[agrees]}
    first = all(columns[name].agrees for name in REVISED)
    second = all(columns[f"{name} (8987be9)"].agrees for name in REVISED)
    version = {(True, False): "a92c88a", (False, True): "8987be9"}.get((first, second))
    strength = (network.gain[:, None] * network.amplitude).detach().numpy()
    numbers = ", ".join(f"{value:.3g}" for value in strength.ravel())
    return [
        "Wavelength bias: both variants agree, it has no effect with these weights."
        if both
        else f"Wavelength bias: the catalogue was made {agrees}.",
        f"Strength of the wavelength bias, gain times amplitude (narrow and other pairs, block 1 and 2): "
        f"{numbers}.",
        f"Aperture of the ratios: {aperture}.",
        f"Version of the script: commit {version}."
        if version
        else f"Version of the script: not settled, {', '.join(REVISED)} agree with "
        f"{'both versions' if first else 'neither'}.",
    ]


def _archive(archive: UPath, network: PublishedOjala, keys: np.ndarray, expected: np.ndarray) -> list[str]:
    """How the authors' inputs came from the archive: options by the median difference of inputs."""
    rows = read_objects(current_release(archive), keys)
    if not rows.num_rows:
        raise InputError(f"{archive}: has none of the objects of the photometry: do both belong together?")
    order = np.argsort(keys)
    place = order[np.searchsorted(keys[order], rows["object_id"].to_numpy())]
    theirs = as_read(expected[place]).astype(np.float64)
    scale = network.scale[network.input_ids].numpy()
    inputs = PublishedAdapter().read_inputs(rows)
    away: dict[str, np.ndarray] = {}
    for choice in itertools.product(*OPTIONS.values()):
        options = dict(zip(OPTIONS, choice, strict=True))
        away[" ".join(f"{name}={value}" for name, value in options.items())] = (
            inputs.script_columns(options)[0] - theirs
        ) / scale
    with np.errstate(all="ignore"):
        medians = {name: float(np.nanmedian(np.abs(one))) for name, one in away.items()}
    best = sorted(medians, key=lambda name: medians[name])
    lines = [
        f"Inputs of {rows.num_rows:,} of the objects from the archive, median |difference| / scale by "
        f"options:"
    ]
    lines += [f"  {name}: {medians[name]:.1e}" for name in best]
    for name in ("MAG_i", "MAG_W1", "MAG_W2"):
        k = INPUTS.index(name)
        offset = away[best[0]][:, k] * scale[k]
        if np.isfinite(offset).any():
            lines.append(f"  {name}, archive minus table: {float(np.nanmedian(offset)):+.4f} mag")
    return lines
