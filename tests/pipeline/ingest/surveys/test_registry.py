"""A survey is one module with its kinds of files and one entry of the registry."""

import numpy as np
from upath import UPath

from ojala.pipeline.ingest.spectra import ingest_spectra
from ojala.pipeline.ingest.surveys import detect
from ojala.pipeline.ingest.surveys.kind import FileKind
from ojala.pipeline.ingest.surveys.spectrum import Spectrum


def read(path, labels):
    wavelength, flux = np.loadtxt(path, skiprows=1, unpack=True)
    yield Spectrum(
        path.stem, "SDSS", wavelength, flux, np.ones_like(flux), "GALAXY", "", 0.1, True, 10.0, 2.0
    )


def test_a_registered_kind_of_spectra_is_ingested(tmp_path, monkeypatch):
    kind = FileKind("word spectrum", "a word spectrum", None, lambda head: head.startswith(b"WORD"), read)
    monkeypatch.setattr(detect, "KINDS", (*detect.KINDS, kind))
    (tmp_path / "a.txt").write_text("WORD\n5000 1\n5001 2\n5002 3\n")
    summary = ingest_spectra([UPath(tmp_path / "a.txt")], UPath(tmp_path / "out"))
    assert summary.counts == {"SDSS": {"GALAXY": 1}}
    assert summary.inputs[0].kind == "word spectrum"
