"""Synthetic photometry of real objects from their spectra, and the bundled patch of sky.

The photometry is scaled to an i magnitude and has the survey's noise. It is for tests of the models, not for
trainings.

``python -m ojala.flows.mocks.real_objects --spectra DIR --curves DIR --library FILE`` makes the files of
``flows/demo/data``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ojala.catalogs_schema.bands import JPAS_BANDS, LEGACY_BANDS, MODEL_BANDS, REFERENCE_BAND, System
from ojala.flows.mocks.library import load_sky, write_mock_catalogue
from ojala.models.quantities import CLASSES
from ojala.models.simulation.photometry import noise
from ojala.models.simulation.photometry.depths import DEEP
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.pipeline.ingest.reference.filter_curves import read_curves
from ojala.pipeline.ingest.surveys.folder import read_folder
from ojala.pipeline.ingest.surveys.spectrum import Spectrum

PATCH = Path(__file__).parents[1] / "demo" / "data"
"""Folder of the bundled patch of sky."""

PATCH_CENTER = (245.5, 43.9)
"""Right ascension and declination [deg] at which the bundled objects are placed."""

PATCH_RADIUS = 0.6
"""Half the side of the bundled patch [deg]."""

REAL_TILE, MOCK_TILE = 9611, 9612
"""Tiles of the real and of the mock objects."""

SURVEY_DEPTH: np.ndarray = DEEP - 0.5 * np.array([band.system is System.JPAS for band in MODEL_BANDS])
"""5 sigma depths [AB mag] of real objects: miniJPAS less half a magnitude, the Legacy Surveys as they are."""

MOVED = (0.08, 0.40)
"""Redshifts between which galaxies are moved."""

MIN_NARROW_BANDS = 30
"""Minimum number of narrow bands that a spectrum covers."""

MIN_SIGNAL_TO_NOISE = 1.0
"""Minimum of the median signal-to-noise ratio per pixel."""

PATCH_SIGNAL_TO_NOISE = 3.0
"""The same for objects of the bundled patch."""

SCALE_FREE = (
    *("ew_hbeta", "ew_oiii_5007", "ew_halpha", "ew_nii_6584"),
    *("teff", "logg", "fe_h", "alpha_fe"),
)
"""Labels that do not depend on the magnitude or redshift to which a spectrum is scaled."""

_REFERENCE = next(i for i, band in enumerate(MODEL_BANDS) if band.name == REFERENCE_BAND)
_NARROW = np.array([band.is_narrow for band in MODEL_BANDS])
_COUNTS = {"GALAXY": 120, "QSO": 100, "STAR": 80}


@dataclass(frozen=True, slots=True)
class RealPhotometry:
    """Photometry derived from real spectra.

    Attributes
    ----------
    spectra : list of Spectrum
        N spectra, in the order of the rows.
    flux, error : ndarray of float32, shape (N, 63)
        f_nu and its error [uJy] in the order of `MODEL_BANDS`; NaN where the spectrum does not cover
        the band.
    """

    spectra: list[Spectrum]
    flux: np.ndarray
    error: np.ndarray

    @property
    def class_code(self) -> np.ndarray:
        """Index into `CLASSES`; int64, shape (N,)."""
        return np.array([CLASSES.index(spectrum.object_class) for spectrum in self.spectra], np.int64)

    @property
    def z(self) -> np.ndarray:
        """Spectroscopic redshift; shape (N,)."""
        return np.array([spectrum.z for spectrum in self.spectra])


def observe_spectra(
    spectra: Sequence[Spectrum],
    photometer: Photometer,
    magnitude: float | np.ndarray,
    rng: np.random.Generator,
    depth: np.ndarray = SURVEY_DEPTH,
) -> RealPhotometry:
    """Compute synthetic photometry of spectra, scaled to an i magnitude, with the survey's noise.

    Spectra without coverage of iSDSS and `MIN_NARROW_BANDS`, or with a signal-to-noise ratio below
    `MIN_SIGNAL_TO_NOISE`, are left out.

    Parameters
    ----------
    spectra : sequence of Spectrum
        Spectra with class and redshift.
    photometer : Photometer
        Bands.
    magnitude : float or ndarray, shape (len(spectra),)
        iSDSS magnitude of each object.
    rng : Generator
        Source of the noise.
    depth : ndarray, shape (63,)
        5 sigma depth of each band [AB mag].
    """
    wanted = noise.to_flux(np.broadcast_to(np.asarray(magnitude, float), len(spectra)))
    kept, rows = [], []
    for spectrum, level in zip(spectra, wanted, strict=True):
        if spectrum.signal_to_noise < MIN_SIGNAL_TO_NOISE:
            continue
        flux, _ = photometer.observe(spectrum.wavelength, spectrum.flux, spectrum.valid)
        if flux[_REFERENCE] > 0.0 and np.isfinite(flux[_NARROW]).sum() >= MIN_NARROW_BANDS:
            kept.append(spectrum)
            rows.append(flux * level / flux[_REFERENCE])
    flux, error = noise.observe(np.array(rows).reshape(-1, len(MODEL_BANDS)), depth, rng)
    return RealPhotometry(kept, flux, error)


def choose_objects(spectra: Sequence[Spectrum], rng: np.random.Generator) -> list[Spectrum]:
    """Choose 120 galaxies, 100 quasars and 80 stars for the bundled patch.

    Galaxies beyond z = 0.05 and cool, hot and degenerate stars, which are rare, are up to half of their
    class; the rest is random.
    """

    def rare(spectrum: Spectrum) -> bool:
        if spectrum.object_class == "GALAXY":
            return spectrum.z > 0.05
        return spectrum.object_class == "STAR" and spectrum.subclass[:1] not in "FGK"

    chosen: list[Spectrum] = []
    for name, count in _COUNTS.items():
        members = [spectrum for spectrum in spectra if spectrum.object_class == name]
        members = [members[k] for k in rng.permutation(len(members))]
        first = [s for s in members if rare(s)][: count // 2]
        taken = {id(s) for s in first}
        chosen += (first + [s for s in members if id(s) not in taken])[:count]
    return [chosen[k] for k in rng.permutation(len(chosen))]


def place(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw positions [deg], uniform over the bundled patch."""
    ra, dec = PATCH_CENTER
    return (
        ra + rng.uniform(-PATCH_RADIUS, PATCH_RADIUS, n) / np.cos(np.radians(dec)),
        dec + rng.uniform(-PATCH_RADIUS, PATCH_RADIUS, n),
    )


