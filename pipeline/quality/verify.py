"""Verify a catalogue on disk: checksums, contract and numbers of rows."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.cutouts import CUTOUTS
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.catalogs_schema.spectra import SPECTRA
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.release.manifest import PROVENANCE, RELEASE, read_manifest
from ojala.pipeline.runs.provenance import CHECKSUMS, read_checksums
from ojala.pipeline.runs.published_paths import MANIFEST, read_published
from ojala.pipeline.runs.receipts import all_receipts
from ojala.pipeline.runs.record import ENDED, RECORD, RecordError, RunRecord, read_record, run_folder
from ojala.pipeline.runs.releases import pointers
from ojala.pipeline.runs.supplemental import run_of, supplemental_faults
from ojala.pipeline.storage.files import sha256_of
from ojala.pipeline.storage.hats import LEAVES, CatalogueError, read_leaves
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.progress import counted
from ojala.pipeline.storage.properties import (
    COLLECTION,
    INDEXES,
    JOINED,
    MARGINS,
    PRIMARY,
    read_extensions,
    read_properties,
)

_INGESTED = {contract.title: contract for contract in (PHOTOMETRY, SPECTRA, CUTOUTS)}


@dataclass(frozen=True, slots=True)
class Damage:
    """Damage of a file.

    Attributes
    ----------
    file : str
        The file at fault.
    problem : str
        Fault in one sentence.
    """

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


def verify(root: UPath) -> Iterator[Damage]:
    """Check a collection, an exported release, a run or a catalogue; yields what is damaged, file by file.

    Parameters
    ----------
    root : UPath
        A collection (an input and its published products), the folder of a run, or an input catalogue of
        photometry, spectra or cut-outs.

    Raises
    ------
    CatalogueError
        If `root` is none of these.
    """
    if (root / RELEASE).exists():
        yield from _exported(root)
    elif (root / "collection.properties").exists():
        yield from _collection(root)
    elif (root / RECORD).exists():
        yield from _run(root, source=None)
    elif (root / "hats.properties").exists():
        yield from _input(root)
    else:
        raise CatalogueError(
            f"{root} is neither a collection, a run nor a catalogue: it has no collection.properties, no "
            f"{RECORD} and no hats.properties"
        )


def _collection(root: UPath) -> Iterator[Damage]:
    properties = read_properties(root / COLLECTION, PRIMARY)
    source = _resolve(root, properties[PRIMARY])
    if not (source / "hats.properties").exists():
        yield Damage(str(root / COLLECTION), f"there is no catalogue at {source}, its primary table")
        return
    yield from _input(source)
    for path in [*properties.get(MARGINS, "").split(), *properties.get(INDEXES, "").split()[1::2]]:
        if not (root / path / "hats.properties").exists():
            yield Damage(str(root / path), "missing: publish the run again, or make a new one")
    runs: list[UPath] = []
    for name in read_extensions(root / COLLECTION).values():
        if not (root / name).exists():
            yield Damage(str(root / name), "missing")
            continue
        catalogue = read_properties(root / name, JOINED)[JOINED]
        run = run_folder(root, run_of(catalogue))
        if run not in runs:
            runs.append(run)
    for run in runs:
        yield from _run(run, source)
    named = {product: f"runs/{run_id}/{product}" for product, run_id in pointers(root).items()}
    if (root / MANIFEST).exists() and read_published(root) != named:
        text = "does not name the published leaves: publish the run again"
        yield Damage(str(root / MANIFEST), text)


def _exported(root: UPath) -> Iterator[Damage]:
    """Check an exported release: all of its files, and its products against its input where that is there."""
    manifest = read_manifest(root)
    if not (root / COLLECTION).exists():
        yield Damage(str(root / COLLECTION), "missing: the export did not end; export the release again")
    damaged: set[str] = set()
    yield from _checksums(root, damaged)
    if manifest.included:
        yield from _input(root / manifest.source)
    for name, product in manifest.products.items():
        catalogue = root / product.catalogue
        record = read_record(root / PROVENANCE / product.run_id)
        home = catalogue.parent
        known = {path.removeprefix(f"{home.name}/") for path in damaged}
        source = root / manifest.source if manifest.included else catalogue
        yield from _product(home, name, record.contract(name), source, known, record.failed.keys())


def _checksums(root: UPath, damaged: set[str]) -> Generator[Damage, None, bool]:
    """Check all files that have a checksum, and return whether the list of them could be read.

    The paths of files that differ are added to `damaged`.
    """
    if not (root / CHECKSUMS).exists():
        yield Damage(str(root / CHECKSUMS), "missing")
        return False
    try:
        sums = read_checksums(root)
    except ValueError as problem:
        yield Damage(str(root / CHECKSUMS), str(problem))
        return False
    for name, sha256 in counted(sums.items(), "checksums compared"):
        path = root / name
        if not path.exists():
            damaged.add(name)
            yield Damage(str(path), "missing")
        elif sha256_of(path) != sha256:
            damaged.add(name)
            yield Damage(str(path), f"SHA-256 differs from {CHECKSUMS}")
    return True


def _resolve(root: UPath, reference: str) -> UPath:
    path = UPath(reference)
    return path if path.is_absolute() else (root / reference).resolve()


def _input(root: UPath) -> Iterator[Damage]:
    """Check an input catalogue, of the kind in its properties, else of photometry."""
    contract = _INGESTED.get(read_properties(root / "hats.properties").get("obs_title", ""), PHOTOMETRY)
    listed = (root / LEAVES).exists()
    for partition, leaf in counted(read_leaves(root).items(), "partitions checked"):
        path = root / partition.leaf
        if not path.exists():
            yield Damage(str(path), "missing")
        elif listed and sha256_of(path) != leaf.sha256:
            yield Damage(str(path), f"SHA-256 differs from {LEAVES}")
        else:
            yield from _leaf(path, contract, leaf.rows)
    if not _is_hats(root):
        yield Damage(str(root), "not a valid HATS catalogue")


def _run(run: UPath, source: UPath | None) -> Iterator[Damage]:
    record_path = run / RECORD
    if not record_path.exists():
        yield Damage(str(record_path), "missing")
        return
    try:
        record = read_record(run)
    except RecordError as problem:
        yield Damage(str(record_path), str(problem))
        return
    if record.status not in ENDED:
        yield Damage(str(record_path), f"run {record.run_id} is {record.status}, not complete")
        return
    damaged: set[str] = set()
    if not (yield from _checksums(run, damaged)):
        return
    source = source if source is not None else UPath(record.source)
    yield from _receipts(run, record, source)
    for product in (name for name in ADAPTERS.products() if (run / name).exists()):
        if record.products and product not in record.products:
            yield Damage(str(run / product), "not a product of this run")
            continue
        yield from _product(run, product, record.contract(product), source, damaged, record.failed.keys())
    for path, fault in supplemental_faults(run, record, source):
        yield Damage(str(path), fault)


def _receipts(run: UPath, record: RunRecord, source: UPath) -> Iterator[Damage]:
    """Compare the input of each partition, by its receipt, with the listing of the catalogue.

    In a run over a region, partitions outside of it may be made from an earlier input.
    """
    try:
        roots = [source, *([UPath(record.auxiliary)] if record.auxiliary else [])]
        listings = [read_leaves(root) for root in roots]
    except (CatalogueError, OSError) as problem:
        yield Damage(str(source), str(problem))
        return
    for receipt in all_receipts(run):
        if receipt.status != "done" or (record.region is not None and receipt.run_id != record.run_id):
            continue
        partition = Partition.parse(receipt.partition)
        present = " ".join(leaves[partition].sha256 for leaves in listings if partition in leaves)
        if present and present != receipt.ingredients.input_sha256:
            text = f"not the input that run {record.run_id} was made from: run it again"
            yield Damage(str(source / partition.leaf), text)


def _product(
    run: UPath,
    product: str,
    contract: Contract,
    source: UPath,
    damaged: set[str],
    missing: Collection[str],
) -> Iterator[Damage]:
    """Check contract and rows of each leaf: the objects of the input in the order of the input.

    Partitions that are missing by the record of a partial release need not be there.
    """
    root = run / product
    try:
        leaves, expected = read_leaves(root), read_leaves(source)
    except (CatalogueError, OSError) as problem:
        yield Damage(str(root), str(problem))
        return
    for partition in [p for p in expected if p not in leaves and p.name not in missing]:
        yield Damage(str(root / partition.leaf), "missing: the input has this partition")
    for partition in [p for p in leaves if p not in expected]:
        yield Damage(str(root / partition.leaf), "the input has no such partition")
    for partition in counted([p for p in leaves if p in expected], f"partitions of {product} checked"):
        path = root / partition.leaf
        if f"{product}/{partition.leaf}" in damaged:
            continue
        faults = list(_leaf(path, contract, expected[partition].rows))
        yield from faults
        if faults:
            continue
        try:
            same = _keys(path) == _keys(source / partition.leaf)
        except (OSError, pa.ArrowException) as problem:
            yield Damage(str(source / partition.leaf), f"cannot be read: {problem}")
            continue
        if not same:
            yield Damage(str(path), "its objects are not those of the input's partition")
    if not _is_hats(root):
        yield Damage(str(root), "not a valid HATS catalogue")


def _leaf(path: UPath, contract: Contract, rows: int) -> Iterator[Damage]:
    """Row count and contract of a leaf; of another version of the contract, the row count alone."""
    try:
        with path.open("rb") as file:
            leaf = pq.ParquetFile(file)
            table = leaf.read()
    except (OSError, pa.ArrowException) as problem:
        yield Damage(str(path), f"cannot be read: {problem}")
        return
    if table.num_rows != rows:
        yield Damage(str(path), f"{table.num_rows} rows, expected {rows}")
    if _contract_version(leaf, contract) == contract.version:
        for violation in contract.violations(table):
            yield Damage(str(path), str(violation))


def _contract_version(leaf: pq.ParquetFile, contract: Contract) -> str:
    """Version of the contract that a leaf was written to, by its VOTable header; else the present one."""
    header = (leaf.metadata.metadata or {}).get(b"IVOA.VOTable-Parquet.content", b"").decode()
    for info in re.findall(r"<INFO\b[^>]*>", header):
        if 'name="contract_version"' in info and (value := re.search(r'value="([^"]*)"', info)):
            return value[1]
    return contract.version


def _is_hats(root: UPath) -> bool:
    """Whether HATS itself finds the catalogue valid, without warnings of a missing optional ``_metadata``."""
    from hats.io.validation import is_valid_catalog  # with pandas and numba, more than a second

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        return bool(is_valid_catalog(root, strict=True))
    finally:
        logging.disable(before)


def _keys(path: UPath) -> pa.ChunkedArray:
    with path.open("rb") as file:
        return pq.ParquetFile(file).read(columns=["object_id"])["object_id"]
