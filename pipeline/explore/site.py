"""Site of a release: static files that any web server serves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.bands import BANDS
from ojala.catalogs_schema.contract import NONE, Column
from ojala.catalogs_schema.cutouts import PIXEL_SCALE, SIZE
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import CLASSES, PDF_COLUMNS, PDF_STEP, predicted_flux
from ojala.pipeline.explore.records import PICTURE, SPECTRUM, kept_columns, read_records
from ojala.pipeline.explore.table import TableWriter, describe, parquet_bytes, table_columns
from ojala.pipeline.report.atlas.page import PAGE as ATLAS_PAGE
from ojala.pipeline.report.atlas.page import SHEET as ATLAS_SHEET
from ojala.pipeline.report.render import render
from ojala.pipeline.runs.published import Product, Release, class_column, flags_column, read_release
from ojala.pipeline.similarity.index import FOLDER as INDEX_FOLDER
from ojala.pipeline.similarity.index import EmbeddingIndex, open_index
from ojala.pipeline.storage.drafts import draft
from ojala.pipeline.storage.files import is_local, write_whole
from ojala.pipeline.storage.hats import SKYMAP_ORDER, read_counts, read_leaves
from ojala.pipeline.storage.healpix import INDEX_ORDER
from ojala.pipeline.storage.progress import counted, report

BLOCK_ROWS = 128
"""Objects of a file of records: some 300 kB, which a browser reads to show one of them."""

ID_ROWS = 8192
"""Objects of a file of the index by key."""

SKY_PIXELS = 3000
"""Most pixels of the density map."""

FORMAT = 1
"""Version of the files that the pages read."""

_HERE = Path(__file__).parent
_PAGES = ("index.html", "explore.css")
_FORMER_SCRIPT = "plotly.min.js"  # of pages that were written by version 0.4 and before
_TO_REPORT = b'<a href="index.html">Report of the run</a>'


@dataclass(frozen=True, slots=True)
class Site:
    """A written site.

    Attributes
    ----------
    folder : str
        Its folder.
    objects, files, bytes : int
        Objects, and number and size of its files.
    products : tuple of str
        Products that it shows.
    """

    folder: str
    objects: int
    files: int
    bytes: int
    products: tuple[str, ...]


def write_site(
    root: UPath,
    folder: UPath,
    *,
    columns: Sequence[str] = (),
    cutouts: UPath | None = None,
    similar: int = 0,
    title: str = "",
) -> Site:
    """Write the site of a release.

    Parameters
    ----------
    root : UPath
        Root of the collection.
    folder : UPath
        Folder to write; must not exist, or be empty.
    columns : sequence of str
        Further columns of the table, as ``product.column``.
    cutouts : UPath, optional
        Catalogue of cut-outs of the release's objects; default: that of the run, if it read one.
    similar : int
        Similar objects that each object's page lists, by the index of the release (`open_index`); 0: none.
    title : str
        Heading; default: the names of the products and of their run.

    Returns
    -------
    Site

    Raises
    ------
    InputError
        If the release cannot be read, a column is not there, or the folder has files.
    """
    if not is_local(folder):
        raise InputError(f"{folder}: name a folder of this machine, and copy it to the web server")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} has files: remove it or name another folder with --out")
    release = read_release(root)
    chosen = table_columns(release, columns)
    with draft(Path(folder.path)) as site:
        index = open_index(release.embedded, Path(root.path) / INDEX_FOLDER) if similar else None
        objects = _write(UPath(site), release, chosen, cutouts or release.cutouts, title, index, similar)
        written = [path for path in site.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in written)
    return Site(str(folder), objects, len(written), size, tuple(one.name for one in release.products))


def _write(
    folder: UPath,
    release: Release,
    chosen: Sequence[tuple[Product, Column]],
    cutouts: UPath | None,
    title: str,
    embeddings: EmbeddingIndex | None,
    similar: int,
) -> int:
    """Write all files; returns the number of objects."""
    data = folder / "data"
    table = TableWriter(data / "table", [f"{product.name}.{column.name}" for product, column in chosen])
    index = _Index()
    leaves = read_leaves(release.source.root)
    report(f"writing the site: {sum(leaf.rows for leaf in leaves.values()):,} objects")
    extras: set[str] = set()
    for partition in counted(leaves, "partitions written"):
        name = f"{partition.order}-{partition.pixel}"
        index.begin(name)
        for records in read_records(release, partition, release.products, cutouts):
            table.add(records)
            if embeddings is not None:
                records = _with_similar(records, embeddings, similar)
            extras |= {PICTURE, SPECTRUM} & set(records.column_names)
            for start in range(0, records.num_rows, BLOCK_ROWS):
                block = records.slice(start, BLOCK_ROWS)
                path = data / "objects" / name / f"{index.blocks:05d}.parquet"
                write_whole(path, parquet_bytes(block, BLOCK_ROWS), durable=False)
                index.add(block)
        index.end(data / "objects" / name)
    table.close()
    sky = _sky(release.source)
    about = _about(release, title, extras) | {
        "table": {"columns": [describe(*one) for one in chosen], "files": table.files},
        "partitions": index.partitions,
        "ids": index.write_ids(data / "ids"),
        "sky": sky,
        "centre": _view(sky),
        "atlas": _copy_atlas(release, folder),
        "similar": embeddings and f"{embeddings.column} of {embeddings.product}",
    }
    write_whole(data / "release.json", _json(about), durable=False)
    _write_pages(folder)
    return len(index)


class _Index:
    """Where each object's record is: by position through the blocks of a partition, and by key."""

    def __init__(self) -> None:
        self.partitions: list[list[Any]] = []
        self.blocks = 0
        self._first: list[str] = []
        self._id: list[np.ndarray] = []
        self._place: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(len(one) for one in self._id)

    def begin(self, name: str) -> None:
        """Begin a partition."""
        self.partitions.append([name, 0])
        self.blocks, self._first = 0, []

    def add(self, block: pa.Table) -> None:
        """Add a block of the partition, in order."""
        healpix = block["_healpix_29"].to_numpy()
        self._first.append(str(healpix[0]))
        self._id.append(block["object_id"].to_numpy())
        place = np.full(block.num_rows, (len(self.partitions) - 1) << 20 | self.blocks, np.int64)
        self._place.append(place)
        self.blocks += 1

    def end(self, folder: UPath) -> None:
        """Write the first pixel of each block of the partition."""
        self.partitions[-1][1] = self.blocks
        write_whole(folder / "blocks.json", _json(self._first), durable=False)

    def write_ids(self, folder: UPath) -> dict[str, Any]:
        """Write the index by key; the first key of each of its files."""
        key = np.concatenate(self._id) if self._id else np.zeros(0, np.int64)
        place = np.concatenate(self._place) if self._place else np.zeros(0, np.int64)
        order = np.argsort(key, kind="stable")
        key, place = key[order], place[order]
        for number, start in enumerate(range(0, len(key), ID_ROWS)):
            part = slice(start, start + ID_ROWS)
            columns = {
                "object_id": key[part],
                "partition": (place[part] >> 20).astype(np.int32),
                "block": (place[part] & 0xFFFFF).astype(np.int32),
            }
            content = parquet_bytes(pa.table(columns), ID_ROWS)
            write_whole(folder / f"{number:05d}.parquet", content, durable=False)
        return {"first": [str(k) for k in key[::ID_ROWS]]}


