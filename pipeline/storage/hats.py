"""HATS catalogues: the metadata around the leaves, and the collection that joins products to photometry.

A catalogue without ``hats.properties`` cannot be opened, so finalising it is what makes it exist; see
the IVOA Note "HATS". The library hats is imported by the functions that need it: it takes more than a second.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from tempfile import gettempdir
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema import votable
from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.errors import AccessError, InputError
from ojala.pipeline.storage.files import sha256_of, write_whole
from ojala.pipeline.storage.healpix import INDEX_ORDER, Partition, pixel_at, sky_order
from ojala.pipeline.storage.parquet import LeafRecord
from ojala.pipeline.storage.properties import (
    COLLECTION,
    JOINED,
    NAME,
    PRIMARY,
    PROPERTIES,
    read_properties,
)

if TYPE_CHECKING:
    from hats.catalog.dataset.hats_properties import HatsProperties

SKYMAP_ORDER = 8
"""Order of the map of row counts of each catalogue (pixels of 14 arcmin)."""

COARSE_ORDERS = (4, 6)
"""Orders of further maps, for pages that need no more."""

LEAVES = "leaves.csv"
"""List of the leaves with rows, sizes and hashes, in addition to HATS's ``partition_info.csv``."""

RELEASES = "releases"
"""Folder of the releases of an input catalogue that grows."""

_LEAVES_HEADER = "order,pixel,rows,bytes,sha256"


class CatalogueError(InputError):
    """A folder that is not the catalogue it should be."""


def finalise_catalogue(
    root: UPath,
    contract: Contract,
    leaves: dict[Partition, LeafRecord],
    *,
    name: str,
    skymap: np.ndarray,
    extra: dict[str, str] | None = None,
) -> None:
    """Write the HATS metadata of a catalogue whose leaves are all there.

    Parameters
    ----------
    root : UPath
        Root of the catalogue.
    contract : Contract
        Contract of its leaves.
    leaves : dict of Partition to LeafRecord
        The leaf of each partition.
    name : str
        Name of the catalogue (``obs_collection``).
    skymap : ndarray of int64, shape (12 * 4**SKYMAP_ORDER,)
        Rows per HEALPix pixel (nested).
    extra : dict of str to str, optional
        Further properties, such as provenance.

    Raises
    ------
    AccessError
        If the temporary folder, through which hats writes the map, takes no more.
    """
    from hats.catalog.dataset.table_properties import TableProperties
    from hats.catalog.partition_info import PartitionInfo
    from hats.io.skymap import write_skymap
    from hats.pixel_math.healpix_pixel import HealpixPixel

    partitions = sky_order(leaves)
    schema = contract.schema().with_metadata(votable.header(contract))
    common = io.BytesIO()
    pq.write_metadata(schema, common)
    write_whole(root / "dataset" / "_common_metadata", common.getvalue())
    PartitionInfo.from_healpix([HealpixPixel(p.order, p.pixel) for p in partitions]).write_to_file(
        root / "partition_info.csv"
    )
    write_whole(root / LEAVES, leaves_text(leaves).encode())
    try:
        write_skymap(skymap, root, list(COARSE_ORDERS))
    except OSError as problem:
        if problem.errno is not None:
            raise
        # hats writes the map into the temporary folder first, by a library whose errors have no number.
        raise AccessError(
            f"{root}: its map cannot be written through the temporary folder {gettempdir()} ({problem}): "
            "make room there or set TMPDIR, then give the same command again"
        ) from problem
    properties = {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": sum(leaf.rows for leaf in leaves.values()),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": "_healpix_29",
        "hats_col_healpix_order": INDEX_ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_skymap_order": SKYMAP_ORDER,
        "hats_skymap_alt_orders": " ".join(map(str, COARSE_ORDERS)),
        "hats_max_rows": max((leaf.rows for leaf in leaves.values()), default=0),
        "moc_sky_fraction": sum(p.area for p in partitions) / (4 * 180**2 / np.pi),
        "hats_version": "v1.0",
        "hats_builder": f"ojala, hats v{version('hats')}",
        "hats_data_semver": contract.version,
        "obs_title": contract.title,
        "obs_description": contract.description,
        **({"hats_cols_default": " ".join(contract.default_columns)} if contract.default_columns else {}),
        **(extra or {}),
    }
    TableProperties.model_validate(properties).to_properties_file(root)


