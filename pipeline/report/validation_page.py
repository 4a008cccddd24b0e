"""Files of `ojala validate`: the page, its numbers and its objects."""

from __future__ import annotations

from upath import UPath

from ojala.pipeline.quality.validation.result import Validation
from ojala.pipeline.quality.validation.truth import Matched
from ojala.pipeline.report.expected import expected_section
from ojala.pipeline.report.render import render
from ojala.pipeline.report.truth_section import objects_csv, truth_section
from ojala.pipeline.storage.files import write_whole


def write_validation(folder: UPath, matched: Matched, found: Validation) -> UPath:
    """Write ``validation.json``, ``objects.csv`` and the page ``index.html``, and return the page's path.

    Parameters
    ----------
    folder : UPath
        Folder to write into.
    matched : Matched
        Predictions and true values.
    found : Validation
        The measures of them.
    """
    page = folder / "index.html"
    shown = {"truth": truth_section(matched, found), "section": expected_section(found.expected)}
    text = render("validation.html.j2", shown)
    write_whole(folder / "objects.csv", objects_csv(matched))
    write_whole(folder / "validation.json", found.model_dump_json(indent=1).encode())
    write_whole(page, text.encode())
    return page
