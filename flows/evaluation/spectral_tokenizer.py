"""Evaluation of the spectral tokenizer on held-out mock spectra and on real ones.

``python -m ojala.flows.evaluation.spectral_tokenizer --weights FILE --library FILE --out DIR`` and, for real
objects, ``--spectra DIR`` (see `ojala.pipeline.ingest.surveys.folder`), ``--stars CSV`` (LAMOST's stellar
parameters) and ``--stellar-libraries FILE...`` (see `ojala.flows.mocks.stellar_libraries`) writes
``<weights>.json`` and the model card ``<weights>.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from upath import UPath

from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.spectra import SIGNAL_TO_NOISE, draw_spectra
from ojala.flows.mocks.stellar_libraries import observe, read_library
from ojala.models.data import LabelledSpectra, Spectra
from ojala.models.evaluation.card import write_card
from ojala.models.quantities import CLASSES
from ojala.models.serving.precision import fastest_precision
from ojala.models.simulation.skies.spectroscopic import INSTRUMENTS, SpectraSky
from ojala.models.spectral_tokenizer.evaluation import crop, quality, reconstruction_quality, retrieval
from ojala.models.spectral_tokenizer.heads import STELLAR
from ojala.models.spectral_tokenizer.predictor import SpectralTokenizerPredictor
from ojala.pipeline.ingest.surveys.folder import read_folder
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, read_lamost_table
from ojala.pipeline.ingest.surveys.lamost import read_lamost
from ojala.pipeline.ingest.surveys.spectrum import Spectrum

HALVES = {"whole": (0.0, np.inf), "blue half": (0.0, 6712.0), "red half": (6712.0, np.inf)}
"""Ranges of wavelength [Angstrom] for cropped spectra of DESI."""

CLEAR = 3.0
"""Lower limit of the median signal-to-noise ratio of the separate sample of clear spectra."""

BRIGHT = (20.0, 100.0)
"""Range of signal-to-noise ratios of bright spectra in the retrieval."""

CLEAR_STARS = (30.0, 100.0)
"""The same of the stars of libraries."""

Report = dict[str, dict[str, float]]


def on_mock_spectra(predictor: SpectralTokenizerPredictor, sky: SpectraSky, n: int) -> Report:
    """Measure quality on ``n`` held-out objects of each instrument, and on cropped spectra of DESI."""
    rng = np.random.default_rng(7)
    report = {}
    for name in SIGNAL_TO_NOISE:
        drawn = draw_spectra(sky, name, n, rng, rng, held_out=True)
        predictions = predictor.predict(drawn.spectra)
        report[name] = quality(predictions, drawn.class_code, drawn.labels)
        clear = np.array([np.median(flux * np.sqrt(ivar)) > CLEAR for _, flux, ivar in drawn.spectra])
        report[f"{name}, S/N > {CLEAR:g}"] = quality(
            {key: values[clear] for key, values in predictions.items()},
            drawn.class_code[clear],
            {key: values[clear] for key, values in drawn.labels.items()},
        )
        if name == "DESI":
            report |= _in_halves(predictor, drawn)
    return report


def _in_halves(predictor: SpectralTokenizerPredictor, drawn: LabelledSpectra) -> Report:
    """Measure quality on halves of the wavelength range, and the reconstruction of each half."""
    report = {}
    for label, limits in HALVES.items():
        cropped = crop(drawn.spectra, *limits)
        measures = quality(predictor.predict(cropped), drawn.class_code, drawn.labels)
        made = predictor.reconstruct(cropped, [wavelength for wavelength, _, _ in drawn.spectra])
        for part, part_limits in HALVES.items():
            own = reconstruction_quality(drawn.spectra, made, *part_limits)
            measures |= {f"{measure} of the {part}": value for measure, value in own.items()}
        report["DESI" if label == "whole" else f"DESI, {label}"] = measures
    return report


def same_objects(predictor: SpectralTokenizerPredictor, sky: SpectraSky, n: int) -> Report:
    """Measure the retrieval of ``n`` held-out objects by their embedding from another instrument."""
    rng = np.random.default_rng(8)
    objects = sky.draw_objects(n, rng, held_out=True)
    report = {}
    for label, wanted in (("", SIGNAL_TO_NOISE), (", bright", dict.fromkeys(SIGNAL_TO_NOISE, BRIGHT))):
        embedding = {}
        for name, signal in wanted.items():
            drawn = sky.observe(objects, INSTRUMENTS[name], rng, signal_to_noise=signal)
            embedding[name] = predictor.predict(drawn.spectra)["embedding"]
        for one, other in combinations(wanted, 2):
            report[f"{one} in {other}{label}"] = retrieval(embedding[one], embedding[other])
    return report


def on_real_spectra(predictor: SpectralTokenizerPredictor, folder: Path, stars: Path | None) -> Report:
    """Measure quality on real spectra by survey, against the surveys' class, redshift and parameters."""
    spectra = read_folder(folder)
    report = {}
    for survey in sorted({spectrum.survey for spectrum in spectra}):
        report[f"real {survey}"] = _quality_of(predictor, [s for s in spectra if s.survey == survey])
    if stars is not None:
        known = LabelIndex([read_lamost_table(UPath(stars))])
        lamost = [read_lamost(UPath(path), known) for path in sorted(folder.glob("lamost/spec-*.fits*"))]
        report["real LAMOST with parameters"] = _quality_of(predictor, [s for s in lamost if s.labels])
    return report


