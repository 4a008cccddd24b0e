"""Updates of a photometry catalogue that grows: tiles are added, replaced or withdrawn.

Each update makes a release in the folder ``releases`` of the catalogue: a HATS catalogue of its own, in which
the leaves that the update does not touch are links to those of the release before. The pointer
``collection.properties`` then names the new release, in one step; releases are never changed, so a reader of
the former one goes on. A catalogue made by `ingest_photometry` counts as the first release of its folder.

Leaves depend on the rows alone: a survey added in steps has the leaves of one ingest of all its rows.
"""

from __future__ import annotations

import datetime
import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.pipeline.ingest.build import CatalogueBuilder, build_catalogue, check_files
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.external_sort import FINEST_ORDER, SortedRuns
from ojala.pipeline.ingest.jpas.column_mapping import APERTURE
from ojala.pipeline.ingest.jpas.flux_units import FluxDensityKind
from ojala.pipeline.ingest.leaves import (
    FormerLeaf,
    LeafTask,
    edges,
    grouped,
    open_leaf,
    rows_in,
    write_leaves,
)
from ojala.pipeline.ingest.lineage import PROVENANCE, read_provenance, release_before
from ojala.pipeline.ingest.photometry import TILE_ROWS, ingest_photometry, workspace_key
from ojala.pipeline.ingest.pieces import Input, ReadOptions
from ojala.pipeline.ingest.reader import PhotometryReader
from ojala.pipeline.ingest.tasks import Runner, run_here
from ojala.pipeline.storage.files import link_files, remove_unfinished
from ojala.pipeline.storage.hats import (
    RELEASES,
    SKYMAP_ORDER,
    current_release,
    read_counts,
    read_leaves,
    write_collection,
)
from ojala.pipeline.storage.healpix import Partition, adaptive_partitions, pixel_at
from ojala.pipeline.storage.lock import LOCKS, hold
from ojala.pipeline.storage.parquet import LeafRecord
from ojala.pipeline.storage.progress import counted

LOCK = "photometry"
"""Name of the lock of a catalogue that is updated."""

_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class UpdateSummary:
    """Outcome of an update.

    Attributes
    ----------
    release : UPath
        Root of the new release.
    before : UPath or None
        Root of the release before it.
    rows : int
        Rows of the new release.
    partitions : dict of Partition to int
        Rows of each of its leaves.
    written : tuple of Partition
        Partitions whose leaves were written; those of all others are links.
    added, replaced, withdrawn : dict of int to int
        Rows by tile: of tiles that got rows, of tiles before they were replaced, of tiles that are gone.
    inputs : tuple of Input
        Input files, sorted by name.
    """

    release: UPath
    before: UPath | None
    rows: int
    partitions: dict[Partition, int]
    written: tuple[Partition, ...]
    added: dict[int, int]
    replaced: dict[int, int]
    withdrawn: dict[int, int]
    inputs: tuple[Input, ...]