def leaves_text(leaves: Mapping[Partition, LeafRecord]) -> str:
    """List of leaves as `LEAVES` holds it, in order of the sky."""
    lines = [_LEAVES_HEADER]
    for partition in sky_order(leaves):
        leaf = leaves[partition]
        lines.append(f"{partition.order},{partition.pixel},{leaf.rows},{leaf.bytes},{leaf.sha256}")
    return "\n".join(lines) + "\n"


def read_leaves(root: UPath) -> dict[Partition, LeafRecord]:
    """The leaves of a catalogue by partition, in order of the sky.

    For a catalogue that others made, rows, sizes and hashes are found by reading its leaves.

    Raises
    ------
    CatalogueError
        If there is no finished catalogue at `root`, or its leaves are not one Parquet file each.
    """
    if not any((root / name).exists() for name in PROPERTIES):
        if (root / COLLECTION).exists():
            raise CatalogueError(f"{root} is a HATS collection: name the catalogue in it ({_primary(root)})")
        raise CatalogueError(
            f"{root} is no HATS catalogue: it has no hats.properties (`ojala ingest` makes one)"
        )
    listing = root / LEAVES
    if not listing.exists():
        return _foreign_leaves(root)
    header, *lines = listing.read_text().splitlines()
    if header != _LEAVES_HEADER:
        raise CatalogueError(f"{listing}: expected the header {_LEAVES_HEADER!r}, found {header!r}")
    leaves = {}
    for line in lines:
        try:
            order, pixel, rows, size, sha256 = line.split(",")
            partition = Partition.parse(f"{order}/{pixel}")
            leaves[partition] = LeafRecord(partition.leaf, int(rows), int(size), sha256)
        except ValueError as problem:
            raise CatalogueError(f"{listing}: {line!r} is no leaf: {problem}") from problem
    return leaves


def current_release(root: UPath) -> UPath:
    """The catalogue that a folder stands for: its current release where it holds `RELEASES`, else itself."""
    if not (root / COLLECTION).exists():
        return root
    reference = read_properties(root / COLLECTION, PRIMARY)[PRIMARY]
    release = UPath(reference) if "://" in reference else root / reference
    return release if release.parent == root / RELEASES else root


def survey_of(catalogue: UPath) -> UPath:
    """The folder of which a catalogue is a release; a catalogue of its own is its own folder."""
    holds = catalogue.parent.name == RELEASES and (catalogue.parent.parent / COLLECTION).exists()
    return catalogue.parent.parent if holds else catalogue


def _primary(collection: UPath) -> str:
    return str(collection / read_properties(collection / COLLECTION).get(PRIMARY, "its primary table"))


def _foreign_leaves(root: UPath) -> dict[Partition, LeafRecord]:
    from hats.catalog.dataset.table_properties import TableProperties
    from hats.catalog.partition_info import PartitionInfo

    try:
        suffix = TableProperties.read_from_dir(root).npix_suffix
        pixels = PartitionInfo.read_from_dir(root).get_healpix_pixels()
    except (OSError, ValueError, KeyError, pa.ArrowException) as problem:
        raise CatalogueError(f"{root}: its HATS metadata cannot be read: {problem}") from problem
    if suffix != ".parquet":
        raise CatalogueError(
            f"{root}: its leaves are not files Npix=*.parquet (hats_npix_suffix is {suffix!r}), which is the "
            "only form read here; write it again with LSDB, or ingest its files with `ojala ingest`"
        )
    partitions = sky_order(Partition(pixel.order, pixel.pixel) for pixel in pixels)
    return {p: _read_record(root, p) for p in partitions}


def _read_record(root: UPath, partition: Partition) -> LeafRecord:
    path = root / partition.leaf
    try:
        with path.open("rb") as file:
            rows = int(pq.read_metadata(file).num_rows)
        return LeafRecord(partition.leaf, rows, int(path.stat().st_size), sha256_of(path))
    except (FileNotFoundError, pa.ArrowException) as problem:
        raise CatalogueError(
            f"{path}, a leaf that the catalogue lists, cannot be read: {problem}; get the catalogue again"
        ) from problem


