"""A model of spectra is run, judged, published and verified as one of photometry is."""

import enum
import hashlib
from pathlib import Path

import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.spectra import KEY_NAMES, SPECTRA
from ojala.models.data import Spectra
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.inference.adapters.spectra import SpectralAdapter
from ojala.pipeline.inference.products.table import build_table
from ojala.pipeline.ingest.spectra import ingest_spectra
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import ConfigError, RunConfig, read_config
from tests.helpers import spectra_files
from tests.helpers.survey import Finished, run_and_publish

pytestmark = [pytest.mark.integration, pytest.mark.processor]


class Remark(enum.IntFlag):
    NO_PIXELS = 1
    OUT_OF_RANGE = 2


FLAG_MEANINGS = {Remark.NO_PIXELS: "nothing to read", Remark.OUT_OF_RANGE: "out of its range"}

BRIGHTNESS = Contract(
    name="brightness",
    version="1.0.0",
    title="Brightness",
    description="One row for each spectrum.",
    columns=(
        *(SPECTRA[name] for name in KEY_NAMES),
        Column("z", pa.float32(), "", "src.redshift", "redshift", minimum=0.0, maximum=6.0),
        Column("flags", pa.int32(), "", "meta.code.qual", "bit mask", nullable=False),
    ),
    flag_meanings=FLAG_MEANINGS,
)
SHAPES = Contract(
    name="shapes",
    version="1.0.0",
    title="Shapes",
    description="The first three pixels of each spectrum.",
    columns=(
        *(SPECTRA[name] for name in KEY_NAMES),
        Column("shape", pa.list_(pa.float16(), 3), "", "stat.fit.param", "pixels", nullable=False),
    ),
)


class Photometer:
    """Predicts the median flux in place of a redshift."""

    name, version, device, batch_size = "photometer", "1", "cpu", 8

    def __init__(self, path: Path) -> None:
        self.weights_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    @classmethod
    def load(cls, weights_path, device, precision, batch_size):
        return cls(weights_path)

    def halve_batch(self):
        self.batch_size //= 2

    def predict(self, spectra: Spectra) -> dict[str, np.ndarray]:
        z = [np.median(flux[ivar > 0]) if (ivar > 0).any() else np.nan for _, flux, ivar in spectra]
        return {
            "z": np.array(z, np.float32),
            "flags": np.isnan(z).astype(np.int32),
            "shape": np.stack([flux[:3] for _, flux, _ in spectra]),
        }


class PhotometerAdapter(SpectralAdapter):
    name = "photometer"
    main = BRIGHTNESS
    extended = (SHAPES,)

    def load(self, spec):
        return Photometer.load(Path(spec.weights), spec.device, spec.precision, spec.batch_size)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    weights = tmp_path_factory.mktemp("weights") / "photometer.safetensors"
    weights.write_bytes(b"weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhotometerAdapter, "weights_file", str(weights))
        patch.setitem(ADAPTERS.classes, "photometer", f"{__name__}:PhotometerAdapter")
        yield PhotometerAdapter()


@pytest.fixture(scope="module")
def spectra(tmp_path_factory) -> UPath:
    sources = tmp_path_factory.mktemp("sources")
    for number in range(4):
        spectra_files.make_sdss(sources / f"spec-{number}.fits", ra=150.0 + number)
    spectra_files.make_lamost(sources / "lamost.fits")
    out = UPath(tmp_path_factory.mktemp("catalogue") / "spectra")
    ingest_spectra([UPath(sources)], out, tile_rows=2)
    return out


@pytest.fixture(scope="module")
def finished(adapter, spectra, tmp_path_factory) -> Finished:
    out = tmp_path_factory.mktemp("out")
    places = {"spectra": str(spectra), "out": str(out)}
    asked = RunConfig(**places, model=adapter.name, engine="serial", vectors=True, workers=1, margins=True)
    return run_and_publish(asked, report=True)


def test_every_spectrum_is_a_row_of_each_product(finished, spectra):
    assert finished.record.status == "complete"
    assert finished.record.products == ("brightness", "shapes")
    given = {row["object_id"]: row for row in rows(spectra)}
    for product in finished.record.products:
        made = {row["object_id"]: row for row in rows(finished.run / product)}
        assert made.keys() == given.keys()
    brightness = {row["object_id"]: row["z"] for row in rows(finished.run / "brightness")}
    for object_id, row in given.items():
        median = np.median(np.array(row["flux"])[np.array(row["ivar"]) > 0])
        assert brightness[object_id] == pytest.approx(median, rel=1e-6)


def rows(catalogue: UPath) -> list[dict]:
    leaves = (catalogue / "dataset").rglob("Npix=*.parquet")
    return [row for path in leaves for row in pq.read_table(path.path).to_pylist()]


def test_the_release_is_an_extension_of_the_spectra(finished):
    catalogue = lsdb.open_catalog(finished.config.out).load_extension("brightness")
    found = catalogue.compute()
    assert len(found) == 5
    assert {"wavelength", "z", "z_brightness"} <= set(found.columns)


def test_a_release_of_spectra_is_verified(finished):
    assert list(verify(UPath(finished.config.out))) == []
    leaf = next((finished.run / "shapes" / "dataset").rglob("Npix=*.parquet"))
    content = leaf.read_bytes()
    try:
        leaf.write_bytes(content[:-1])
        assert str(leaf) in {damage.file for damage in verify(UPath(finished.config.out))}
    finally:
        leaf.write_bytes(content)


def test_the_report_counts_what_was_answered(finished):
    page = (finished.run / "report" / "index.html").read_text()
    assert "predicted" in page
    assert "nothing to read" in page
    assert "What was observed" not in page


def test_a_value_out_of_its_range_is_null_and_flagged(spectra):
    leaf = next((spectra / "dataset").rglob("Npix=*.parquet"))
    table = pq.read_table(leaf.path).slice(0, 1)
    made = build_table(
        BRIGHTNESS, table, {"z": np.array([7.0]), "flags": np.array([Remark.NO_PIXELS], np.int32)}
    )
    assert made["z"].to_pylist() == [None]
    assert made["flags"].to_pylist() == [Remark.NO_PIXELS | Remark.OUT_OF_RANGE]
    assert not BRIGHTNESS.violations(made)


def test_an_answer_that_is_missing_is_not_taken_from_the_spectra(spectra):
    leaf = next((spectra / "dataset").rglob("Npix=*.parquet"))
    with pytest.raises(KeyError, match="does not predict z"):
        build_table(BRIGHTNESS, pq.read_table(leaf.path), {"flags": np.zeros(1)})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"model": "photometer", "photometry": "p"},
            "model photometer reads spectra: give --spectra",
        ),
        (
            {"model": "ojala", "spectra": "s"},
            "model ojala reads photometry: give --photometry",
        ),
        ({"model": "ojala", "photometry": "p", "spectra": "s"}, "leave --spectra out"),
    ],
)
def test_a_model_is_given_what_it_reads(adapter, flags, message):
    with pytest.raises(ConfigError, match=message):
        read_config(None, {"out": "o", **flags})
