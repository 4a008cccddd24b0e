"""Index of the embeddings of a release for nearest neighbours (hierarchical navigable small worlds, usearch).

Malkov & Yashunin 2018, arXiv:1603.09320. An index belongs to the leaves it was made of: the hash of their
list is part of its name, so that an index of other leaves is never found.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.files import atomic_file
from ojala.pipeline.runs.published import Product
from ojala.pipeline.storage.drafts import draft
from ojala.pipeline.storage.hats import read_leaves
from ojala.pipeline.storage.progress import counted, counting, report

CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 256
"""Links of a node, and candidates kept while adding and while searching."""

BATCH = 10_000
"""Rows read at a time."""

FOLDER = "similar"
"""Folder of the indexes in a collection."""

_PLACE = np.dtype([("object_id", "<i8"), ("ra", "<f8"), ("dec", "<f8")])


@dataclass(frozen=True, slots=True)
class Similar:
    """Nearest objects of one object, the most similar first.

    Attributes
    ----------
    object_id : ndarray of int64, shape (K,)
        Keys; fewer than asked for where the index has fewer.
    similarity : ndarray of float, shape (K,)
        Cosine of the angle between the embeddings.
    ra, dec : ndarray of float, shape (K,)
        Positions [deg].
    """

    object_id: np.ndarray
    similarity: np.ndarray
    ra: np.ndarray
    dec: np.ndarray


class EmbeddingIndex:
    """Opened index; its file stays on the disk and is mapped into memory.

    Parameters
    ----------
    path : Path
        File of the index; that of the positions lies beside it.
    product, column : str
        Product and its column of embeddings.
    """

    def __init__(self, path: Path, product: str, column: str) -> None:
        self.product, self.column = product, column
        self._index: Any = _usearch().Index.restore(str(path), view=True)
        self._index.expansion_search = EXPANSION_SEARCH
        self._places: np.ndarray = np.load(_places_path(path), mmap_mode="r")

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, object_id: int) -> bool:
        return bool(self._index.contains(object_id))

    def vectors(self, object_id: np.ndarray) -> np.ndarray:
        """Embeddings of objects that the index has, float32 of length 1, shape (N, D)."""
        found = np.stack(self._index.get(object_id.astype(np.uint64))).astype(np.float32)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

    def nearest(self, object_id: int, k: int) -> Similar:
        """The K most similar of the other objects.

        Twice as many are taken from the index, and ordered by single-precision cosines.

        Raises
        ------
        InputError
            If the object has no embedding.
        """
        if object_id not in self:
            raise InputError(
                f"object {object_id} has no {self.column} in {self.product}: it is not in the release, or "
                "nothing could be embedded"
            )
        own = self.vectors(np.array([object_id]))[0]
        keys = self._index.search(own, 2 * k + 1).keys.astype(np.int64)
        keys = keys[keys != object_id]
        cosine = self.vectors(keys) @ own if len(keys) else np.zeros(0)
        best = np.argsort(-cosine, kind="stable")[:k]
        at = np.searchsorted(self._places["object_id"], keys[best])
        place = self._places[at]
        return Similar(keys[best], cosine[best].astype(float), place["ra"], place["dec"])

    def position_match(self, ra: float, dec: float, radius: float) -> int | None:
        """Key of the object nearest to a position [deg] within a radius [arcsec]; None without one."""
        strip = np.abs(self._places["dec"] - dec) <= radius / 3600.0
        near = self._places[strip]
        if not len(near):
            return None
        a, b = np.radians(near["dec"]), np.radians(dec)
        half = np.sin((a - b) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(np.radians(near["ra"] - ra) / 2) ** 2
        away = 2 * np.degrees(np.arcsin(np.sqrt(half))) * 3600.0
        best = int(np.argmin(away))
        return int(near["object_id"][best]) if away[best] <= radius else None


def embedding_column(product: Product, wanted: str | None = None) -> str:
    """Column of embeddings of a product: the one named, else the first.

    Raises
    ------
    InputError
        If it has none, or not that one; names those it has.
    """
    there = [
        column.name
        for column in product.contract
        if "embedding" in column.name and pa.types.is_fixed_size_list(column.type)
    ]
    if not there or (wanted and wanted not in there):
        raise InputError(
            f"{product.name} has no column {wanted or 'of embeddings'}"
            + (f": it has {', '.join(there)}" if there else "; `ojala run --vectors` keeps those of OJALA")
        )
    return wanted or there[0]


def open_index(product: Product, folder: Path, column: str | None = None) -> EmbeddingIndex:
    """Open the index of a product's embeddings; it is made where it is not there yet.

    Parameters
    ----------
    product : Product
        A published product.
    folder : Path
        Folder of the indexes.
    column : str, optional
        Column of embeddings; default: the first.

    Raises
    ------
    InputError
        If usearch is not installed, or the product has no embeddings.
    """
    name = embedding_column(product, column)
    listing = "".join(f"{leaf.path},{leaf.sha256}\n" for leaf in read_leaves(product.root).values())
    key = hashlib.sha256(listing.encode()).hexdigest()[:16]
    path = folder / f"{product.name}-{name}-{key}.usearch"
    if not path.exists():
        _build(product, name, path)
    return EmbeddingIndex(path, product.name, name)


def _build(product: Product, column: str, path: Path) -> None:
    usearch = _usearch()
    rows = sum(leaf.rows for leaf in read_leaves(product.root).values())
    report(f"making the index of {column} of {product.name}: {rows:,} rows")
    half = product.contract[column].type.value_type == pa.float16()
    index = usearch.Index(
        ndim=product.contract[column].type.list_size,
        metric="cos",
        dtype="f16" if half else "f32",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
    )
    places, embeddings = [], []
    for keys, vectors in counted(_embeddings(product.root, column), "batches read", math.ceil(rows / BATCH)):
        usable = np.isfinite(vectors).all(axis=1) & (vectors != 0.0).any(axis=1)
        embeddings.append(vectors[usable].astype(np.float16 if half else np.float32))
        places.append(keys[usable])
    place, embedding = np.concatenate(places), np.concatenate(embeddings)
    del places, embeddings
    if not len(place):
        raise InputError(f"{product.root}: no row has an embedding ({column}), there is nothing to search in")
    # In random order: groups of similar objects that are added one after the other get no links between them.
    order = np.random.default_rng(0).permutation(len(place))
    with counting("rows in the index", len(order)) as meter:
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            index.add(place["object_id"][part].astype(np.uint64), embedding[part])
            meter.set(len(index))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(_places_path(path)) as file:
        np.save(file, np.sort(place, order="object_id"))
    with draft(path) as new:
        index.save(str(new))


def _embeddings(root: UPath, column: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Keys with positions, and embeddings as float32 of shape (N, D), some rows at a time."""
    for partition in read_leaves(root):
        with (root / partition.leaf).open("rb") as raw, pq.ParquetFile(raw) as file:
            for batch in file.iter_batches(BATCH, columns=["object_id", "ra", "dec", column]):
                keys = np.empty(batch.num_rows, _PLACE)
                for name in _PLACE.names or ():
                    keys[name] = batch[name].to_numpy(zero_copy_only=False)
                lists = batch[column]
                values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
                yield keys, values.reshape(batch.num_rows, lists.type.list_size)


def _places_path(path: Path) -> Path:
    return path.with_suffix(".npy")


def _usearch() -> Any:  # noqa: ANN401 - an untyped module
    try:
        import usearch.index
    except ModuleNotFoundError as missing:
        raise InputError(
            "similar objects need usearch: pip install '.[similar]' in a checkout of ojala"
        ) from missing
    return usearch.index
