"""Prefect flow of an ordinary week: fetch the archive's new tiles, add them, run, judge and publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from upath import UPath

from ojala.catalogs_schema.errors import InputError, OjalaError
from ojala.flows.survey import Publish, make_release, parameter, raise_or_fail
from ojala.pipeline.ingest.fetched import add_fetched
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.record import RunRecord

Fetched = Annotated[str, parameter("string", "folder of the fetched files, TABLE/TILE.vot")]
Archive = Annotated[
    str, parameter("string", "address of the TAP service; empty: take the files that are in the folder")
]
Tables = Annotated[
    str, parameter("string", "tables to fetch, separated by commas, as in MagABDualObj,MWExtinction")
]


@flow(name="new-tiles")
def new_tiles(
    config: RunConfig, fetched: Fetched, archive: Archive = "", tables: Tables = "", publish: Publish = True
) -> RunRecord | State[Any]:
    """Fetch what is new in the archive, add it to the photometry, run the model over it, and publish.

    Tiles that the archive has changed replace the present ones; tiles that it does not have any more stay
    until they are withdrawn with `ojala ingest --withdraw`. An interrupted flow is continued by the next one.

    Parameters
    ----------
    config : RunConfig
        Settings of the run; its photometry is the catalogue that grows.
    fetched : str
        Folder of the fetched files, ``TABLE/TILE.vot``.
    archive : str
        Address of the TAP service; empty to take the files that are in the folder.
    tables : str
        Tables to fetch, separated by commas.
    publish : bool
        Whether to point the collection at the run when it is complete and its quality gates allow it.

    Returns
    -------
    RunRecord
        Record of the run.
    """
    if config.photometry is None:
        raise InputError(f"model {config.model} reads no photometry: new tiles are none of its input")
    try:
        if archive:
            fetch_task(archive, tables, fetched)
        add_task(config.photometry, fetched)
    except OjalaError as problem:
        return raise_or_fail(problem)
    return make_release(config, None, publish, check=False)


# With a cache policy Prefect would skip a task whose files have changed under the same names.
@task(name="fetch", cache_policy=NO_CACHE)
def fetch_task(archive: str, tables: str, fetched: str) -> None:
    """Fetch the tiles that are new or have changed in the archive."""
    from ojala.flows.fetch import fetch_tables  # needs pyvo, which the package has as an extra

    names = [name.strip() for name in tables.split(",") if name.strip()]
    summary = fetch_tables(archive, names, Path(fetched))
    get_run_logger().info("%d rows in %d jobs fetched", summary.rows, summary.jobs)
    for table, tiles in summary.withdrawn.items():
        get_run_logger().warning("%s: tiles no longer in the archive: %s", table, ", ".join(tiles))


@task(name="add", cache_policy=NO_CACHE)
def add_task(photometry: str, fetched: str) -> None:
    """Add new and changed tiles to the photometry."""
    summary = add_fetched(UPath(photometry), UPath(fetched))
    if summary is None:
        get_run_logger().info("no tile in %s is new", fetched)
        return
    get_run_logger().info(
        "%d tiles added, %d of them in the place of present ones: release %s",
        len(summary.added),
        len(summary.replaced),
        summary.release,
    )