@contextmanager
def open_leaf(root: UPath, partition: Partition) -> Iterator[pq.ParquetFile]:
    """Open the leaf of a partition of a catalogue.

    Raises
    ------
    CatalogueError
        If it is missing or damaged, at opening or in the block.
    """
    path = root / partition.leaf
    try:
        with path.open("rb") as raw, pq.ParquetFile(raw) as file:
            yield file
    except (FileNotFoundError, pa.ArrowException) as problem:
        text = f"{path} cannot be read: {problem}; find all damage with `ojala verify`"
        raise CatalogueError(text) from problem


def rows_of(leaf: UPath, object_id: np.ndarray, columns: Collection[str] | None = None) -> pa.Table | None:
    """Rows of these objects in a leaf, in its order; None where it has none of them.

    Of ``columns`` (all, where None) those that the leaf has are read.
    """
    with leaf.open("rb") as file:
        parquet = pq.ParquetFile(file)
        hit = np.isin(parquet.read(columns=["object_id"])["object_id"].to_numpy(), object_id)
        if not hit.any():
            return None
        names = parquet.schema_arrow.names if columns is None else columns
        there = [name for name in names if name in parquet.schema_arrow.names]
        return parquet.read(columns=there).filter(pa.array(hit))


def read_objects(root: UPath, object_id: np.ndarray) -> pa.Table:
    """Rows of these objects in a catalogue, in its order, with all columns; without any where it has none."""
    parts = [rows_of(root / partition.leaf, object_id) for partition in read_leaves(root)]
    there = [part for part in parts if part is not None]
    return pa.concat_tables(there) if there else read_schema(root).empty_table()


def read_counts(root: UPath) -> np.ndarray:
    """Rows per HEALPix pixel of order SKYMAP_ORDER of a catalogue, shape (12 * 4**SKYMAP_ORDER,).

    Where a catalogue that others made has no sky map, or a coarser one, the rows are counted.
    """
    from hats.io.skymap import read_skymap
    from hats.loaders.read_hats import read_hats

    try:
        return np.asarray(read_skymap(read_hats(root), SKYMAP_ORDER), dtype=np.int64)
    except (OSError, ValueError):
        if (root / LEAVES).exists():
            raise
    counts = np.zeros(12 * 4**SKYMAP_ORDER, dtype=np.int64)
    for partition in read_leaves(root):
        with (root / partition.leaf).open("rb") as file:
            index = pq.ParquetFile(file).read(columns=["_healpix_29"])["_healpix_29"].to_numpy()
        counts += np.bincount(pixel_at(index, SKYMAP_ORDER), minlength=len(counts))
    return counts


def check_foreign(root: UPath, contract: Contract, names: Collection[str] | None = None) -> None:
    """Check from its metadata that a catalogue that others made can be read as one of a contract.

    Columns that may be null may also be missing: `ojala.pipeline.storage.parquet.conform` fills them.

    Parameters
    ----------
    root : UPath
        Root of the catalogue; one of this program is not looked at.
    contract : Contract
        The contract.
    names : collection of str, optional
        Columns that are read; default: all.

    Raises
    ------
    CatalogueError
        If a column is missing, or has another type or unit; names all of them.
    """
    if (root / LEAVES).exists():
        return
    from ojala.pipeline.storage.units import schema_units

    schema = read_schema(root)
    try:
        units = schema_units(schema)
    except ValueError as problem:
        raise CatalogueError(f"{root}: {problem}") from problem
    faults = []
    for column in contract:
        if names is not None and column.name not in names:
            continue
        if column.name not in schema.names:
            if not column.nullable:
                faults.append(f"{column.name} is missing")
            continue
        kind = schema.field(column.name).type
        if not pa.types.is_dictionary(kind) and _kind(kind) != _kind(column.type):
            faults.append(f"{column.name} holds {kind}, expected {column.type}")
        elif not _is_unit(units.get(column.name, ""), column.unit):
            faults.append(f"{column.name} has the unit {units[column.name]!r}, expected {column.unit!r}")
    if faults:
        raise CatalogueError(
            f"{root} is no catalogue of {contract.name}: column {'; column '.join(faults)}. Make one from "
            "its files with `ojala ingest`"
        )