def update_photometry(
    root: UPath,
    files: Sequence[UPath] = (),
    *,
    add: bool = False,
    replace: bool = False,
    withdraw: Collection[int] = (),
    aperture: str | None = None,
    units: FluxDensityKind | None = None,
    ignore: Collection[str] = (),
    columns: Mapping[str, str] = MappingProxyType({}),
    run: Runner = run_here,
    scratch: UPath | None = None,
) -> UpdateSummary:
    """Make a release of a photometry catalogue with other tiles, and point the catalogue at it.

    Parameters
    ----------
    root : UPath
        Folder of the catalogue. With `add` it may be new; then its first release is made.
    files : sequence of UPath
        Files as `ojala.pipeline.ingest.photometry.ingest_photometry` reads them.
    add : bool
        Add the files' rows; their keys must be new.
    replace : bool
        Take away the rows of the files' tiles before; these must be there, unless rows may be added, too.
    withdraw : collection of int
        Tiles to take away.
    aperture, units, ignore, columns, run, scratch
        As in `ingest_photometry`. Aperture and units are those of the catalogue where they are not given.

    Returns
    -------
    UpdateSummary

    Raises
    ------
    IngestError
        If a file is not understood, a key comes twice or is there already, or a tile is not there: names
        file and row. The catalogue is as it was then.
    LockedError
        If another process updates the catalogue.
    """
    _check_request(files, add, replace, withdraw)
    release = root / RELEASES / _new_id()
    with hold(root, LOCK):
        remove_unfinished(root, below=False)
        if is_new(root):
            if replace or withdraw:
                raise IngestError(f"{root} has no catalogue yet: there is nothing to replace or to withdraw")
            made = ingest_photometry(
                files,
                release,
                aperture=aperture or APERTURE,
                units=units,
                ignore=ignore,
                columns=columns,
                name=root.name,
                run=run,
                scratch=scratch,
            )
            summary = UpdateSummary(
                release=release,
                before=None,
                rows=made.rows,
                partitions=made.partitions,
                written=tuple(made.partitions),
                added=made.tiles,
                replaced={},
                withdrawn={},
                inputs=made.inputs,
            )
        else:
            former = _Former.read(current_release(root))
            options = former.options(aperture, units)
            options |= {"ignore": sorted(ignore), "columns": dict(columns)}
            reading = ReadOptions(
                options["aperture"], options["units"], tuple(ignore), tuple(columns.items())
            )
            change_of = (str(former.root.absolute()), add, replace, sorted(withdraw))
            key = workspace_key(files, reading, options["tile_rows"], *change_of)
            with build_catalogue(release, PHOTOMETRY, root.name, key=key, scratch=scratch) as catalogue:
                reader = PhotometryReader(catalogue.scratch, reading, run)
                inputs = reader.read_rows(files) if files else []
                change = _find_change(former, reader, add, replace, set(withdraw))
                if files:
                    reader.check_keys(files, former.root, change.kept_keys)
                reader.runs.merge(run)
                written = _write_leaves(catalogue, former, reader.runs, change, options["tile_rows"], run)
                summary = UpdateSummary(
                    release=release,
                    before=former.root,
                    rows=sum(catalogue.rows.values()),
                    partitions=catalogue.rows,
                    written=written,
                    added=reader.tiles,
                    replaced={t: change.present[t] for t in sorted(change.removed - set(withdraw))},
                    withdrawn={t: change.present[t] for t in sorted(set(withdraw))},
                    inputs=tuple(sorted(inputs, key=lambda one: (one.name, one.sha256))),
                )
                catalogue.finalise(PROVENANCE, _provenance(root, summary, options), change.skymap)
        write_collection(root, release, {}, name=root.name)
    return summary


def roll_back(root: UPath) -> UPath:
    """Point a catalogue at the release before the current one, and return that one's root.

    Raises
    ------
    IngestError
        If there is none.
    """
    with hold(root, LOCK):
        now = current_release(root)
        before = release_before(now)
        if before is None:
            raise IngestError(f"{now} is the first release of {root}: there is nothing to roll back to")
        read_leaves(before)
        write_collection(root, before, {}, name=root.name)
    return before


def _check_request(files: Sequence[UPath], add: bool, replace: bool, withdraw: Collection[int]) -> None:
    if files and not (add or replace):
        raise IngestError("files were named, but not what to do with their rows: add or replace")
    if (add or replace) and not files:
        raise IngestError("no files were named")
    if not files and not withdraw:
        raise IngestError("neither files nor tiles to withdraw were named")
    if files:
        check_files(files)


def is_new(root: UPath) -> bool:
    """Whether a folder holds nothing but its lock, and what a killed process left of its first release."""
    return not root.exists() or all(entry.name in (LOCKS, RELEASES) for entry in root.iterdir())


def _new_id() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def _provenance(root: UPath, summary: UpdateSummary, options: dict[str, Any]) -> dict[str, object]:
    before = "." if summary.before == root else f"{RELEASES}/{summary.before.name if summary.before else ''}"
    return {
        "rows": summary.rows,
        "options": options,
        "inputs": [asdict(one) for one in summary.inputs],
        "release": {
            "before": before,
            "added": summary.added,
            "replaced": summary.replaced,
            "withdrawn": summary.withdrawn,
        },
    }