def _with_similar(records: pa.Table, embeddings: EmbeddingIndex, k: int) -> pa.Table:
    """Records with keys and cosines of the similar objects, null where an object has no embedding."""
    found = [
        embeddings.nearest(key, k) if key in embeddings else None for key in records["object_id"].to_pylist()
    ]
    keys = [None if one is None else one.object_id for one in found]
    cosines = [None if one is None else one.similarity.astype(np.float32) for one in found]
    records = records.append_column("similar.object_id", pa.array(keys, pa.list_(pa.int64())))
    return records.append_column("similar.similarity", pa.array(cosines, pa.list_(pa.float32())))


def _about(release: Release, title: str, extras: set[str]) -> dict[str, Any]:
    main = release.main
    contract = main.contract
    kind = class_column(contract)
    catalogues = (release.source, *release.products)
    names = {one.name: set(one.contract.names) for one in catalogues}
    bands = next((one.name for one in release.products if one.name.endswith("_bands")), None)
    pdfs = next((one.name for one in release.products if set(PDF_COLUMNS.values()) <= names[one.name]), None)
    run = main.record
    return {
        "format": FORMAT,
        "title": title or contract.title,
        "release": run.run_id if run else release.root.name,
        "order": INDEX_ORDER,
        "block": BLOCK_ROWS,
        "none": NONE,
        "source": release.source.name,
        "main": main.name,
        "class": kind and f"{main.name}.{kind.name}",
        "classes": list(CLASSES),
        "probabilities": {
            one: f"{main.name}.{contract.name_of(name)}"
            for one, name in zip(CLASSES, ("p_galaxy", "p_star", "p_qso"), strict=True)
            if contract.name_of(name) in names[main.name]
        },
        "redshift": f"{main.name}.{contract.name_of('z')}"
        if contract.name_of("z") in contract.names
        else None,
        "products": [_describe_product(one, release) for one in catalogues],
        "bands": [
            {
                "name": band.name,
                "system": str(band.system),
                "pivot": band.pivot,
                "fwhm": band.fwhm,
                "flux": f"{release.source.name}.{band.flux_column}",
                "error": f"{release.source.name}.{band.error_column}",
                "predicted": f"{bands}.{predicted_flux(band)}" if bands else None,
                "predicted_error": f"{bands}.{predicted_flux(band)}_err" if bands else None,
            }
            for band in BANDS
            if band.flux_column in names[release.source.name]
        ],
        "pdfs": pdfs
        and {
            "step": PDF_STEP,
            "columns": {one: f"{pdfs}.{name}" for one, name in PDF_COLUMNS.items()},
        },
        "picture": round(SIZE * PIXEL_SCALE, 1) if PICTURE in extras else None,
        "spectrum": SPECTRUM if SPECTRUM in extras else None,
    }


