"""Files fetched from a survey's archive, a folder for each table and a file for each tile, as new tiles."""

from __future__ import annotations

from collections import defaultdict

from upath import UPath

from ojala.pipeline.ingest.lineage import known_inputs
from ojala.pipeline.ingest.update import UpdateSummary, is_new, update_photometry
from ojala.pipeline.storage.files import sha256_of
from ojala.pipeline.storage.hats import current_release


def add_fetched(photometry: UPath, folder: UPath) -> UpdateSummary | None:
    """Add the tiles that are new or have changed since the current release of a photometry catalogue.

    Parameters
    ----------
    photometry : UPath
        Folder of the catalogue; it may be new.
    folder : UPath
        Fetched files, see `new_files`.

    Returns
    -------
    UpdateSummary or None
        None where no tile is new.

    Raises
    ------
    IngestError
        If a file cannot be understood, see `ojala.pipeline.ingest.update.update_photometry`.
    """
    files = new_files(photometry, folder)
    if not files:
        return None
    return update_photometry(photometry, files, add=True, replace=not is_new(photometry))


def new_files(photometry: UPath, folder: UPath) -> list[UPath]:
    """Files of the tiles that are new or have changed, sorted by their paths.

    Files are ``TABLE/TILE.vot`` in the folder, as ``ojala fetch tap`` writes them. A tile is new where the
    content of one of its files was no input of the current release of the catalogue or of those that it
    descends from; then all of its files are taken.
    """
    known = set() if is_new(photometry) else known_inputs(current_release(photometry))
    tiles: dict[str, list[UPath]] = defaultdict(list)
    for file in sorted(folder.glob("*/*"), key=str):
        if file.is_file() and not file.name.startswith("."):
            tiles[file.name.partition(".")[0]].append(file)
    return [
        file
        for files in tiles.values()
        if any(sha256_of(one) not in known for one in files)
        for file in files
    ]
