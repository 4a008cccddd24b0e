"""Rows and bytes per second of `ojala export release`, and of `ojala verify` of the copy.

    python -m tests.benchmarks.export [--rows 100000] [--to FOLDER]

The release is one of the empty model over copies of the mock sky, with margins; the target may be ``s3://``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from upath import UPath

from ojala.flows.bench.flow import survey
from ojala.pipeline import run as survey_run
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.release.export import export_release
from ojala.pipeline.run import make_release
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.resolved import resolve_run


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--tile-rows", type=int, default=10_000)
    parser.add_argument("--to", help="folder or address to write; default: a temporary folder")
    asked = parser.parse_args()
    with TemporaryDirectory() as place:
        photometry = survey(Path(place) / "survey", asked.rows, asked.tile_rows)
        out = UPath(place) / "out"
        config = RunConfig(photometry=str(photometry), out=str(out), model="empty", engine="serial")
        survey_run.write_report = lambda *of_the_run: None
        make_release(resolve_run(config))
        to = UPath(asked.to or f"{place}/made")
        begin = time.process_time(), time.perf_counter()
        made = export_release(out, to)
        mib = made.bytes / 2**20
        print(f"{made.rows:,} rows, {made.files} files, {mib:.1f} MiB: {spent(begin, made.rows, mib)}")
        begin = time.process_time(), time.perf_counter()
        assert not list(verify(to))
        print(f"verify: {spent(begin, made.rows, mib)}")


def spent(begin: tuple[float, float], rows: int, mib: float) -> str:
    """Time since a processor time and a clock time, and rates by the former."""
    processor, seconds = time.process_time() - begin[0], time.perf_counter() - begin[1]
    rates = f"{rows / processor:,.0f} rows/s, {mib / processor:.1f} MiB/s"
    return f"processor time {processor:.1f} s ({rates}), {seconds:.1f} s"


if __name__ == "__main__":
    main()
