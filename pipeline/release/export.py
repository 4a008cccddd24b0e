"""Self-contained copy of a release: a HATS collection with its input, margins, index and citation.

The layout is that of ``hats_import.extension``: the input is the primary catalogue, with a margin cache and
an index, and each product is an extension in a collection of its own, with its margin cache::

    TARGET/
    |-- collection.properties
    |-- photometry/  photometry_10arcsec/  object_id_index/
    |-- ojala.properties
    |-- ojala/  collection.properties  ojala/  ojala_10arcsec/
    |-- clean_galaxies/  clean_stars/  clean_qsos/
    |-- provenance/RUN/
    |-- release.json  checksums.sha256  CITATION.cff  datacite.json  README.md
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from hats.catalog.dataset.collection_properties import CollectionProperties
from hats.catalog.dataset.extension_properties import ExtensionProperties
from upath import UPath

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.ojala import OJALA
from ojala.pipeline.inference.products.table import KEYS
from ojala.pipeline.release.citation import citation_files
from ojala.pipeline.release.manifest import PROVENANCE, RELEASE, ReleasedProduct, ReleaseManifest
from ojala.pipeline.release.samples import write_samples
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.provenance import CHECKSUMS, checksums_text
from ojala.pipeline.runs.record import RunRecord, read_record, run_folder
from ojala.pipeline.runs.releases import ReleaseError, names_of, pointers, read_history
from ojala.pipeline.runs.supplemental import (
    INDEX,
    data_sums,
    index_faults,
    input_index,
    input_margin,
    margin_faults,
    product_margin,
)
from ojala.pipeline.storage.drafts import draft
from ojala.pipeline.storage.files import READERS, is_local, list_files, sha256_of, utc_now, write_whole
from ojala.pipeline.storage.hats import read_leaves
from ojala.pipeline.storage.margins import MARGINS, margin_name, write_margins
from ojala.pipeline.storage.object_index import KEY, PARTS, write_object_index
from ojala.pipeline.storage.progress import counted, report
from ojala.pipeline.storage.properties import COLLECTION
from ojala.pipeline.storage.statistics import STATISTICS, write_statistics


@dataclass(frozen=True, slots=True)
class ExportedRelease:
    """What was written.

    Attributes
    ----------
    name : str
        Name of the release.
    products : tuple of str
        Products in it.
    rows : int
        Rows of the input.
    files, bytes : int
        Number and size of all files.
    """

    name: str
    products: tuple[str, ...]
    rows: int
    files: int
    bytes: int


def export_release(out: UPath, to: UPath, *, source_url: str | None = None) -> ExportedRelease:
    """Write what a collection publishes as a collection that refers to nothing outside of it.

    Every file is read and hashed as it is copied, and compared with the listing of its catalogue. On a disk
    the folder appears whole, at the end; on an object store ``collection.properties`` comes last.

    Parameters
    ----------
    out : UPath
        Root of the collection.
    to : UPath
        Folder to write, which must not be there or be empty.
    source_url : str, optional
        Public address of the input catalogue, which the copy then refers to in place of a copy of it.

    Raises
    ------
    ReleaseError
        If nothing is published, or the target is not empty.
    CatalogueError
        If a catalogue is missing or damaged.
    """
    published = pointers(out)
    if not published:
        raise ReleaseError(f"{out} has no published run: `ojala publish RUN --out {out}` publishes one")
    if list_files(to):
        raise ReleaseError(f"{to} is not empty: name a new folder, or empty it")
    records = {run_id: read_record(run_folder(out, run_id)) for run_id in dict.fromkeys(published.values())}
    main = next(iter(records.values()))
    source = UPath(main.source)
    if len({record.source for record in records.values()}) > 1:
        raise ReleaseError(
            f"{out} publishes products of several inputs: "
            + "; ".join(f"{record.main} of {record.source}" for record in records.values())
            + ". Run the older ones again over the newest input, so that their rows are the same"
        )
    names = names_of(read_history(out))
    contracts = {product: records[run].contract(product) for product, run in published.items()}
    with _whole_folder(to) as root:
        copy = _Copy(root, source, main.adapter.reads.name, source_url)
        if source_url is None:
            copy.source(run_folder(out, main.run_id))
        products = {
            product: copy.product(run_folder(out, run_id), contracts[product], records[run_id])
            for product, run_id in sorted(published.items())
        }
        samples = dict[str, int]()
        if OJALA.name in products:
            report("selecting the clean samples")
            run_id = published[OJALA.name]
            samples = write_samples(run_folder(out, run_id) / OJALA.name, source, contracts[OJALA.name], root)
        for run_id in records:
            report(f"copying the provenance of {run_id}")
            copy.provenance(run_folder(out, run_id))
        manifest = ReleaseManifest(
            name=" ".join(dict.fromkeys(names.get(run_id, run_id) for run_id in published.values())),
            made=utc_now(),
            reads=main.adapter.reads.name,
            source=source_url or copy.source_name,
            included=source_url is None,
            products=products,
            samples=samples,
        )
        copy.finish(manifest, RunConfig.from_record(main.config), contracts)
    sizes = [file.bytes for file in list_files(to).values()]
    return ExportedRelease(manifest.name, tuple(products), main.rows_in, len(sizes), sum(sizes))


@contextmanager
def _whole_folder(to: UPath) -> Iterator[UPath]:
    """Folder to write into, which takes its name at the end of the block; nothing stays after an error."""
    if not is_local(to):
        try:
            yield to
        except BaseException:  # nothing half-written stays; raised again
            with suppress(OSError):
                to.fs.rm(to.path, recursive=True)
            raise
        return
    with draft(Path(to.path)) as path:
        path.mkdir()
        yield UPath(path)


class _Copy:
    """A release that is being written.

    Attributes
    ----------
    source_name : str
        Folder of the input catalogue.
    """

    def __init__(self, root: UPath, source: UPath, source_name: str, source_url: str | None) -> None:
        self._root, self._source, self._source_url = root, source, source_url
        self.source_name = source_name

    def source(self, run: UPath) -> None:
        """Copy the input catalogue with the margin cache and the index of a run, or make these."""
        name, to = self.source_name, self._root / self.source_name
        report(f"copying {name}")
        _copy_catalogue(self._source, to)
        if not (to / STATISTICS).exists():
            write_statistics(to, read_leaves(to))
        _copy_margins(input_margin(run, name), self._source, self._root / margin_name(name), name)
        made, index = input_index(run), self._root / INDEX
        if (made / PARTS).exists() and not list(index_faults(made, self._source)):
            _copy_files(made, index, list(list_files(made)), data_sums(made))
        else:
            report("making the index of object_id")
            write_object_index(to, index, read_leaves(to), name=INDEX, primary=name)

    def product(self, run: UPath, contract: Contract, record: RunRecord) -> ReleasedProduct:
        """Copy a product of a run into a collection of its own, and name it as an extension."""
        product = contract.name
        report(f"copying {product}")
        home = self._root / product
        to = home / product
        _copy_catalogue(run / product, to)
        leaves = read_leaves(to)
        if not (to / STATISTICS).exists():
            write_statistics(to, leaves)
        _copy_margins(product_margin(run, product), run / product, home / margin_name(product), product)
        words = _words(record)
        _collection(home, product, product, words)
        extension = {
            "obs_collection": product,
            "dataproduct_type": "extension",
            "hats_primary_table_url": self._source_url or self.source_name,
            "hats_col_assn_primary": KEY,
            "hats_assn_join_table_url": product,
            "hats_col_assn_join": KEY,
            "hats_ext_cols": " ".join(name for name in contract.names if name not in KEYS),
            "hats_ext_join_style": "left",
            "hats_ext_shares_primary_coords": True,
            "hats_product_type_served": contract.title,
            **words,
        }
        path = self._root / f"{product}.properties"
        ExtensionProperties.model_validate(extension).to_properties_file_path(
            path, initial_comments="HATS Extension"
        )
        return ReleasedProduct(
            run_id=record.run_id,
            contract=contract.version,
            catalogue=f"{product}/{product}",
            rows=sum(leaf.rows for leaf in leaves.values()),
        )

    def provenance(self, run: UPath) -> None:
        """Copy all files of a run but its catalogues, and their checksums."""
        names = [name for name in list_files(run) if "/dataset/" not in name]
        catalogues = {name.partition("/")[0] for name in names if name.endswith("/hats.properties")}
        kept = [name for name in names if name.partition("/")[0] not in catalogues and name != CHECKSUMS]
        _copy_files(run, self._root / PROVENANCE / run.name, kept, {})

    def finish(self, manifest: ReleaseManifest, config: RunConfig, contracts: Mapping[str, Contract]) -> None:
        """Write citation, manifest, checksums and, last, the file that makes the folder a collection."""
        about = config.publication
        report("writing citation and checksums")
        for name, content in citation_files(manifest, about, contracts, version("ojala")).items():
            write_whole(self._root / name, content)
        write_whole(self._root / RELEASE, manifest.model_dump_json(indent=1).encode())
        words = {"obs_title": about.title, "collection_version": manifest.name, **about.words()}
        extensions = {product: f"{product}.properties" for product in manifest.products}
        words = {name: text for name, text in words.items() if text}
        written = self._root / f".{COLLECTION}"
        _collection(
            self._root,
            self.source_name,
            self._source_url or self.source_name,
            words,
            margin=self._source_url is None,
            index=self._source_url is None,
            extensions=extensions,
            to=written,
        )
        content = written.read_bytes()
        written.unlink()
        names = counted(list_files(self._root), "checksums made")
        sums = {name: sha256_of(self._root / name) for name in names}
        sums[COLLECTION] = hashlib.sha256(content).hexdigest()
        write_whole(self._root / CHECKSUMS, checksums_text(sums).encode())
        write_whole(self._root / COLLECTION, content)


def _words(record: RunRecord) -> dict[str, str]:
    return RunConfig.from_record(record.config).publication.words()


def _collection(
    root: UPath,
    name: str,
    primary: str,
    words: Mapping[str, str],
    *,
    margin: bool = True,
    index: bool = False,
    extensions: Mapping[str, str] = {},
    to: UPath | None = None,
) -> None:
    properties: dict[str, object] = {"obs_collection": name, "hats_primary_table_url": primary, **words}
    if margin:
        properties |= {"all_margins": margin_name(name), "default_margin": margin_name(name)}
    if index:
        properties |= {"all_indexes": {KEY: INDEX}, "default_index": KEY}
    if extensions:
        properties["all_extensions"] = dict(extensions)
    made = CollectionProperties.model_validate(properties)
    made.to_properties_file_path(to or root / COLLECTION, initial_comments="HATS Collection")


def _copy_catalogue(catalogue: UPath, to: UPath) -> None:
    """Copy a catalogue whose leaves are those of its listing."""
    wanted = {partition.leaf: leaf.sha256 for partition, leaf in read_leaves(catalogue).items()}
    files = list_files(catalogue)
    others = [name for name in files if name in wanted or not name.startswith("dataset/Norder")]
    missing = sorted(wanted.keys() - set(files))
    if missing:
        raise ReleaseError(f"{catalogue / missing[0]} is missing: check with `ojala verify`")
    _copy_files(catalogue, to, others, wanted)


def _copy_files(folder: UPath, to: UPath, names: Sequence[str], wanted: Mapping[str, str]) -> None:
    def copy(name: str) -> None:
        content = (folder / name).read_bytes()
        if name in wanted and hashlib.sha256(content).hexdigest() != wanted[name]:
            raise ReleaseError(
                f"{folder / name} is damaged: its SHA-256 is not that of the listing; restore the file or "
                "run its partition again"
            )
        write_whole(to / name, content, durable=False)

    with ThreadPoolExecutor(READERS) as pool:
        for _ in counted(pool.map(copy, names), "files copied", len(names)):
            pass


def _copy_margins(made: UPath, catalogue: UPath, to: UPath, name: str) -> None:
    """Copy the margin cache that a run has made of a catalogue, or make one where none is of its leaves."""
    if (made / MARGINS).exists() and not list(margin_faults(made, catalogue)):
        _copy_files(made, to, list(list_files(made)), data_sums(made))
        return
    report(f"making margins of {name}")
    write_margins(catalogue, to, read_leaves(catalogue), name=name)