def on_stellar_libraries(predictor: SpectralTokenizerPredictor, libraries: Sequence[Path]) -> Report:
    """Measure quality on real stars with known parameters, each observed once by several instruments."""
    rng = np.random.default_rng(9)
    report = {}
    for path in libraries:
        library = read_library(path)
        for name in ("SDSS", "DESI", "LAMOST"):
            drawn = observe(library, np.arange(len(library)), INSTRUMENTS[name], CLEAR_STARS, rng)
            predictions = predictor.predict(drawn.spectra)
            report[f"{path.stem} by {name}"] = quality(predictions, drawn.class_code, drawn.labels)
    return report


def _quality_of(predictor: SpectralTokenizerPredictor, spectra: Sequence[Spectrum]) -> dict[str, float]:
    flat = Spectra.from_arrays([(s.wavelength, s.flux, np.where(s.valid, s.ivar, 0.0)) for s in spectra])
    labels = {"z": np.array([s.z for s in spectra])}
    nothing = (np.nan, np.nan)
    for quantity in STELLAR:
        labels[quantity.name] = np.array([s.labels.get(quantity.name, nothing)[0] for s in spectra])
    class_code = np.array([CLASSES.index(s.object_class) for s in spectra])
    return quality(predictor.predict(flat), class_code, labels)


def as_text(report: Report) -> Iterable[str]:
    """Format one line per sample and measure."""
    for sample, measures in report.items():
        yield sample
        yield from (f"    {name:32s} {value:.4f}" for name, value in measures.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True, help="library of spectra")
    parser.add_argument("--spectra", type=Path, help="folder of real spectra")
    parser.add_argument("--stars", type=Path, help="LAMOST's table of stellar parameters")
    parser.add_argument("--stellar-libraries", type=Path, nargs="*", default=[], help="tables of real stars")
    parser.add_argument(
        "--objects", type=int, default=1000, help="held-out mock objects of each kind of test"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the measures and the card")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    predictor = SpectralTokenizerPredictor.load(arguments.weights, precision=fastest_precision())
    mock = SpectraSky(load_sky(arguments.library).population)
    measured = on_mock_spectra(predictor, mock, arguments.objects)
    measured |= same_objects(predictor, mock, arguments.objects)
    if arguments.spectra is not None:
        measured |= on_real_spectra(predictor, arguments.spectra, arguments.stars)
    measured |= on_stellar_libraries(predictor, arguments.stellar_libraries)
    real = " --spectra DIR --stars CSV" if arguments.stars else ""
    real += " --stellar-libraries FILE..." if arguments.stellar_libraries else ""
    command = (
        f"python -m ojala.flows.evaluation.spectral_tokenizer --weights {arguments.weights.name}"
        " --library FILE --out DIR"
        f" --objects {arguments.objects}{real}"
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_card(arguments.weights, {"command": command, "measures": measured}, arguments.out)
    print("\n".join(as_text(measured)))
