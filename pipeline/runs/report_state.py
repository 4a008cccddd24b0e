"""State of publication in the report of a run, which changes after the run's end."""

from __future__ import annotations

import hashlib
import html
from contextlib import suppress

from upath import UPath

from ojala.pipeline.storage.files import write_whole

PAGE = "report/index.html"
"""Page of the report in a run's folder."""

BEGIN, END = "<!-- publication -->", "<!-- end of publication -->"
"""Marks around the sentence."""

NOT_PUBLISHED = "Not published when this page was written; `ojala releases` shows the present state."


def mark_report(run: UPath, text: str) -> None:
    """Put a sentence between the marks of a run's report, and renew its checksum.

    Nothing is done where there are no marks. A page that cannot be written keeps the former sentence: the
    publication does not depend on it.
    """
    from ojala.pipeline.runs.provenance import CHECKSUMS, checksums_text, read_checksums

    path = run / PAGE
    with suppress(OSError, ValueError):
        before, begin, rest = path.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if begin and end:
            content = f"{before}{BEGIN}{html.escape(text)}{END}{after}".encode()
            sums = read_checksums(run) | {PAGE: hashlib.sha256(content).hexdigest()}
            write_whole(path, content)
            write_whole(run / CHECKSUMS, checksums_text(sums).encode())
