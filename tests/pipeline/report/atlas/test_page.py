"""The page of the atlas shows what the catalogues hold."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.visualization import make_lupton_rgb
from PIL import Image
from upath import UPath

from ojala.catalogs_schema.avis import AVIS
from ojala.flows.mocks.pairs import PairSky
from ojala.models.avis.atlas import write_atlas
from ojala.models.checkpoint import file_sha256
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.skies.photometric import MockSky
from ojala.pipeline.report.atlas import page as atlas_page
from ojala.pipeline.report.atlas.page import BINS, GAP, binned_spectrum, subtype, write_atlas_page
from ojala.pipeline.report.atlas.rows import PARTITION, read_rows, with_pictures
from ojala.pipeline.report.atlas.thumbnails import ACROSS, half_light, morphology
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers.avis_survey import make_mock_catalogues, save_small_weights, toy_atlas
from tests.helpers.survey import Finished, run_and_publish
from tests.models.simulation.small_library import box_curves, libraries

pytestmark = pytest.mark.integration

N = 60


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    """A run over simulated pairs, placed in an atlas of nothing."""
    folder = tmp_path_factory.mktemp("mock")
    sky = PairSky(MockSky(libraries(), Photometer(box_curves())))
    spectra, cutouts = make_mock_catalogues(folder, sky.draw(N, np.random.default_rng(3)))
    weights = folder / "small.safetensors"
    save_small_weights(weights)
    write_atlas(folder / "small-atlas.safetensors", toy_atlas(file_sha256(weights)))
    settings = {"spectra": str(spectra), "cutouts": str(cutouts), "out": str(folder / "out")}
    settings |= {"model": "avis", "weights": str(weights), "engine": "serial", "workers": 1}
    return run_and_publish(RunConfig.model_validate(settings), report=True)


def decoded(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


@pytest.fixture(scope="module")
def data(finished) -> dict:
    """What the page holds; numbers and words decoded, by object."""
    page = (finished.run / "report" / "atlas.html").read_text()
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    held = json.loads(found[1])
    objects: dict = {name: decoded(text, "<f4") for name, text in held["numbers"].items()}
    for name, coded in held["words"].items():
        objects[name] = [coded["words"][k - 1] if k else None for k in decoded(coded["codes"], "<u2")]
    objects |= {"id": held["names"], "key": decoded(held["key"], "<i8")}
    objects["picture"] = decoded(held["picture"], "<i4")
    assert {len(values) for values in objects.values()} == {held["count"]}
    return held | {"objects": objects}


def rows_of(root: UPath) -> dict[int, dict]:
    tables = [pq.read_table((root / partition.leaf).path) for partition in read_leaves(root)]
    return {row["object_id"]: row for row in pa.concat_tables(tables).to_pylist()}


@pytest.fixture(scope="module")
def catalogues(finished) -> dict[str, tuple[dict, dict, dict]]:
    """Rows of spectra, cut-outs and product by the name on the page."""
    spectra, cutouts, product = (
        rows_of(UPath(root))
        for root in (finished.config.spectra, finished.config.cutouts, str(finished.run / "avis"))
    )
    return {
        f"{row['survey']} {row['source_id']}": (row, cutouts[key], product[key])
        for key, row in spectra.items()
    }


def test_every_object_has_the_values_of_its_rows(data, catalogues):
    objects = data["objects"]
    assert sorted(objects["id"]) == sorted(
        name for name, (*_, row) in catalogues.items() if row["map_x"] is not None
    )
    assert len(objects["id"]) > 0.9 * N
    for i, name in enumerate(objects["id"]):
        spectrum, cutout, row = catalogues[name]
        assert objects["type"][i] == spectrum["class"]
        assert objects["z"][i] == pytest.approx(spectrum["z"], abs=1e-5)
        assert objects["cluster"][i] == (None if row["cluster"] < 0 else str(row["cluster"]))
        assert objects["key"][i] == spectrum["object_id"]
        assert objects["picture"][i] == i, "all are pictured"
        assert data["spectra"]["image"][i] == (cutout["bands"] != "NONE")
        for column in ("map_x", "map_y", "map3_x", "map3_y", "map3_z", "z_nn", "novelty"):
            assert objects[column][i] == pytest.approx(row[AVIS.name_of(column)], abs=1e-3)


def test_spectra_are_means_in_bins(data, catalogues):
    coded = np.frombuffer(base64.b64decode(data["spectra"]["values"]), "<u2").reshape(-1, BINS)
    shown = data["spectra"]
    for i in range(0, len(coded), 7):
        spectrum = catalogues[data["objects"]["id"][i]][0]
        wavelength, flux, ivar = (np.array(spectrum[name]) for name in ("wavelength", "flux", "ivar"))
        used = ivar > 0.0
        inside = used & (wavelength >= wavelength[used][0])
        at = np.linspace(shown["first"][i], shown["last"][i], BINS + 1)
        k = 150
        within = inside & (wavelength >= at[k]) & (wavelength < at[k + 1])
        mean = (flux * ivar)[within].sum() / ivar[within].sum()
        drawn = shown["low"][i] + coded[i, k] / (GAP - 1) * (shown["high"][i] - shown["low"][i])
        assert drawn == pytest.approx(mean, abs=0.02 * (shown["high"][i] - shown["low"][i]))


def test_pictures_are_the_objects_cutouts(finished, data, catalogues):
    sheet = np.asarray(Image.open(io.BytesIO((finished.run / "report" / "atlas-cutouts.jpg").read_bytes())))
    for i in range(0, len(data["objects"]["id"]), 9):
        flux = np.reshape(catalogues[data["objects"]["id"][i]][1]["image"], (3, 64, 64))
        expected = make_lupton_rgb(0.65 * flux[2], flux[1], 1.76 * flux[0], stretch=0.6, Q=8)[::-1]
        row, column = divmod(i, ACROSS)
        tile = sheet[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64].astype(float)
        assert np.corrcoef(tile.mean(axis=2).ravel(), expected.mean(axis=2).ravel())[0, 1] > 0.8
        assert np.abs(tile - expected).mean() < 8.0


def test_the_map_is_coloured_by_what_is_known(data):
    names = {one["name"]: one for one in data["colours"]}
    assert names["type"]["words"] == ["GALAXY", "STAR", "QSO"]
    assert {"z", "z_nn", "cluster", "morphology", "radius", "novelty"} <= names.keys()
    assert "subtype" not in names, "the mock survey tells none"


def test_the_page_needs_no_network_and_is_linked_from_the_report(finished):
    report = finished.run / "report"
    page = (report / "atlas.html").read_text()
    assert "http" not in page.split('id="data"')[0]
    assert "<script src" not in page
    assert 'href="atlas.html"' in (report / "index.html").read_text()
    assert json.loads((report / "quality.json").read_text())["atlas"]["rows"] > 0.9 * N


def write_again(finished: Finished, folder: Path) -> dict:
    run, source, beside = finished.run, UPath(finished.config.spectra), UPath(finished.config.cutouts)
    done = list(read_leaves(run / "avis"))
    return write_atlas_page(UPath(folder), "again", run, source, beside, done)


def test_a_large_survey_is_shown_by_rows_from_all_of_it(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(atlas_page, "SHOWN", 20)
    monkeypatch.setattr(atlas_page, "PICTURED", 6)
    assert write_again(finished, tmp_path)["rows"] == 20
    sheet = Image.open(tmp_path / "atlas-cutouts.jpg")
    assert sheet.size == (64 * ACROSS, 64)
    assert '"first":[' in (tmp_path / "atlas.html").read_text()
    run, source, beside = finished.run, UPath(finished.config.spectra), UPath(finished.config.cutouts)
    chosen = list(read_leaves(run / "avis"))
    rows = read_rows(run / "avis", source, chosen, 20)
    known = rows_of(source)
    names = [known[key]["source_id"] for key in rows["object_id"].to_pylist()]
    assert names == rows["spectra.source_id"].to_pylist()
    assert len(set(rows["object_id"].to_pylist())) == 20
    pictured = with_pictures(rows.take(np.arange(0, 20, 3)), source, beside, chosen)
    assert pictured["object_id"].to_pylist() == rows["object_id"].to_pylist()[::3]
    assert len(pictured["spectra.flux"][0]) == len(known[pictured["object_id"][0].as_py()]["flux"])
    assert set(np.unique(rows[PARTITION])) <= set(range(len(chosen)))


def test_half_of_the_light_is_within_the_half_light_radius():
    rows, columns = np.indices((64, 64))
    squared = (rows - 31.3) ** 2 + (columns - 31.62) ** 2
    widths = np.array([2.0, 4.0, 4.0, 4.0])
    flux = np.exp(-0.5 * squared / widths[:, None, None] ** 2) * 100.0
    ivar = np.full(flux.shape, 1.0)
    flux[2] *= 1e-4
    x, y = np.array([31.62, 31.62, 31.62, 4.0]), np.full(4, 31.3)
    found = half_light(flux, ivar, x, y)
    np.testing.assert_allclose(found[:2], 1.1774 * widths[:2] * 0.262, rtol=0.06)
    assert np.isnan(found[2:]).all(), "too faint, and too near to the edge"
    psf = np.array([2.3548 * 2.0, 2.3548 * 2.0, 4.0, np.nan]) * 0.262
    assert morphology(found, psf).tolist() == ["like a point", "extended", "", ""]


def test_bins_without_a_pixel_are_gaps():
    wavelength = np.concatenate([np.linspace(4000.0, 5000.0, 800), np.linspace(6000.0, 7000.0, 800)])
    binned, first, last = binned_spectrum(wavelength, np.ones(1600), np.ones(1600))
    assert (first, last) == (4000.0, 7000.0)
    known = np.isfinite(binned)
    np.testing.assert_allclose(binned[known], 1.0)
    assert 0.6 < known.mean() < 0.7


@pytest.mark.parametrize(
    ("word", "letter"),
    [
        ("G5", "G"),
        ("dM2", "M"),
        ("sdB1", "B"),
        ("WD (1234)", "WD"),
        ("STARFORMING", None),
        ("F5 (30743)", "F"),
    ],
)
def test_stars_are_coloured_by_the_letter_of_their_class(word, letter):
    assert subtype(word) == letter