def _kind(kind: pa.DataType) -> str:
    """Numbers, text, truth values or lists, whatever their width."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return "list"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else str(kind)


def _is_unit(stated: str, wanted: str) -> bool:
    from ojala.pipeline.storage.units import scale_between

    try:
        return scale_between(stated, wanted) == 1.0
    except ValueError:
        return False


def catalogue_name(root: UPath) -> str:
    """The name under which a catalogue was finalised."""
    path = next((root / name for name in PROPERTIES if (root / name).exists()), root / PROPERTIES[0])
    return read_properties(path, NAME)[NAME]


def read_schema(root: UPath) -> pa.Schema:
    """Columns of a catalogue, from its common metadata or else from its first leaf.

    Raises
    ------
    CatalogueError
        If neither can be read.
    """
    path = root / "dataset" / "_common_metadata"
    try:
        if not path.exists():
            path = root / next(iter(read_leaves(root))).leaf
        with path.open("rb") as file:
            return pq.read_schema(file)
    except (OSError, pa.ArrowException, StopIteration) as problem:
        raise CatalogueError(f"{root}: its columns cannot be read from {path}: {problem}") from problem


def read_names(root: UPath) -> set[str]:
    """Names of a catalogue's columns."""
    return set(read_schema(root).names)


def write_collection(
    out: UPath,
    photometry: UPath,
    products: Mapping[str, UPath],
    *,
    name: str,
    label: str = "",
    margin: str | None = None,
    index: str | None = None,
    keep: Mapping[str, str] = {},
    facts: Mapping[str, str] = {},
) -> None:
    """Point a collection at a photometry catalogue and at the products made from it.

    Each product becomes an extension: ``lsdb.open_catalog(out).load_extension("ojala")``. A file that
    describes it is written for each run, ``ojala-RUN.properties``, and stays; ``collection.properties``,
    which names those files, is replaced last and in one step. So a reader finds all of one release, or all
    of the next.

    Parameters
    ----------
    out : UPath
        Root of the collection.
    photometry : UPath
        Root of the photometry catalogue.
    products : mapping of str to UPath
        Root of each product's catalogue, or of its collection with a margin cache, by the extension's name.
    name : str
        Name of the collection.
    label : str
        Word in the names of the extensions' files; default: the name of the folder that a product is in.
    margin, index : str, optional
        Paths of the margin cache of the photometry, and of its index of ``object_id``, in the collection.
    keep : mapping of str to str
        Extensions that stay as they are, with their files.
    facts : mapping of str to str
        Further properties of the products' extensions, such as the name of the release.
    """
    from hats.catalog.dataset.collection_properties import CollectionProperties
    from hats.catalog.dataset.extension_properties import ExtensionProperties

    files = dict(keep)
    for product, root in products.items():
        extension = {
            "obs_collection": product,
            "dataproduct_type": "extension",
            PRIMARY: name,
            "hats_col_assn_primary": "object_id",
            JOINED: reference(out, root),
            "hats_col_assn_join": "object_id",
            "hats_ext_join_style": "left",
            "hats_ext_shares_primary_coords": True,
            **facts,
        }
        files[product] = f"{product}-{label or root.parent.name}.properties"
        store_properties(
            ExtensionProperties.model_validate(extension), out / files[product], "HATS Extension"
        )
    collection: dict[str, object] = {
        "obs_collection": name,
        PRIMARY: reference(out, photometry),
        "all_extensions": dict(sorted(files.items())),
    }
    if margin is not None:
        collection |= {"all_margins": margin, "default_margin": margin}
    if index is not None:
        collection |= {"all_indexes": {"object_id": index}, "default_index": "object_id"}
    store_properties(CollectionProperties.model_validate(collection), out / COLLECTION, "HATS Collection")


def reference(out: UPath, root: UPath) -> str:
    """How a collection names a catalogue: relative where both are local, so that both can be moved."""
    if out.protocol in ("", "file", "local") and root.protocol == out.protocol:
        return os.path.relpath(root.absolute().path, out.absolute().path)
    return str(root)


def store_properties(properties: HatsProperties, path: UPath, comment: str) -> None:
    """Write the properties of a collection or an extension in one step, with a first line that says so."""
    # HATS writes its properties in place; a reader must never see half of them.
    draft = UPath(f"memory:///{secrets.token_hex(8)}")
    properties.to_properties_file_path(draft, initial_comments=comment)
    write_whole(path, draft.read_bytes())
    draft.unlink()
