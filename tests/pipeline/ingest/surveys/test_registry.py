"""A reader is one module with a decorated function; it needs no other line of code."""

import numpy as np
import pytest
from upath import UPath

from ojala.pipeline.ingest.spectra import ingest_spectra
from ojala.pipeline.ingest.surveys import reader as registry
from ojala.pipeline.ingest.surveys.label_tables import LabelTable
from ojala.pipeline.ingest.surveys.reader import FileKind, group_reader, label_reader, reader, register
from ojala.pipeline.ingest.surveys.spectrum import Spectrum, name_key


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """The registry as it is, to which a test adds."""
    registry.file_kinds()
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))


def words(path):
    wavelength, flux = np.loadtxt(path, skiprows=1, unpack=True)
    return wavelength, flux


def spectrum(name, wavelength, flux, z=0.1):
    return Spectrum(
        name, "OTHER", wavelength, flux, np.ones_like(flux), 10.0, 2.0, "GALAXY", z=z, trusted=True
    )


def test_a_registered_reader_is_used(tmp_path):
    @reader("word spectrum", "a word spectrum", head=lambda head: head.startswith(b"WORD"))
    def read_word(path, labels):
        return spectrum(path.stem, *words(path))

    (tmp_path / "a.txt").write_text("WORD\n5000 1\n5001 2\n5002 3\n")
    summary = ingest_spectra([UPath(tmp_path / "a.txt")], UPath(tmp_path / "out"))
    assert summary.counts == {"OTHER": {"GALAXY": 1}}
    assert summary.inputs[0].kind == "word spectrum"


def test_files_of_one_spectrum_are_read_together_with_labels_of_a_table(tmp_path):
    @group_reader(
        "arm", "an arm", group=lambda path: path.stem[:-1], fits=lambda hdus: "ARM" in hdus[0].header
    )
    def read_arms(paths, labels):
        from astropy.io import fits

        arms = [fits.getdata(path) for path in paths]
        (known,) = labels.lookup("OTHER", [name_key(paths[0].stem[:-1])])
        wavelength, flux = np.concatenate(arms, axis=1).astype(float)
        yield spectrum(paths[0].stem[:-1], wavelength, flux, known.z)

    @label_reader("word labels", "word labels", head=lambda head: head.startswith(b"LABELS"))
    def read_labels(path):
        return LabelTable("OTHER", 0, np.array([name_key("star")]), {"z": np.array([0.25])})

    from astropy.io import fits

    for k, first in enumerate((4000.0, 5000.0)):
        header = fits.Header({"ARM": k})
        fits.writeto(tmp_path / f"star{k}.fits", np.array([first + np.arange(4), np.ones(4)]), header)
    (tmp_path / "labels.txt").write_text("LABELS")
    summary = ingest_spectra([UPath(tmp_path)], UPath(tmp_path / "out"))
    assert (summary.spectra, summary.without_redshift) == (1, 0)
    assert [(one.name, one.spectra) for one in summary.inputs] == [
        ("labels.txt", 0),
        ("star0.fits", 1),
        ("star1.fits", 0),
    ]


def test_two_readers_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two readers of 'DESI coadd'"):
        register(FileKind("DESI coadd", "twice"))
