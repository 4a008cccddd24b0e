"""The sky of observed spectra: a spectra catalogue opened to draw from.

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
"""Steps in ln(1 + z) to the redshifts at which a galaxy is drawn besides its own: mostly farther away, since
galaxies with spectra that are good enough are nearer than those of a survey."""

_KEYS = ["_healpix_29", "object_id", "primary_id"]
_BANDS = [band.name for band in MODEL_BANDS]
_BATCH = 128


def open_observed_sky(
    root: UPath, curves: Path, *, held_out: bool, folds: Collection[int] = range(FOLDS)
) -> ObservedSky:
    """Open one side of a spectra catalogue as a sky to draw from.

    Each spectrum is read and seen through the bands once; what is kept is 0.5 kB for each and redshift.

    Parameters
    ----------
    root : UPath
        Spectra catalogue, made by `ojala spectra`.
    curves : Path
        Folder with the transmission curves.
    held_out : bool
        Draw from the objects and cells that are never trained on.
    folds : collection of int
        Folds of objects to draw from, for cross-validation; see
        `ojala.models.simulation.skies.observed.fold_of`.

    Raises
    ------
    CatalogueError
        If there is no spectra catalogue at ``root``.
    InputError
        If no spectrum of this side can be drawn from.
    """
    leaves = list(read_leaves(root))
    _check_contract(root, leaves)
    keys = pa.concat_tables(_read(root, leaf, _KEYS) for leaf in leaves)
    index, object_id, primary_id = (keys[name].to_numpy() for name in _KEYS)
    here = (split_sides(index, object_id, primary_id) == int(held_out)) & np.isin(
        fold_of(primary_id), list(folds)
    )
    wanted = object_id[here]
    camera = Camera(Photometer(read_curves(curves)))
    lots = [
        synthesise_photometry(spectra, camera, MOVES)
        for leaf in leaves
        for spectra in _usable(root, leaf, np.sort(wanted))
    ]
    if not lots:
        raise InputError(
            f"{root}: no spectrum of known class and redshift to draw from, held out: {held_out}"
        )
    return ObservedSky(Members.joined(lots))


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
    """The spectra of a leaf that are on the wanted side and of trusted class and redshift, in batches."""
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
    nothing = np.full(batch.num_rows, np.nan)
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
        imaging=np.stack([flux_of.get(name, nothing) for name in _BANDS], axis=1),
        imaging_error=np.stack([error_of.get(name, nothing) for name in _BANDS], axis=1),
    )


def _numbers(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """Null becomes NaN."""
    return np.asarray(batch[name].to_numpy(zero_copy_only=False), np.float64)


def places(root: UPath, object_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination [deg] of spectra; of the pixel's centre for one without a position."""
    columns = ["_healpix_29", "object_id", "ra", "dec"]
    table = pa.concat_tables(_read(root, leaf, columns) for leaf in read_leaves(root))
    order = np.argsort(table["object_id"].to_numpy())
    row = order[np.searchsorted(table["object_id"].to_numpy()[order], object_id)]
    pixel = table["_healpix_29"].to_numpy()[row]
    ra, dec = healpy.pix2ang(healpy.order2nside(INDEX_ORDER), pixel, nest=True, lonlat=True)
    known = [
        np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64)[row] for name in ("ra", "dec")
    ]
    placed = np.isfinite(known[0])
    return np.where(placed, known[0], ra), np.where(placed, known[1], dec)