def write_archive_csv(path: Path, photometry: RealPhotometry, rng: np.random.Generator) -> None:
    """Write photometry in the format of the archive's table FNuDualObj, with assigned keys and positions.

    Fluxes are in 1e-30 erg/s/cm2/Hz with relative errors, 0 where missing; Legacy Survey fluxes are in
    nanomaggies with inverse variances. E(B-V) is empty: it is not known for these lines of sight, and the
    spectra contain their own extinction.
    """
    n = len(photometry.spectra)
    ra, dec = place(n, rng)
    bands = [next(i for i, b in enumerate(MODEL_BANDS) if b.name == band.name) for band in JPAS_BANDS]
    flux = np.nan_to_num(photometry.flux[:, bands] * 10.0)  # 1 uJy is 1e-29 erg/s/cm2/Hz
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.nan_to_num(photometry.error[:, bands] / np.abs(photometry.flux[:, bands]))
    header = ["TILE_ID", "NUMBER", "ALPHA_J2000", "DELTA_J2000", "EBV", "FLAGS", "MASK_FLAGS"]
    header += ["FLUX_APER_COR_3_0", "FLUX_RELERR_APER_COR_3_0"]
    legacy = [
        (i, band.name.removeprefix("ls_")) for i, band in enumerate(MODEL_BANDS) if band in LEGACY_BANDS
    ]
    for _, short in legacy:
        header += [f"FLUX_{short.upper()}", f"FLUX_IVAR_{short.upper()}"]
    nanomaggy = noise.to_flux(np.array(22.5))
    with path.open("w", newline="") as file:
        file.write("#SELECT * FROM jpas.FNuDualObj\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for k in range(n):
            row = [REAL_TILE, k + 1, f"{ra[k]:.6f}", f"{dec[k]:.6f}", "", 0, 0]
            row += [_cell(flux[k]), _cell(relative[k])]
            for i, _ in legacy:
                observed = np.isfinite(photometry.flux[k, i])
                row.append(f"{photometry.flux[k, i] / nanomaggy:.5g}" if observed else "0")
                row.append(f"{(nanomaggy / photometry.error[k, i]) ** 2:.5g}" if observed else "0")
            writer.writerow(row)


def _cell(values: np.ndarray) -> str:
    return " ".join(f"{value:.5g}" for value in values)


def write_truth_csv(path: Path, photometry: RealPhotometry) -> None:
    """Write class, redshift and `SCALE_FREE` labels of the objects of `write_archive_csv`, by key.

    Equivalent widths with errors beyond both 1 Angstrom and a fifth of the width are left out.
    """
    labels = [name for name in SCALE_FREE if any(name in s.labels for s in photometry.spectra)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        header = ["tile_id", "number", "class", "z", "subclass", "survey", "source"]
        writer.writerow(header + [f"{name}{suffix}" for name in labels for suffix in ("", "_err")])
        for k, spectrum in enumerate(photometry.spectra):
            name = spectrum.source.rsplit("/", 1)[-1].removesuffix(".gz").removesuffix(".fits")
            source = name if spectrum.source.rpartition("/")[0] != "gasnet3" else f"gasnet3-{name}"
            row = [REAL_TILE, k + 1, spectrum.object_class, f"{spectrum.z:.6f}"]
            row += [spectrum.subclass, spectrum.survey, source]
            for label in labels:
                value, error = spectrum.labels.get(label, (np.nan, np.nan))
                poor = label.startswith("ew_") and not error < max(1.0, 0.2 * abs(value))
                row += ["", ""] if poor or np.isnan(value) else [f"{value:.4f}", _number(error)]
            writer.writerow(row)


def _number(number: float) -> str:
    return "" if np.isnan(number) else f"{number:.4f}"


def move_galaxies(spectra: Sequence[Spectrum], rng: np.random.Generator) -> list[Spectrum]:
    """Move galaxies, mostly below z = 0.1, to redshifts uniform in `MOVED`; other objects stay."""
    redshift = rng.uniform(*MOVED, len(spectra))
    return [
        s.moved_to(float(z)) if s.object_class == "GALAXY" else s
        for s, z in zip(spectra, redshift, strict=True)
    ]


def write_real_table(
    spectra: Path,
    curves: Path,
    out: Path,
    truth: Path,
    *,
    magnitude: float = 20.0,
    galaxies_moved: bool = False,
    seed: int = 7,
) -> RealPhotometry:
    """Write photometry and truth of all usable real objects.

    Parameters
    ----------
    spectra, curves : Path
        Folders of the spectra (see `read_folder`) and of the transmission curves.
    out, truth : Path
        CSV files in the formats of `write_archive_csv` and `write_truth_csv`.
    magnitude : float
        iSDSS magnitude of all objects.
    galaxies_moved : bool
        Move galaxies, see `move_galaxies`.
    seed : int
        Seed of noise, positions and redshifts.
    """
    rng = np.random.default_rng(seed)
    objects = read_folder(spectra)
    if galaxies_moved:
        objects = move_galaxies(objects, rng)
    photometry = observe_spectra(objects, Photometer(read_curves(curves)), magnitude, rng)
    write_archive_csv(out, photometry, rng)
    write_truth_csv(truth, photometry)
    return photometry


def make_patch(spectra: Path, curves: Path, library: Path, out: Path = PATCH, seed: int = 2026) -> None:
    """Write the bundled patch: 300 real objects and 6,000 held-out mock objects, with truth."""
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    photometer = Photometer(read_curves(curves))
    usable = observe_spectra(read_folder(spectra), photometer, 20.0, rng).spectra
    chosen = choose_objects([s for s in usable if s.signal_to_noise >= PATCH_SIGNAL_TO_NOISE], rng)
    real = observe_spectra(chosen, photometer, rng.uniform(17.5, 21.0, len(chosen)), rng)
    write_archive_csv(out / "real_objects.csv", real, rng)
    write_truth_csv(out / "real_objects_truth.csv", real)
    positions = place(6000, rng)
    write_mock_catalogue(
        load_sky(library),
        out / "mock_sky.parquet",
        out / "mock_sky_truth.parquet",
        positions=positions,
        tile_id=MOCK_TILE,
        rng=rng,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spectra", type=Path, required=True, help="folder with sdss, desi, lamost")
    parser.add_argument("--curves", type=Path, required=True, help="folder with the transmission curves")
    parser.add_argument("--library", type=Path, required=True, help="library of spectra for the mock sky")
    arguments = parser.parse_args()
    make_patch(arguments.spectra, arguments.curves, arguments.library)
