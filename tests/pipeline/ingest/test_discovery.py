"""Files of a request: folders, HATS catalogues and collections, here and on an object store."""

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from ojala.pipeline.ingest.discovery import discover_files, local_copy
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.spectra import ingest_spectra
from tests.helpers import mmu_files


class Hub(MemoryFileSystem):
    """Stands for the file system of Hugging Face; a file is fetched by get_file alone."""

    protocol = "hf"
    fetched: list[str] = []  # noqa: RUF012 - read and emptied by the test

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("hf://"))

    def get_file(self, rpath, lpath, **options):
        self.fetched.append(rpath)
        return super().get_file(rpath, lpath, **options)


@pytest.fixture
def hub(monkeypatch):
    fsspec.register_implementation("hf", Hub, clobber=True)
    monkeypatch.setattr(Hub, "store", {})
    monkeypatch.setattr(Hub, "fetched", [])
    yield Hub()
    fsspec.register_implementation("hf", "huggingface_hub.HfFileSystem", clobber=True)


def names(source):
    found, _ = discover_files([UPath(source)], lambda path: path.name)
    return [str(path).partition("/mmu_")[2] for path in found]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    wavelength, flux = [5000.0, 5001.0, 5002.0], [1.0, 2.0, 3.0]
    rows = [
        mmu_files.plain_row("SDSS", str(k), wavelength, flux, flux, Z=0.1, ra=10.0 + k, dec=2.0)
        for k in range(3)
    ]
    return mmu_files.write_hats(tmp_path_factory.mktemp("hats") / "mmu", rows)


def test_a_collection_stands_for_the_leaves_of_its_main_catalogue(collection):
    for source in (collection, collection.parent, collection / "mmu_sdss_sdss"):
        assert names(source) == ["sdss_sdss/dataset/Norder=0/Dir=0/Npix=4.parquet"]


def test_a_collection_on_an_object_store_is_read_file_by_file_once(collection, hub, tmp_path):
    for path in collection.rglob("*"):
        if path.is_file():
            hub.pipe_file(f"/datasets/UniverseTBD/mmu/{path.relative_to(collection)}", path.read_bytes())
    here, there = tmp_path / "here", tmp_path / "there"
    ingest_spectra([UPath(collection)], UPath(here))
    summary = ingest_spectra([UPath("hf://datasets/UniverseTBD/mmu")], UPath(there))
    assert summary.spectra == 3
    assert len(hub.fetched) == 1
    leaves = sorted(path.relative_to(here) for path in here.rglob("Npix=*.parquet"))
    assert leaves
    for leaf in leaves:
        assert (here / leaf).read_bytes() == (there / leaf).read_bytes()


def test_what_cannot_be_fetched_or_opened_is_named(hub, tmp_path, monkeypatch):
    with (
        pytest.raises(SourceError, match="cannot be fetched"),
        local_copy(UPath("hf://a/b"), UPath(tmp_path)),
    ):
        pass
    monkeypatch.setattr("upath.UPath.is_dir", lambda self: (_ for _ in ()).throw(ImportError("no hub")))
    with pytest.raises(IngestError, match=r"hf:/+a needs a package .*no hub.*pip install '.\[hf\]'"):
        discover_files([UPath("hf://a")], lambda path: path)