@dataclass(frozen=True)
class _Former:
    """The release that an update starts from.

    Attributes
    ----------
    root : UPath
        Root of its catalogue.
    leaves : dict of Partition to LeafRecord
        Its leaves, in order of the sky.
    provenance : dict of str to object
        Its provenance.
    """

    root: UPath
    leaves: dict[Partition, LeafRecord]
    provenance: dict[str, Any]

    @classmethod
    def read(cls, root: UPath) -> _Former:
        leaves, provenance = read_leaves(root), read_provenance(root)
        if not provenance:
            raise IngestError(
                f"{root} has no {PROVENANCE}, so it was not made by `ojala ingest`, and its rows may be of "
                "another kind: ingest its files into a catalogue of its own"
            )
        return cls(root, leaves, provenance)

    def options(self, aperture: str | None, units: FluxDensityKind | None) -> dict[str, Any]:
        """Options of the catalogue, which hold for its updates, too."""
        found: dict[str, Any] = {"tile_rows": TILE_ROWS, "aperture": APERTURE, "units": None}
        found |= self.provenance["options"]
        if aperture is not None and aperture.upper() != str(found["aperture"]).upper():
            raise IngestError(
                f"{self.root} holds fluxes in the aperture {found['aperture']}; rows in {aperture} belong "
                "into a catalogue of their own"
            )
        return {**found, **({"units": units} if units else {})}

    @property
    def has_this_contract(self) -> bool:
        """Whether its leaves have the columns of today's contract, so that they can lie beside new ones."""
        return bool(self.provenance.get("contract") == f"{PHOTOMETRY.name} {PHOTOMETRY.version}")

    def keys(self, partition: Partition, tiles: np.ndarray) -> pa.Table | None:
        """Position, key and tile of all rows of a leaf; None where none of them is in these tiles."""
        with open_leaf(self.root / partition.leaf) as leaf:
            at = leaf.schema_arrow.get_field_index("tile_id")
            groups = [leaf.metadata.row_group(n).column(at) for n in range(leaf.metadata.num_row_groups)]
            bounds = [one.statistics for one in groups]
            if not any(b is None or ((tiles >= b.min) & (tiles <= b.max)).any() for b in bounds):
                return None
            found = leaf.read(columns=["_healpix_29", "object_id", "tile_id"])
        return found if np.isin(found["tile_id"].to_numpy(), tiles).any() else None

    def index(self, partition: Partition) -> pa.Table:
        """Position and tile of all rows of a leaf."""
        with open_leaf(self.root / partition.leaf) as leaf:
            return leaf.read(columns=["_healpix_29", "tile_id"])


@dataclass(frozen=True)
class _Change:
    """What an update does to the former release.

    Attributes
    ----------
    index : ndarray of int64
        Positions of the new rows, sorted.
    removed : set of int
        Tiles whose rows are taken away.
    present : dict of int to int
        Rows of the former release by tile, of the tiles that the update names.
    kept_keys : tuple of ndarray of int64
        Keys that stay, of these tiles.
    touched : set of Partition
        Leaves that lose rows or get some.
    pixels, counts : ndarray of int64
        Rows per pixel of `FINEST_ORDER` after the update; those of an untouched leaf all in its first one.
    skymap : ndarray of int64
        Rows per pixel of `SKYMAP_ORDER` after the update.
    """

    index: np.ndarray
    removed: set[int]
    present: dict[int, int]
    kept_keys: tuple[np.ndarray, ...]
    touched: set[Partition]
    pixels: np.ndarray
    counts: np.ndarray
    skymap: np.ndarray


