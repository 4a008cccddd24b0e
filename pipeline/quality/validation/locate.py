"""Where a catalogue's leaves are: a collection, the folder of a run, or a product in it."""

from __future__ import annotations

from dataclasses import dataclass

from hats.catalog.dataset.collection_properties import CollectionProperties
from hats.catalog.dataset.extension_properties import ExtensionProperties
from upath import UPath

from ojala.catalogs_schema.ojala import OJALA, OJALA_VECTORS
from ojala.pipeline.quality.validation.predictions import answers_for, pdfs_for
from ojala.pipeline.quality.validation.truth import MAGNITUDE, Matched, Truth, match_truth
from ojala.pipeline.runs.record import RECORD, read_record
from ojala.pipeline.storage.hats import CatalogueError, read_leaves


@dataclass(frozen=True, slots=True)
class Place:
    """Where answers are.

    Attributes
    ----------
    product : UPath
        Root of the value-added catalogue.
    vectors : UPath or None
        Root of the vectors that belong to it, if it has them.
    photometry : UPath or None
        Root of the photometry that it was made from, as its run names it; None where no run does.
    """

    product: UPath
    vectors: UPath | None
    photometry: UPath | None


def find(root: UPath) -> Place:
    """Find the value-added catalogue at or below a folder.

    Parameters
    ----------
    root : UPath
        A collection, the folder of a run, or a product's folder in it.

    Raises
    ------
    CatalogueError
        If there is none.
    """
    if (root / "collection.properties").exists():
        return _of_collection(root)
    if (root / RECORD).exists():
        return _of_run(root)
    if (root / "hats.properties").exists():
        if (root.parent / RECORD).exists():
            place = _of_run(root.parent)
            return Place(root, place.vectors, place.photometry)
        return Place(root, None, None)
    raise CatalogueError(
        f"{root} is neither a collection, a run nor a catalogue: it has no collection.properties, no "
        f"{RECORD} and no hats.properties"
    )


def match(truth: Truth, place: Place, photometry: UPath | None) -> Matched:
    """Lay a catalogue's answers beside the truth.

    Parameters
    ----------
    truth : Truth
        Known objects.
    place : Place
        Where the answers are.
    photometry : UPath or None
        Photometry to take magnitudes from; None takes that which the run names. Not read where the truth
        has magnitudes.

    Raises
    ------
    CatalogueError
        If the catalogue or its photometry is not there or not finished.
    """
    leaves = read_leaves(place.product)
    source = None
    if MAGNITUDE not in truth.rows.column_names:
        source = photometry or place.photometry
        if source is None or not (source / "hats.properties").exists():
            what = (
                f"there is no photometry catalogue at {source}" if source else "no run names its photometry"
            )
            raise CatalogueError(
                f"{place.product}: magnitudes are not known: {what}; give it with --photometry, or a column "
                f"{MAGNITUDE} in the truth"
            )
    answers = answers_for(truth, place.product, source, leaves)
    if answers.num_rows == 0:
        raise CatalogueError(f"{place.product}: none of its rows is an object of {truth.path}")
    pdf = pdfs_for(answers, place.vectors, leaves) if place.vectors else None
    return match_truth(truth, answers, sum(leaf.rows for leaf in leaves.values()), pdf)


def _of_collection(root: UPath) -> Place:
    properties = CollectionProperties.read_from_file(root / "collection.properties")
    name = (properties.all_extensions or {}).get(OJALA.name)
    if name is None:
        raise CatalogueError(
            f"{root / 'collection.properties'}: the collection has no extension {OJALA.name}"
        )
    extension = ExtensionProperties.read_from_file(root / name)
    product = _resolve(root, extension.join_catalog)
    place = _of_run(product.parent)
    return Place(product, place.vectors, _resolve(root, properties.hats_primary_table_url))


def _of_run(run: UPath) -> Place:
    record = read_record(run)
    vectors = run / OJALA_VECTORS.name
    return Place(
        run / OJALA.name,
        vectors if (vectors / "hats.properties").exists() else None,
        UPath(record.source),
    )


def _resolve(root: UPath, reference: str) -> UPath:
    path = UPath(reference)
    return path if path.is_absolute() else (root / reference).resolve()
