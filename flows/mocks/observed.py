"""Sampler of observed spectra from a spectra catalogue.

sky = open_observed_sky(UPath("spectra"), Path("curves"), held_out=False)
photometry = sky.draw(10_000, np.random.default_rng(1))
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import healpy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.spectra import IMAGING_BANDS, LABEL_NAMES, SPECTRA
from ojala.models.quantities import CLASSES
from ojala.models.simulation.photometry.exposure import Camera, expose
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.skies.observed import (
    FOLDS,
    Members,
    ObservedSky,
    ObservedSpectra,
    fold_of,
    split_sides,
    synthesise_photometry,
)
from ojala.pipeline.ingest.reference.filter_curves import read_curves
from ojala.pipeline.storage.hats import CatalogueError, read_leaves
from ojala.pipeline.storage.healpix import INDEX_ORDER, Partition

MOVES = (-0.04, -0.02, 0.02, 0.04, 0.08, 0.12, 0.16, 0.20, 0.25, 0.30)
"""Steps in ln(1 + z) to further redshifts of galaxies, mostly larger ones: galaxies with good spectra are
nearer than those of a survey."""

_KEYS = ["_healpix_29", "object_id", "primary_id"]
_BANDS = [band.name for band in MODEL_BANDS]
_BATCH = 128


def open_observed_sky(
    root: UPath, curves: Path, *, held_out: bool, folds: Collection[int] = range(FOLDS)
) -> ObservedSky:
    """Make a sampler of one side of a spectra catalogue.

    Each spectrum is read once; its synthetic photometry takes 0.5 kB of memory per redshift.

    Parameters
    ----------
    root : UPath
        Spectra catalogue, made by `ojala spectra`.
    curves : Path
        Folder with the transmission curves.
    held_out : bool
        Draw from held-out objects and cells.
    folds : collection of int
        Folds of objects to draw from, for cross-validation; see
        `ojala.models.simulation.skies.observed.fold_of`.

    Raises
    ------
    CatalogueError
        There is no spectra catalogue at ``root``.
    InputError
        No spectrum of this side is usable.
    """
    leaves = list(read_leaves(root))
    _check_contract(root, leaves)
    keys = pa.concat_tables(_read(root, leaf, _KEYS) for leaf in leaves)
    index, object_id, primary_id = (keys[name].to_numpy() for name in _KEYS)
    selected = (split_sides(index, object_id, primary_id) == int(held_out)) & np.isin(
        fold_of(primary_id), list(folds)
    )
    wanted = object_id[selected]
    camera = Camera(Photometer(read_curves(curves)))
    parts = [
        synthesise_photometry(spectra, camera, MOVES)
        for leaf in leaves
        for spectra in _usable(root, leaf, np.sort(wanted))
    ]
    if not parts:
        raise InputError(
            f"{root}: no spectrum of known class and redshift to draw from, held out: {held_out}"
        )
    return ObservedSky(Members.joined(parts))


def _check_contract(root: UPath, leaves: list[Partition]) -> None:
    with (root / leaves[0].leaf).open("rb") as file:
        present = set(pq.read_schema(file).names)
    missing = [name for name in SPECTRA.names if name not in present]
    if missing:
        raise CatalogueError(
            f"{root} is no spectra catalogue (`ojala spectra` makes one): it lacks {', '.join(missing[:5])}"
        )


def _read(root: UPath, leaf: Partition, columns: list[str]) -> pa.Table:
    with (root / leaf.leaf).open("rb") as file:
        return pq.read_table(file, columns=columns)


def _usable(root: UPath, leaf: Partition, wanted: np.ndarray) -> Iterator[ObservedSpectra]:
    """Iterate over batches of the wanted spectra of a leaf with trusted class and redshift."""
    columns = [name for name in SPECTRA.names if name not in ("_healpix_29", "mask")]
    with (root / leaf.leaf).open("rb") as raw, pq.ParquetFile(raw) as file:
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
            keep = pc.and_(batch["trusted"], pc.is_in(batch["class"], pa.array(CLASSES)))
            keep = pc.and_(keep, pc.or_(pc.is_valid(batch["z"]), pc.equal(batch["class"], "STAR")))
            keep = pc.and_(keep, pa.array(np.isin(batch["object_id"].to_numpy(), wanted)))
            rows = batch.filter(keep)
            if rows.num_rows:
                yield _observed(rows)


def _observed(batch: pa.RecordBatch) -> ObservedSpectra:
    lists = [
        np.split(batch[name].flatten().to_numpy(), np.cumsum(batch[name].value_lengths().to_numpy())[:-1])
        for name in ("wavelength", "flux", "ivar")
    ]
    missing = np.full(batch.num_rows, np.nan)
    flux_of = {band.name: _numbers(batch, band.flux_column) for band in IMAGING_BANDS}
    error_of = {band.name: _numbers(batch, f"{band.flux_column}_err") for band in IMAGING_BANDS}
    z = _numbers(batch, "z")
    return ObservedSpectra(
        exposure=expose(list(zip(*lists, strict=True))),
        object_id=batch["object_id"].to_numpy(),
        primary_id=batch["primary_id"].to_numpy(),
        class_code=np.array([CLASSES.index(name) for name in batch["class"].to_pylist()], np.int64),
        z=z,
        relative=batch["relative_flux"].to_numpy(zero_copy_only=False),
        ebv=_numbers(batch, "ebv"),
        labels={name: _numbers(batch, name) for name in LABEL_NAMES},
        label_errors={name: _numbers(batch, f"{name}_err") for name in LABEL_NAMES},
        imaging=np.stack([flux_of.get(name, missing) for name in _BANDS], axis=1),
        imaging_error=np.stack([error_of.get(name, missing) for name in _BANDS], axis=1),
    )


def _numbers(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """Convert to float64, null to NaN."""
    return np.asarray(batch[name].to_numpy(zero_copy_only=False), np.float64)


def positions_of(root: UPath, object_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read positions [deg] of spectra; those without one get the centre of their pixel."""
    columns = ["_healpix_29", "object_id", "ra", "dec"]
    table = pa.concat_tables(_read(root, leaf, columns) for leaf in read_leaves(root))
    order = np.argsort(table["object_id"].to_numpy())
    row = order[np.searchsorted(table["object_id"].to_numpy()[order], object_id)]
    pixel = table["_healpix_29"].to_numpy()[row]
    ra, dec = healpy.pix2ang(healpy.order2nside(INDEX_ORDER), pixel, nest=True, lonlat=True)
    known = [
        np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64)[row] for name in ("ra", "dec")
    ]
    has_position = np.isfinite(known[0])
    return np.where(has_position, known[0], ra), np.where(has_position, known[1], dec)
