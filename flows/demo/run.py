"""Demonstration: ingest, run and verify the bundled patch of sky."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.flows.release import make_release
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import RunConfig

PATCH = Path(__file__).parent / "data"
"""Photometry of real objects (from their spectra) and of a mock sky, with truth; see its README."""

TILE_ROWS = 1000


def run_demo(out: Path) -> dict[str, Any]:
    """Ingest the bundled patch, run OJALA on it and verify the result.

    Parameters
    ----------
    out : Path
        Folder for all output.

    Returns
    -------
    dict
        Record of the run, and a summary under ``text``.

    Raises
    ------
    InputError
        The folder exists, or partitions failed.
    """
    if out.exists():
        raise InputError(f"{out} exists: remove it or name another folder with --out")
    photometry, catalogue = UPath(out / "photometry"), UPath(out / "catalogue")
    files = [UPath(PATCH / "real_objects.csv"), UPath(PATCH / "mock_sky.parquet")]
    print(f"ingesting {', '.join(file.name for file in files)}")
    summary = ingest_photometry(files, photometry, tile_rows=TILE_ROWS)
    print(f"{summary.rows:,} rows in {len(summary.partitions)} partitions; running OJALA on them")
    record = make_release(
        RunConfig(
            photometry=str(photometry),
            out=str(catalogue),
            workers=os.cpu_count() or 1,
            vectors=True,
            truth=str(_truth(out)),
        )
    )
    damages = [str(damage) for damage in verify(catalogue)]
    if record.failed or damages:
        faults = [f"partition {name}: {error}" for name, error in record.failed.items()]
        raise InputError("; ".join([*faults, *damages]))
    run = catalogue / "runs" / record.run_id
    text = _TEXT.format(
        rows=record.rows_out,
        partitions=record.partitions,
        photometry=photometry,
        catalogue=catalogue,
        leaves=catalogue / "published" / "ojala" / "dataset",
        report=run / "report" / "index.html",
    )
    return {"text": text, **record.model_dump(), "catalogue": str(catalogue), "report": str(run / "report")}


def _truth(out: Path) -> Path:
    """Write a truth file with both samples of the patch, for separate measures in the report."""
    real = pd.read_csv(PATCH / "real_objects_truth.csv").assign(sample="real objects")
    mock = pd.read_parquet(PATCH / "mock_sky_truth.parquet").assign(sample="mock sky")
    path = out / "truth.parquet"
    pd.concat([real, mock]).to_parquet(path, index=False)
    return path


_TEXT = """
{rows:,} rows in {partitions} partitions, verified: checksums, contract and row accounts are right.

  photometry   {photometry}
  catalogue    {catalogue}
  report       {report}

Open the catalogue:

  LSDB     lsdb.open_catalog("{catalogue}").load_extension("ojala")
  DuckDB   SELECT ojala_class, count(*), avg(z) FROM '{leaves}/**/*.parquet' GROUP BY ojala_class
  Polars   polars.scan_parquet("{leaves}/**/*.parquet")
  pandas   pandas.read_parquet("{leaves}")
  astropy  Table.read(LEAF, format="parquet.votable")
"""
