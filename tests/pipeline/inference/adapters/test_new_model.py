"""A model over photometry is added by a folder, a contract and one entry in the registry."""

import json

import pyarrow.parquet as pq
import pytest
from upath import UPath

import ojala
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.region import parse_region
from tests.helpers.survey import plan_run

pytestmark = [pytest.mark.integration, pytest.mark.processor]

CONTRACT = """
import enum

import pyarrow as pa

from ojala.catalogs_schema.columns import FLAGS, number
from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.photometry import KEY_COLUMNS


class ColourFlag(enum.IntFlag):
    NO_COLOUR = 1
    OUT_OF_RANGE = 2


COLOURS = Contract(
    name="colours",
    version="1.0.0",
    title="Colours",
    description="One row for each row of the photometry.",
    columns=(
        *KEY_COLUMNS,
        number("z", "", "src.redshift.phot", "redshift from a colour", 0.0, 6.0),
        number("colour", "mag", "phot.color", "colour of the first two bands", -5.0, 5.0),
        FLAGS,
    ),
    flag_meanings={
        ColourFlag.NO_COLOUR: "no colour",
        ColourFlag.OUT_OF_RANGE: "outside of a range, set to null",
    },
)
"""
MODEL = """
import numpy as np

from ojala.pipeline.inference.adapters.base import NO_WEIGHTS


class Colours:
    name, version, weights_sha256, device, batch_size = "colours", "1", NO_WEIGHTS, "cpu", 64

    def halve_batch(self):
        self.batch_size //= 2

    def predict(self, flux, error, ebv):
        with np.errstate(all="ignore"):
            colour = -2.5 * np.log10(flux[:, 0] / flux[:, 1])
        return {"colour": colour, "z": np.abs(colour), "flags": np.isnan(colour).astype(np.int32)}
"""
ADAPTER = """
from colours.contract import COLOURS
from ojala.pipeline.inference.adapters.photometry import PhotometricAdapter


class ColoursAdapter(PhotometricAdapter):
    name = "colours"
    description = "colours from photometry"
    main = COLOURS

    def load(self, spec):
        from colours.model import Colours

        return Colours()
"""


def test_a_model_of_ones_own_is_run_reported_released_and_verified(photometry, tmp_path, monkeypatch):
    folder, out = tmp_path / "colours", tmp_path / "out"
    folder.mkdir()
    for name, text in (("__init__", ""), ("contract", CONTRACT), ("model", MODEL), ("adapter", ADAPTER)):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ADAPTERS.classes, "colours", "colours.adapter:ColoursAdapter")
    ojala.run(out, photometry=photometry, model="colours", engine="serial")

    (run,) = (out / "runs").iterdir()
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["products"]) == ("complete", ["colours"])
    rows = [pq.read_metadata(leaf).num_rows for leaf in (run / "colours" / "dataset").rglob("Npix=*.parquet")]
    assert sum(rows) == record["rows_in"] == record["rows_out"] > 0
    page = (run / "report" / "index.html").read_text()
    assert "no colour" in page
    assert "colours, contract 1.0.0" in page

    assert list(verify(UPath(out))) == []
    config = RunConfig.from_record(record["config"])
    assert plan_run(config).to_do == []
    region = parse_region("flagged:NO_COLOUR>0", config.adapter.flags)
    assert plan_run(config, region).states()["reprocess"] > 0
