"""Rows of a release with all that is known of each object, joined over its catalogues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.cutouts import CUTOUTS
from ojala.catalogs_schema.spectra import ARRAYS
from ojala.pipeline.inference.cutouts import has_cutout, joined_images
from ojala.pipeline.inference.join import KEY, join_auxiliary
from ojala.pipeline.report.atlas.page import binned_spectrum
from ojala.pipeline.report.atlas.rows import CUTOUT_COLUMNS, read_keyed
from ojala.pipeline.report.atlas.thumbnails import jpeg, picture
from ojala.pipeline.runs.published import Product, Release
from ojala.pipeline.storage.healpix import Partition

KEYS = ("_healpix_29", KEY, "ra", "dec")
"""Key and position, which every catalogue has; an object has them once, without a prefix."""

BATCH = 25_000
"""Rows read at a time."""

BATCH_LISTS = 512
"""Rows read at a time of catalogues with spectra or cut-outs, some 100 MB."""

PICTURE = "picture"
"""Column of the cut-out as a JPEG file."""

SPECTRUM, SPECTRUM_ENDS = "spectrum", ("spectrum_first", "spectrum_last")
"""Column of the flux density in equal bins, and those of the wavelengths of their ends [Angstrom]."""


def kept_columns(product: Product, source: Contract) -> list[str]:
    """Columns of a catalogue in an object's record, without keys, spectra, embeddings and repetitions."""
    contract = product.contract
    left_out = {*KEYS, *(ARRAYS if "wavelength" in contract.names else ())}
    if contract is not source:
        left_out |= {column.name for column in contract if column in source.columns}
    return [
        column.name
        for column in contract
        if column.name not in left_out and not pa.types.is_fixed_size_list(column.type)
    ]


def read_records(
    release: Release, partition: Partition, products: Sequence[Product], cutouts: UPath | None
) -> Iterator[pa.Table]:
    """Records of the objects of a partition, in its order, some at a time.

    Parameters
    ----------
    release : Release
        The release.
    partition : Partition
        Partition of its input.
    products : sequence of Product
        Products whose columns are joined; a partition that one lacks has nulls there.
    cutouts : UPath or None
        Catalogue of cut-outs of the same objects.

    Yields
    ------
    pyarrow.Table
        `KEYS`, the columns of each catalogue as ``product.column``, and `PICTURE` and `SPECTRUM` where there
        are cut-outs and spectra; half precision is single.
    """
    source = release.source
    spectra = "wavelength" in source.contract.names
    size = BATCH_LISTS if spectra or cutouts is not None else BATCH
    with (source.root / partition.leaf).open("rb") as raw, pq.ParquetFile(raw) as file:
        there = set(file.schema_arrow.names)
        names = [name for name in (*KEYS, *kept_columns(source, source.contract)) if name in there]
        arrays = [name for name in ("wavelength", "flux", "ivar") if spectra]
        for batch in file.iter_batches(size, columns=[*names, *arrays]):
            read = pa.Table.from_batches([batch])
            own = [name for name in names if name not in KEYS]
            rows = read.select(KEYS)
            for name in own:
                rows = rows.append_column(f"{source.name}.{name}", read[name])
            for product in products:
                rows = _join(rows, product, source.contract, partition)
            if spectra:
                rows = _with_spectra(rows, read)
            if cutouts is not None and (cutouts / partition.leaf).exists():
                rows = _with_pictures(rows, cutouts, partition)
            yield _single_precision(rows)


def _join(rows: pa.Table, product: Product, source: Contract, partition: Partition) -> pa.Table:
    """Rows with the columns of a product; those that its leaf lacks are null, older names are read."""
    path, names = product.root / partition.leaf, kept_columns(product, source)
    stored: dict[str, str] = {}
    if path.exists():
        with path.open("rb") as raw, pq.ParquetFile(raw) as file:
            there = set(file.schema_arrow.names)
        common = {theirs: ours for ours, theirs in product.contract.column_names.items()}
        found = {name: name if name in there else common.get(name, name) for name in names}
        stored = {name: other for name, other in found.items() if other in there}
        read = read_keyed(path, [KEY, *stored.values()], rows[KEY].combine_chunks())
        rows = join_auxiliary(rows, read.rename_columns([KEY, *stored]), product.name)
        rows = rows.drop_columns([f"{product.name}.{KEY}"])
    for name in names:
        if name not in stored:
            nothing = pa.nulls(rows.num_rows, product.contract[name].type)
            rows = rows.append_column(f"{product.name}.{name}", nothing)
    return rows


def _with_spectra(rows: pa.Table, read: pa.Table) -> pa.Table:
    fluxes: list[np.ndarray | None] = []
    ends = np.full((2, rows.num_rows), np.nan)
    arrays = (read[name] for name in ("wavelength", "flux", "ivar"))
    for i, spectrum in enumerate(zip(*arrays, strict=True)):
        wavelength, flux, ivar = (np.asarray(array.values.to_numpy(), float) for array in spectrum)
        used = ivar > 0.0
        if used.sum() < 2:
            fluxes.append(None)
            continue
        binned, *ends[:, i] = binned_spectrum(wavelength[used], flux[used], ivar[used])
        fluxes.append(binned.astype(np.float32))
    rows = rows.append_column(SPECTRUM, pa.array(fluxes, pa.list_(pa.float32())))
    for name, values in zip(SPECTRUM_ENDS, ends, strict=True):
        rows = rows.append_column(name, pa.array(values.astype(np.float32), from_pandas=True))
    return rows


def _with_pictures(rows: pa.Table, cutouts: UPath, partition: Partition) -> pa.Table:
    keys = rows.select([KEY])
    images = join_auxiliary(
        keys, read_keyed(cutouts / partition.leaf, CUTOUT_COLUMNS, keys[KEY].combine_chunks()), CUTOUTS.name
    )
    planes, there = joined_images(images), has_cutout(images)
    measured = there & (planes.ivar > 0.0).any(axis=(1, 2, 3))
    made = [jpeg(picture(*planes.flux[i])) if measured[i] else None for i in range(rows.num_rows)]
    return rows.append_column(PICTURE, pa.array(made, pa.binary()))


def _single_precision(rows: pa.Table) -> pa.Table:
    """Half-precision numbers and lists of them in single precision, which more readers know."""
    for i, field in enumerate(rows.schema):
        if field.type == pa.float16():
            rows = rows.set_column(i, field.name, rows[i].cast(pa.float32()))
        elif field.type == pa.list_(pa.float16()):
            rows = rows.set_column(i, field.name, rows[i].cast(pa.list_(pa.float32())))
    return rows