def _find_change(
    former: _Former, reader: PhotometryReader, add: bool, replace: bool, withdraw: set[int]
) -> _Change:
    new = set(reader.tiles)
    named = np.array(sorted(new | withdraw), dtype=np.int64)
    leaves = counted(former.leaves, "partitions searched for the tiles")
    keys = {p: found for p in leaves if (found := former.keys(p, named)) is not None}
    present: Counter[int] = Counter()
    for table in keys.values():
        tiles, rows = np.unique(table["tile_id"].to_numpy(), return_counts=True)
        present.update({t: n for t, n in zip(tiles.tolist(), rows.tolist(), strict=True) if t in set(named)})
    _check_tiles(former.root, new, withdraw, present.keys(), add, replace)
    removed = withdraw | (new & present.keys() if replace else set())
    gone = np.array(sorted(removed), dtype=np.int64)

    index = reader.runs.index()
    starts, ends = np.searchsorted(index, np.array([edges(p) for p in former.leaves]).reshape(-1, 2)).T
    touched = {p for p, a, b in zip(former.leaves, starts, ends, strict=True) if b > a}
    touched |= {p for p, table in keys.items() if np.isin(table["tile_id"].to_numpy(), gone).any()}
    if not former.has_this_contract:
        touched = set(former.leaves)

    skymap = read_counts(former.root).copy()
    np.add.at(skymap, pixel_at(index, SKYMAP_ORDER), 1)
    pixels, counts = [pixel_at(index, FINEST_ORDER)], [np.ones(len(index), dtype=np.int64)]
    kept_keys = []
    for partition, leaf in former.leaves.items():
        if partition in keys:
            table = keys[partition]
            mine = np.isin(table["tile_id"].to_numpy(), named)
            mine &= ~np.isin(table["tile_id"].to_numpy(), gone)
            kept_keys.append(table["object_id"].to_numpy()[mine])
        if partition not in touched:
            pixels.append(np.array([partition.pixel << 2 * (FINEST_ORDER - partition.order)]))
            counts.append(np.array([leaf.rows]))
            continue
        table = keys.get(partition) or former.index(partition)
        there, lost = table["_healpix_29"].to_numpy(), np.isin(table["tile_id"].to_numpy(), gone)
        np.subtract.at(skymap, pixel_at(there[lost], SKYMAP_ORDER), 1)
        pixels.append(pixel_at(there[~lost], FINEST_ORDER))
        counts.append(np.ones(int((~lost).sum()), dtype=np.int64))
    distinct, place = np.unique(np.concatenate(pixels), return_inverse=True)
    total = np.bincount(place, weights=np.concatenate(counts), minlength=len(distinct)).astype(np.int64)
    if not total.sum():
        raise IngestError(f"no row of {former.root} would stay: a catalogue cannot be empty")
    return _Change(index, removed, dict(present), tuple(kept_keys), touched, distinct, total, skymap)


def _check_tiles(
    root: UPath, new: set[int], withdraw: set[int], present: Collection[int], add: bool, replace: bool
) -> None:
    if both := sorted(new & withdraw):
        raise IngestError(f"tiles {_some(both)} are to be withdrawn, but the files have rows of them")
    if absent := sorted(withdraw - set(present)):
        raise IngestError(f"tiles {_some(absent)} cannot be withdrawn: {root} has no rows of them")
    if replace and not add and (absent := sorted(new - set(present))):
        raise IngestError(
            f"tiles {_some(absent)} cannot be replaced: {root} has no rows of them; with --add they are added"
        )


def _some(tiles: Sequence[int]) -> str:
    more = f" and {len(tiles) - _MAX_NAMED:,} more" if len(tiles) > _MAX_NAMED else ""
    return ", ".join(map(str, tiles[:_MAX_NAMED])) + more


def _write_leaves(
    catalogue: CatalogueBuilder,
    former: _Former,
    runs: SortedRuns,
    change: _Change,
    tile_rows: int,
    run: Runner,
) -> tuple[Partition, ...]:
    """Write the leaves that the update touches, and link all others; returns those that were written."""
    try:
        partitions = adaptive_partitions(change.pixels, change.counts, FINEST_ORDER, tile_rows)
    except InputError as error:
        raise IngestError(str(error)) from error
    linked = [p for p in partitions if p in former.leaves and p not in change.touched]
    link_files(former.root, catalogue.root, ([p.leaf] for p in linked))
    there = {
        partition: FormerLeaf(former.root / partition.leaf, *edges(partition), leaf.sha256)
        for partition, leaf in former.leaves.items()
    }
    starts, ends = (np.array([getattr(leaf, name) for leaf in there.values()]) for name in ("first", "last"))
    leaves = list(there.values())
    written = sorted(set(partitions) - set(linked), key=edges)
    rows = rows_in(written, change.pixels, change.counts, FINEST_ORDER)
    tasks = []
    for group in grouped(written, rows):
        low, high = edges(group[0])[0], edges(group[-1])[1]
        touched = leaves[np.searchsorted(ends, low, side="right") : np.searchsorted(starts, high)]
        gone = tuple(sorted(change.removed))
        tasks.append(LeafTask(catalogue.root, group, runs.overlapping(low, high), tuple(touched), gone))
    catalogue.leaves.update(write_leaves(run, catalogue.scratch, tasks, sum(rows)))
    catalogue.leaves.update({p: former.leaves[p] for p in linked})
    return tuple(written)
