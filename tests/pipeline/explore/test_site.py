"""The site of a release in Chromium: objects by key and position, table, bytes, and hostile names."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import CLASSES, OJALA, OJALA_BANDS, OJALA_VECTORS
from ojala.pipeline.explore import site, write_site
from ojala.pipeline.explore.table import TableWriter
from ojala.pipeline.report.render import render
from ojala.pipeline.runs import published as releases
from ojala.pipeline.runs.published import class_column, flags_column
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers.browser import CHROMIUM, WHY, Page, Served, browser, served
from tests.helpers.commands import here
from tests.helpers.pace import scaled
from tests.helpers.releases import make_release
from tests.pipeline.report.small_run import report

pytestmark = pytest.mark.integration

with_browser = pytest.mark.skipif(CHROMIUM is None, reason=WHY)
EVIL = '"><img src=x onerror=window.ran=1><script>window.ran=1</script>'
CLASS, FLAGS = class_column(OJALA), flags_column(OJALA)


@pytest.fixture(scope="module")
def release(photometry, tmp_path_factory) -> UPath:
    return make_release(
        photometry, UPath(tmp_path_factory.mktemp("release")), (OJALA, OJALA_VECTORS, OJALA_BANDS)
    )


@pytest.fixture(scope="module")
def rows(release) -> dict[int, dict]:
    root = release / "products" / OJALA.name
    parts = [pq.read_table((root / one.leaf).path, partitioning=None) for one in read_leaves(root)]
    return {row["object_id"]: row for row in pa.concat_tables(parts).to_pylist()}


@pytest.fixture(scope="module")
def written(release, tmp_path_factory) -> Path:
    """The site, in blocks of few objects."""
    folder = tmp_path_factory.mktemp("site") / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "BLOCK_ROWS", 16)
        patch.setattr(site, "ID_ROWS", 100)
        done = here("explore", release, "--out", folder, "--column", "photometry.ebv", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["objects"] == 300
    return folder


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture
def server(written) -> Iterator[Served]:
    with served(written) as running:
        yield running


def show(page: Page, server: Served, place: str, name: str) -> None:
    page.open(f"{server.url}/index.html#{place}")
    page.wait(f"document.querySelector('#main')?.dataset.page === '{name}'")


def text(page: Page) -> str:
    return page.run("document.body.innerText")


def number_of(page: Page) -> int:
    return int(re.search(r"Object (\d+)", text(page))[1])


def test_every_object_is_in_the_site_once_with_the_values_of_its_leaves(written, rows):
    blocks = [pq.read_table(path) for path in sorted((written / "data" / "objects").rglob("*.parquet"))]
    records = pa.concat_tables(blocks).to_pylist()
    assert sorted(row["object_id"] for row in records) == sorted(rows)
    for row in records:
        assert row[f"ojala.{CLASS.name}"] == rows[row["object_id"]][CLASS.name]
        assert row["ojala.z"] == rows[row["object_id"]]["z"]
    table = pq.read_table(written / "data" / "table")
    assert sorted(table["object_id"].to_pylist()) == sorted(rows)
    assert "photometry.ebv" in table.column_names


def test_a_release_that_cannot_be_shown_is_refused_and_nothing_is_written(release, tmp_path):
    with pytest.raises(InputError, match="is no HATS collection"):
        write_site(UPath(tmp_path), UPath(tmp_path / "site"))
    with pytest.raises(InputError, match=r"--column ojala\.redshift: no such column.*ojala_bands"):
        write_site(release, UPath(tmp_path / "site"), columns=["ojala.redshift"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(InputError, match="has files"):
        write_site(release, UPath(tmp_path / "full"))
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_failed_writing_leaves_no_half_of_a_site(release, tmp_path, monkeypatch):
    def fail(sky):
        raise OSError("no space left")

    monkeypatch.setattr(site, "_view", fail)
    with pytest.raises(OSError, match="no space"):
        write_site(release, UPath(tmp_path / "site"))
    assert not list(tmp_path.iterdir())


def test_the_vendored_files_are_those_of_their_readme_and_small():
    vendor = Path(site.__file__).parent / "vendor"
    stated = dict(
        reversed(line.split())
        for line in (vendor / "README.md").read_text().splitlines()
        if line[:4] == "    "
    )
    scripts = {str(path.relative_to(vendor)): path for path in vendor.rglob("*.js")}
    for name, path in scripts.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == stated[name], name
    assert sum(path.stat().st_size for path in vendor.rglob("*")) < 10e6
    assert all((folder / "LICENSE").exists() for folder in vendor.iterdir() if folder.is_dir())


@with_browser
@pytest.mark.parametrize("ranges", [True, False])
def test_an_object_is_found_by_key_for_less_than_a_megabyte(page, server, rows, ranges):
    server.ranges = ranges
    key = sorted(rows)[137]
    show(page, server, f"object/{key}", "object")
    assert number_of(page) == key
    assert server.bytes_of("/data/") < 1e6
    shown, row = text(page), rows[key]
    assert row[CLASS.name] in shown
    assert f"{row['p_qso']:.3f}" in shown
    for flag, meaning in OJALA.flag_meanings.items():
        assert (meaning in shown) == bool(row[FLAGS.name] & flag)
    for section in ("Photometry", "Class", "Redshift", "Properties", "Neighbours on the sky", "Provenance"):
        assert section in shown
    links = page.run("[...document.querySelectorAll('#main a[target]')].map(one => one.href).join(' ')")
    assert "simbad.cds.unistra.fr" in links
    assert "legacysurvey.org" in links
    assert page.run("document.querySelectorAll('figure.chart circle').length") > 40
    assert not page.faults()


@with_browser
def test_an_object_is_found_by_position_also_next_to_the_border_of_a_partition(page, server, rows, release):
    first_of_leaf = [
        pq.read_table((release / "products/ojala" / one.leaf).path, partitioning=None)["object_id"][0].as_py()
        for one in read_leaves(release / "products/ojala")
    ]
    show(page, server, "table", "table")
    for key in first_of_leaf[:4]:
        place = rows[key]
        query = json.dumps(f"{place['ra'] + 1e-4}, {place['dec'] - 1e-4}")
        page.run(f"document.querySelector('#query').value = {query}")
        page.run("document.querySelector('#find button').click()")
        page.wait(f"document.querySelector('#main h2')?.textContent === 'Object {key}'")
    page.run("document.querySelector('#query').value = '10, -80'")
    page.run("document.querySelector('#find button').click()")
    page.wait("document.querySelector('#status').textContent.includes('No object within')")


@with_browser
def test_a_key_that_is_not_there_and_a_wrong_word_are_said(page, server):
    page.open(f"{server.url}/index.html#object/1")
    page.wait("document.querySelector('#status').textContent.includes('no object 1')")
    page.run("document.querySelector('#query').value = 'M31'")
    page.run("document.querySelector('#find button').click()")
    page.wait("document.querySelector('#status').textContent.includes('neither a key nor a position')")


@with_browser
def test_a_cut_on_class_and_redshift_has_the_rows_of_the_catalogue(page, server, rows):
    cut = [[f"ojala.{CLASS.name}", {"words": ["QSO"]}], ["ojala.z", {"low": 1.0, "high": 2.5}]]
    show(page, server, "table/" + urllib.parse.quote(json.dumps(cut)), "table")
    wanted = {key for key, row in rows.items() if row[CLASS.name] == "QSO" and 1.0 <= row["z"] <= 2.5}
    assert int(page.run("document.querySelector('#outcome').dataset.matched")) == len(wanted)
    shown = page.run("[...document.querySelectorAll('table.rows a')].map(one => one.textContent)")
    assert {int(one) for one in shown} <= wanted
    assert len(shown) == min(25, len(wanted))
    assert int(page.run("document.querySelector('#plot').dataset.points")) == len(wanted)


@with_browser
@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True)])
def test_pages_fit_their_width_name_their_controls_and_load_nothing_from_elsewhere(
    page, server, rows, width, mobile
):
    page.resize(width, mobile=mobile)
    for place, name in (("table", "table"), (f"object/{min(rows)}", "object"), ("sky", "sky")):
        show(page, server, place, name)
        assert page.run("document.documentElement.scrollWidth") <= width, place
        assert all(url.startswith(server.url) for url in page.requests()), place
        nameless = page.run(
            "[...document.querySelectorAll('#main input, #main select, header input')].filter(one => "
            "!one.closest('#sky') && !one.labels?.length && !one.ariaLabel).length"
        )
        assert nameless == 0, place
        assert not page.faults(), place
    assert page.run("document.querySelector('#sky').dataset.ready") == "true", text(page)
    page.resize(1280)


@with_browser
def test_the_sky_lists_the_objects_next_to_a_place(page, server, rows):
    key = sorted(rows)[20]
    show(page, server, f"sky/{rows[key]['ra']},{rows[key]['dec']}", "sky")
    assert str(key) in text(page)
    assert page.run("document.querySelectorAll('#sky canvas').length") > 0


@with_browser
def test_hostile_names_and_values_run_nothing(page, photometry, tmp_path, monkeypatch):
    evil = replace(
        OJALA,
        columns=tuple(
            replace(one, name=EVIL, unit=EVIL, description=EVIL) if one.name == "novelty" else one
            for one in OJALA
        ),
        title=EVIL,
        description=EVIL,
        flag_meanings=dict.fromkeys(OJALA.flag_meanings, EVIL),
    )
    monkeypatch.setattr(releases, "CONTRACTS", tuple(evil if c is OJALA else c for c in releases.CONTRACTS))
    folder = tmp_path / EVIL.replace("/", "")
    folder.mkdir()
    out = make_release(photometry, UPath(folder), (evil,), word=EVIL)
    write_site(out, UPath(tmp_path / "site"), title=EVIL)
    key = json.loads((tmp_path / "site/data/release.json").read_text())["ids"]["first"][0]
    with served(tmp_path / "site") as server:
        for place, name in (("table", "table"), (f"object/{key}", "object")):
            show(page, server, place, name)
            assert "onerror" in text(page), "the text is there, as text"
            assert page.run("window.ran") is None, place
            assert not page.run("document.querySelector('#main img[onerror], header img')"), place
        page.open(f"{server.url}/index.html#object/{urllib.parse.quote(EVIL)}")
        page.wait("document.querySelector('#status').textContent.includes('no key')")
        assert page.run("window.ran") is None


def base64_of(values: list, kind: str) -> str:
    return base64.b64encode(np.array(values, kind).tobytes()).decode()


def atlas_data(n: int, word: str = "GALAXY", seed: int = 1) -> dict:
    """Data of a page of the atlas: a cloud of objects with one word in all places, none with a picture."""
    rng = np.random.default_rng(seed)
    numbers = ("z", "radius", "snr", "z_nn", "z_nn_err", "novelty", "cluster_prob")
    maps = ("map_x", "map_y", "map3_x", "map3_y", "map3_z")
    coded = {"words": [word], "codes": base64_of([1] * n, "<u2")}
    return {
        "count": n,
        "names": [word] * n,
        "key": base64_of(range(n), "<i8"),
        "picture": base64_of([-1] * n, "<i4"),
        "words": dict.fromkeys(("type", "subtype", "morphology", "cluster", "flags"), coded),
        "numbers": {name: base64_of(rng.random(n), "<f4") for name in (*numbers, *maps)},
        "spectra": {"values": "", "first": [], "last": [], "low": [], "high": [], "image": []},
        "colours": [
            {"name": "type", "title": word, "kind": "words", "words": [word]},
            {"name": "z", "title": "redshift", "kind": "log1p"},
        ],
        **{"across": 40, "gap": 65535, "bins": 0},
    }


def write_atlas(folder: Path, data: dict, name: str = "run") -> None:
    shown = {"name": name, "rows": data["count"], "sheet": "sheet.jpg", "others": "others", "width": "16.8"}
    shown["data"] = json.dumps(data).replace("<", "\\u003c")
    (folder / "atlas.html").write_text(render("atlas.html.j2", shown))


@with_browser
def test_hostile_names_run_nothing_in_the_page_of_the_atlas(page, tmp_path):
    write_atlas(tmp_path, atlas_data(3, EVIL), EVIL)
    with served(tmp_path) as server:
        page.open(f"{server.url}/atlas.html")
        page.wait("document.querySelector('#facts tr') && document.querySelector('#legend li')")
        assert page.run("window.ran") is None
        assert "onerror" in page.run("document.querySelector('#legend li').textContent")
        assert not page.run("document.querySelector('img')")


@with_browser
def test_a_hundred_thousand_objects_are_drawn_turned_and_coloured_at_once(page, tmp_path):
    write_atlas(tmp_path, atlas_data(100_000))
    page.open(f"file://{tmp_path}/atlas.html")
    drawn = "Number(document.body.dataset.milliseconds)"
    page.wait(drawn, 60)
    milliseconds = {"2-D": page.run(drawn)}
    page.run("element('deep').click()")
    page.run("draw()")
    milliseconds["3-D"] = page.run(drawn)
    page.run("element('colour').value = 'z'; element('colour').onchange({target: element('colour')}); draw()")
    milliseconds["redshift"] = page.run(drawn)
    print(milliseconds)
    assert max(milliseconds.values()) < scaled(1.0) * 1000
    assert "100,000" in page.run("element('known').textContent")
    assert page.run("(i => nearest({offsetX: X[i], offsetY: Y[i]}) >= 0)(12345)")
    assert not page.faults()


@with_browser
def test_the_atlas_of_a_site_reads_an_object_when_it_is_clicked(page, written, rows, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(written, folder)
    (folder / "atlas").mkdir()
    keys = sorted(rows)
    write_atlas(folder / "atlas", atlas_data(len(keys)) | {"key": base64_of(keys, "<i8")})
    html = (folder / "atlas" / "atlas.html").read_text()
    (folder / "atlas" / "atlas.html").write_text(html.replace("<body>", '<body data-site="../">'))
    with served(folder) as server:
        page.open(f"{server.url}/atlas/atlas.html")
        page.wait("document.body.dataset.milliseconds")
        link = "document.querySelector('#remark a')?.href"
        for i in (0, 123):
            page.run(f"show({i})")
            page.wait(f"{link}?.endsWith('/index.html#object/{keys[i]}')")
        assert page.run(link).startswith(f"{server.url}/index.html")
        assert not page.faults()


@with_browser
def test_hostile_names_run_nothing_in_the_report(page, small_run, tmp_path):
    folder = tmp_path / EVIL.replace("/", "")
    folder.mkdir()
    photometry = folder / "photometry"
    photometry.symlink_to(Path(str(small_run.photometry)))
    (folder / "runs").symlink_to(Path(str(small_run.out)) / "runs")
    written = report(UPath(folder), UPath(photometry), small_run.receipts, None)
    with served(Path(str(written)).resolve()) as server:
        page.open(f"{server.url}/index.html")
        page.wait("document.readyState === 'complete'")
        assert "onerror" in text(page)
        assert page.run("window.ran") is None
        assert not page.run("document.querySelector('img')")


@with_browser
def test_a_cut_over_ten_million_rows_answers_in_three_seconds(page, written, tmp_path, request):
    if not request.config.getoption("--soak"):
        pytest.skip("ten million rows are part of the long form (--soak)")
    big = tmp_path / "site"
    shutil.copytree(written, big)
    rows = pq.read_table(big / "data" / "table")
    shutil.rmtree(big / "data" / "table")
    table = TableWriter(UPath(big / "data" / "table"), rows.column_names[3:])
    rng = np.random.default_rng(1)
    for _ in range(20):
        table.add(rows.take(pa.array(rng.integers(0, rows.num_rows, 500_000))))
    table.close()
    about = json.loads((big / "data" / "release.json").read_text())
    about["table"]["files"] = table.files
    (big / "data" / "release.json").write_text(json.dumps(about))
    cut = [[f"ojala.{CLASS.name}", {"words": [CLASSES[2]]}], ["ojala.z", {"low": 1.0, "high": 1.1}]]
    with served(big) as server:
        page.open(f"{server.url}/index.html#table/" + urllib.parse.quote(json.dumps(cut)))
        page.wait("document.querySelector('#outcome')?.dataset.seconds", 120)
        seconds = float(page.run("document.querySelector('#outcome').dataset.seconds"))
        print(
            page.run("document.querySelector('#outcome').textContent"), f"{server.bytes_of('/data/'):,} bytes"
        )
        assert "10,000,000" in text(page)
        assert seconds < scaled(3.0)