def _describe_product(product: Product, release: Release) -> dict[str, Any]:
    flags = flags_column(product.contract)
    record = product.record
    provenance = {"contract": f"{product.contract.name} {product.contract.version}"}
    if record is not None:
        provenance |= {
            "run": record.run_id,
            "ended": record.ended or "",
            "model": record.model,
            "weights (SHA-256)": record.weights_sha256,
            "code": record.code_version,
            "input": UPath(record.source).name,
        }
        if record.mixed_versions:
            provenance["note"] = (
                "the run links partitions of other versions; its provenance/partitions.parquet names them"
            )
    columns = [product.contract[name] for name in kept_columns(product, release.source.contract)]
    return {
        "name": product.name,
        "title": product.contract.title,
        "description": product.contract.description,
        "columns": [describe(product, column) for column in columns],
        "flags": flags and f"{product.name}.{flags.name}",
        "bits": [[int(bit), bit.name, text] for bit, text in product.contract.flag_meanings.items()],
        "provenance": provenance,
    }


def _sky(source: Product) -> dict[str, Any]:
    """Rows per HEALPix pixel (nested), of the finest order that has at most `SKY_PIXELS` pixels with rows."""
    counts = read_counts(source.root)
    order = SKYMAP_ORDER
    while order > 0 and np.count_nonzero(counts) > SKY_PIXELS:
        counts, order = counts.reshape(-1, 4).sum(axis=1), order - 1
    pixels = np.flatnonzero(counts)
    return {"order": order, "pixels": pixels.tolist(), "counts": counts[pixels].tolist()}


def _view(sky: dict[str, Any]) -> dict[str, float]:
    """Centre and width [deg] of a map that shows all pixels with rows."""
    import healpy  # with matplotlib, seconds that the other commands do not need

    if not sky["pixels"]:
        return {"ra": 0.0, "dec": 0.0, "fov": 180.0}
    nside = healpy.order2nside(sky["order"])
    places = np.stack(healpy.pix2vec(nside, np.array(sky["pixels"]), nest=True))
    centre = places.mean(axis=1)
    ra, dec = healpy.vec2ang(centre, lonlat=True)
    apart = np.clip(centre / max(float(np.linalg.norm(centre)), 1e-9) @ places, -1.0, 1.0)
    radius = float(np.degrees(np.arccos(apart.min()) + healpy.max_pixrad(nside)))
    return {"ra": round(float(ra[0]), 4), "dec": round(float(dec[0]), 4), "fov": min(2.2 * radius, 180.0)}


def _write_pages(folder: UPath) -> None:
    for name in _PAGES:
        write_whole(folder / name, (_HERE / "app" / name).read_bytes(), durable=False)
    write_whole(folder / "report.css", render("style.css.j2", {}).encode(), durable=False)
    for script in sorted((_HERE / "app").glob("*.js")):
        write_whole(folder / "app" / script.name, script.read_bytes(), durable=False)
    shutil.copytree(_HERE / "vendor", Path(folder.path) / "vendor", dirs_exist_ok=True)


def _copy_atlas(release: Release, folder: UPath) -> bool:
    """Take over the page of the atlas from the report of a run that has one."""
    for product in release.products:
        pages = product.root.parent / "report"
        if product.record is None or product.record.main != product.name or not (pages / ATLAS_PAGE).exists():
            continue
        for name in (ATLAS_PAGE, ATLAS_SHEET, _FORMER_SCRIPT):
            if not (pages / name).exists():
                continue
            content = (pages / name).read_bytes()
            if name == ATLAS_PAGE:
                content = content.replace(_TO_REPORT, b'<a href="../index.html">Explorer</a>')
                content = content.replace(b"<body>", b'<body data-site="../">')
            write_whole(folder / "atlas" / name, content, durable=False)
        return True
    return False


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
