"""Supplemental catalogues of a run, as LSDB reads them: margin caches, and an index of ``object_id``.

They are in `SUPPLEMENTAL` of the run's folder::

    supplemental/
    |-- photometry_10arcsec/  object_id_index/       of the input
    `-- ojala/  collection.properties  ojala_10arcsec/       one collection for each product

Each says by hashes from which leaves it was made. What an earlier run has of the same leaves is linked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from upath import UPath

from ojala.pipeline.runs.record import RunRecord, run_folder
from ojala.pipeline.runs.resolved import ResolvedRun
from ojala.pipeline.storage.hats import (
    CatalogueError,
    read_leaves,
    reference,
    store_properties,
)
from ojala.pipeline.storage.margins import MARGINS, margin_name, read_margins, stale_margins, write_margins
from ojala.pipeline.storage.object_index import KEY, PARTS, is_stale, read_parts, write_object_index
from ojala.pipeline.storage.progress import report
from ojala.pipeline.storage.properties import COLLECTION
from ojala.pipeline.storage.statistics import write_statistics

SUPPLEMENTAL = "supplemental"
"""Folder of the supplemental catalogues of a run."""

INDEX = f"{KEY}_index"
"""Folder of the index of `KEY`."""


def input_margin(run: UPath, reads: str) -> UPath:
    """Margin cache of the input catalogue of a run, of a kind such as photometry."""
    return run / SUPPLEMENTAL / margin_name(reads)


def input_index(run: UPath) -> UPath:
    """Index of the input catalogue of a run."""
    return run / SUPPLEMENTAL / INDEX


def product_collection(run: UPath, product: str) -> UPath:
    """Collection of a product and its margin cache; in a run without one the product's catalogue."""
    made = run / SUPPLEMENTAL / product
    return made if (made / COLLECTION).exists() else run / product


def product_margin(run: UPath, product: str) -> UPath:
    """Margin cache of a product of a run."""
    return run / SUPPLEMENTAL / product / margin_name(product)


def run_of(catalogue: str) -> str:
    """Name of the run that a product belongs to, by the path of its catalogue or its `product_collection`."""
    folder = UPath(catalogue).parent
    return folder.parent.name if folder.name == SUPPLEMENTAL else folder.name


def input_references(out: UPath, record: RunRecord) -> tuple[str | None, str | None]:
    """Paths of the input's margin cache and index as the collection names them; None where there is none."""
    run, root = run_folder(out, record.run_id), f"runs/{record.run_id}/{SUPPLEMENTAL}"
    name = record.adapter.reads.name
    margin = (input_margin(run, name) / MARGINS).exists()
    index = (input_index(run) / PARTS).exists()
    return (f"{root}/{margin_name(name)}" if margin else None, f"{root}/{INDEX}" if index else None)


def write_supplemental(
    run: ResolvedRun, record: RunRecord, earlier: Sequence[UPath], facts: Mapping[str, str] = {}
) -> None:
    """Write margin caches, index and statistics of a run whose catalogues are there.

    Parameters
    ----------
    run : ResolvedRun
        The run.
    record : RunRecord
        Its record.
    earlier : sequence of UPath
        Folders of runs whose catalogues may be linked; the first one that has a catalogue is taken.
    facts : mapping of str to str
        Further properties, such as those of the publication.
    """
    from hats.catalog.dataset.collection_properties import CollectionProperties

    folder, reads = run.folder(record.run_id), run.adapter.reads.name
    for product in run.products:
        root = folder / product
        write_statistics(root, read_leaves(root), base=_first(earlier, product, "hats.properties"))
    if not run.config.margins:
        return
    leaves = read_leaves(run.source)
    report(f"making margins and index of the {reads}")
    margin, index = input_margin(folder, reads), input_index(folder)
    write_margins(
        run.source,
        margin,
        leaves,
        name=reads,
        base=_first(earlier, _below(margin, folder), MARGINS),
        facts=facts,
    )
    write_object_index(
        run.source,
        index,
        leaves,
        name=INDEX,
        primary=reads,
        base=_first(earlier, _below(index, folder), PARTS),
        facts=facts,
    )
    for product in run.products:
        report(f"making margins of {product}")
        root, margin = folder / product, product_margin(folder, product)
        write_margins(
            root,
            margin,
            read_leaves(root),
            name=product,
            base=_first(earlier, _below(margin, folder), MARGINS),
            facts=facts,
        )
        properties = {
            "obs_collection": product,
            "hats_primary_table_url": reference(margin.parent, root),
            "all_margins": margin.name,
            "default_margin": margin.name,
            **facts,
        }
        store_properties(
            CollectionProperties.model_validate(properties), margin.parent / COLLECTION, "HATS Collection"
        )


def _below(path: UPath, folder: UPath) -> str:
    return path.relative_to(folder).as_posix()


def _first(earlier: Sequence[UPath], path: str, file: str) -> UPath | None:
    """Catalogue at a path in the first of some runs that has it."""
    return next((run / path for run in earlier if (run / path / file).exists()), None)


def supplemental_sums(run: UPath) -> dict[str, str]:
    """SHA-256 of the data files of a run's supplemental catalogues by their paths in its folder."""
    folder = run / SUPPLEMENTAL
    there = list(folder.iterdir()) if folder.exists() else []
    there += [cache for one in there if (one / COLLECTION).exists() for cache in one.iterdir()]
    return {f"{_below(one, run)}/{path}": sha256 for one in there for path, sha256 in data_sums(one).items()}


def data_sums(catalogue: UPath) -> dict[str, str]:
    """SHA-256 of the data files of a margin cache or an index by their paths; empty for anything else."""
    if (catalogue / MARGINS).exists():
        return {p.leaf: margin.sha256 for p, margin in read_margins(catalogue).items() if margin.rows}
    if (catalogue / PARTS).exists():
        return {part.path: part.sha256 for part in read_parts(catalogue)}
    return {}


def supplemental_faults(run: UPath, record: RunRecord, source: UPath) -> Iterator[tuple[UPath, str]]:
    """Files of supplemental catalogues that do not belong to the leaves of the run, each with its fault."""
    pairs = [(input_margin(run, record.adapter.reads.name), source)]
    pairs += [(product_margin(run, product), run / product) for product in record.products]
    for cache, root in pairs:
        if (cache / MARGINS).exists():
            yield from margin_faults(cache, root)
    if (input_index(run) / PARTS).exists():
        yield from index_faults(input_index(run), source)


def margin_faults(cache: UPath, root: UPath) -> Iterator[tuple[UPath, str]]:
    """Faults of a margin cache that was made from other leaves than those of its catalogue."""
    try:
        stale = stale_margins(cache, read_leaves(root))
    except (CatalogueError, OSError) as problem:
        yield cache / MARGINS, str(problem)
        return
    if stale:
        names = ", ".join(partition.name for partition in stale[:3])
        text = f"margins of {len(stale):,} partitions ({names}) are not of the leaves of {root}"
        yield cache / MARGINS, f"{text}: make a new run"


def index_faults(index: UPath, root: UPath) -> Iterator[tuple[UPath, str]]:
    """Faults of an index that was made from other leaves than those of its catalogue."""
    try:
        stale = is_stale(index, read_leaves(root))
    except (CatalogueError, OSError) as problem:
        yield index / PARTS, str(problem)
        return
    if stale:
        yield index / PARTS, f"the index is not of the leaves of {root}: make a new run"
