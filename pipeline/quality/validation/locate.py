"""Locate the predictions to validate: in a collection, in the folder of a run, or in a product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hats.catalog.dataset.collection_properties import CollectionProperties
from upath import UPath

from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.quality.validation.expected import expected_redshifts
from ojala.pipeline.quality.validation.predictions import pdf_product, pdfs_for, predictions_for
from ojala.pipeline.quality.validation.result import Expected
from ojala.pipeline.quality.validation.truth import MAGNITUDE, Matched, Truth, match_truth
from ojala.pipeline.runs.record import RECORD, read_record, run_folder
from ojala.pipeline.runs.releases import pointers
from ojala.pipeline.storage.hats import COLLECTION, CatalogueError, current_release, read_leaves, read_names


@dataclass(frozen=True, slots=True)
class Location:
    """Roots of the catalogues that a validation reads.

    Attributes
    ----------
    product : UPath
        Root of the main product.
    pdfs : UPath or None
        Root of the product with its redshift PDFs, if there is one.
    source : UPath or None
        Root of the input that it was made from, as its run names it; None where no run does.
    names : mapping of str to str
        `Contract.column_names` of its main product.
    """

    product: UPath
    pdfs: UPath | None = None
    source: UPath | None = None
    names: Mapping[str, str] = field(default_factory=dict)


def locate(root: UPath) -> Location:
    """Locate the predictions at or below a folder.

    Parameters
    ----------
    root : UPath
        A collection, the folder of a run, or a product's folder in it.

    Raises
    ------
    CatalogueError
        If there are none, or none that true values can judge.
    """
    if (root / COLLECTION).exists():
        return _of_collection(root)
    if (root / RECORD).exists():
        return _of_run(root)
    if (root / "hats.properties").exists():
        if not (root.parent / RECORD).exists():
            return Location(root, names=_common_names(read_names(root)))
        location = _of_run(root.parent)
        if root.name != location.product.name:
            raise CatalogueError(f"{root} is not the main product of its run: give {location.product}")
        return location
    raise CatalogueError(
        f"{root} is neither a collection, a run nor a catalogue: it has no {COLLECTION}, no {RECORD} and no "
        "hats.properties"
    )


def match(truth: Truth, location: Location, photometry: UPath | None) -> Matched:
    """Match a catalogue's predictions with true values.

    Parameters
    ----------
    truth : Truth
        True values of some objects.
    location : Location
        Roots of the catalogues.
    photometry : UPath or None
        Photometry to take magnitudes from; None takes the input of the run. Not read where the truth file
        has magnitudes.

    Raises
    ------
    CatalogueError
        If the catalogue or its photometry is missing or not finished.
    """
    leaves = read_leaves(location.product)
    source = None
    if MAGNITUDE not in truth.rows.column_names:
        source = current_release(photometry) if photometry else location.source
        if source is None or not (source / "hats.properties").exists():
            why = f"there is no catalogue at {source}" if source else "no run names its photometry"
            raise CatalogueError(
                f"{location.product}: magnitudes are not known: {why}; give the photometry with "
                f"--photometry, or a column {MAGNITUDE} in the truth"
            )
    predictions = predictions_for(truth, location.product, source, leaves, location.names)
    if predictions.num_rows == 0:
        raise CatalogueError(f"{location.product}: none of its rows is an object of {truth.path}")
    pdf = pdfs_for(predictions, location.pdfs, leaves) if location.pdfs else None
    return match_truth(truth, predictions, sum(leaf.rows for leaf in leaves.values()), pdf)


def expected(location: Location, photometry: UPath | None, matched: Matched) -> tuple[Expected, ...]:
    """Predict the accuracy of the redshifts of all rows of a catalogue; see `expected_redshifts`.

    Magnitudes are not known where neither ``photometry`` nor the input of the run is there.
    """
    source = current_release(photometry) if photometry else location.source
    if source is not None and not (source / "hats.properties").exists():
        source = None
    leaves = read_leaves(location.product)
    return expected_redshifts(location.product, location.pdfs, source, leaves, matched, names=location.names)


def _common_names(columns: set[str]) -> Mapping[str, str]:
    """`Contract.column_names` of the product with these columns, where no run names it."""
    mains = [adapter.main for adapter in ADAPTERS.values() if adapter.validation is not None]
    return next((c.column_names for c in mains if {*c.column_names.values()} <= columns), {})


def _of_collection(root: UPath) -> Location:
    published = pointers(root)
    runs = dict.fromkeys(published.values())
    judged = [run for run in runs if read_record(run_folder(root, run)).adapter.validation is not None]
    if not judged:
        models = ", ".join(name for name, adapter in ADAPTERS.items() if adapter.validation is not None)
        raise CatalogueError(
            f"{root / COLLECTION}: the collection publishes {', '.join(published) or 'nothing'}; true values "
            f"judge products of {models}"
        )
    if len(judged) > 1:
        raise CatalogueError(
            f"{root} publishes several products that true values can judge: give the folder of one of the "
            f"runs {', '.join(judged)}"
        )
    location = _of_run(run_folder(root, judged[0]))
    primary = UPath(CollectionProperties.read_from_file(root / COLLECTION).hats_primary_table_url)
    source = primary if primary.is_absolute() else (root / primary).resolve()
    return replace(location, source=source)


def _of_run(run: UPath) -> Location:
    record = read_record(run)
    if record.adapter.validation is None:
        raise CatalogueError(
            f"{run}: model {record.adapter.name} has no column that true values can judge; its report "
            "compares it with its input"
        )
    pdfs = pdf_product(record.adapter)
    has_pdfs = pdfs is not None and (run / pdfs.name / "hats.properties").exists()
    return Location(
        run / record.main,
        run / pdfs.name if pdfs and has_pdfs else None,
        UPath(record.source),
        record.adapter.main.column_names,
    )
