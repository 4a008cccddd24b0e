"""OJALÁ's predictions against published parameters of real stars, blue galaxies, and masses of galaxies.

``python -m ojala.flows.evaluation.real_labels --libraries FILE [--spectra DIR --curves DIR --masses FILE]``
prints for each sample and magnitude: of stars of 3800 to 7500 K the bias, sigma_NMAD and share within the
error of Teff, log g and [Fe/H]; of galaxies the shares taken for quasars and with a redshift off by more than
0.15; of galaxies with published masses the same of log M and log SFR - log M.

FILE is a Parquet table of noiseless photometry of real objects: ``id``, ``set``, ``z``, ``teff``,
``logg``, ``feh`` and ``flux_<band>`` [uJy]. The masses are a Parquet table of ``id`` (a spectrum's),
``logm_best``, ``logsfr_best`` and ``r_total``, the magnitude of the whole galaxy: a spectrum saw a fibre, so
masses are compared at that magnitude, of the galaxies for which it is known.

``--stars FOLDER`` writes the stars at several magnitudes as photometry.parquet and truth.parquet instead, for
`ojala ingest` and `ojala calibrate`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.flows.mocks.library import photometry_table, truth_table
from ojala.flows.mocks.real_objects import SURVEY_DEPTH, observe_spectra
from ojala.flows.mocks.stellar_corrections import fold_of
from ojala.models import WEIGHTS_FOLDER
from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.metrics import redshift_metrics, scatter_metrics, within
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.quantities import CLASSES
from ojala.models.simulation.photometry import noise
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.pipeline.ingest.reference.filter_curves import read_curves
from ojala.pipeline.ingest.surveys.folder import read_folder

STAR_MAGNITUDES, GALAXY_MAGNITUDES = (17.0, 20.0), (20.0, 21.0, 22.0)
"""Magnitudes of stars (those of r less 0.2) and of galaxies (those at 7600 A)."""

CALIBRATION_MAGNITUDES = (17.0, 18.0, 19.0, 20.0, 21.0)
"""Magnitudes of the stars that `write_stars` writes."""

STAR_TILE = 9613
"""Tile of these stars."""

MASS_MAGNITUDE = 17.0
"""iSDSS magnitude at which galaxies with published masses are seen; a mass is then scaled to their own."""

_STAR_LEVEL, _GALAXY_LEVEL = (5700.0, 6900.0), (7400.0, 7800.0)
_STAR_TEFF, _RED_END = (3800.0, 7500.0), 7350.0  # K; Angstrom, where the spectra of MILES end
_MIN_NARROW = 30
_PIVOT = np.array([band.pivot for band in MODEL_BANDS])
_NARROW = np.array([band.is_narrow for band in MODEL_BANDS])
_I, _R = (next(k for k, b in enumerate(MODEL_BANDS) if b.name == name) for name in ("iSDSS", "ls_r"))

Rows = dict[str, dict[str, float]]
"""Measures by sample."""


def residual_measures(value: np.ndarray, truth: np.ndarray, error: np.ndarray) -> dict[str, float]:
    """Median, sigma_NMAD and share within the error of value - truth, over the finite ones."""
    finite = np.isfinite([value, truth, error]).all(axis=0)
    value, truth, error = value[finite], truth[finite], error[finite]
    scatter = scatter_metrics(value, truth)
    return {
        "n": scatter["n"],
        "bias": scatter["bias"],
        "sigma_nmad": scatter["nmad"],
        "within": float(within(value, error, truth)) if len(value) else np.nan,
    }


def stars(model: OjalaPredictor, table: pd.DataFrame) -> Rows:
    """Stellar parameters of the stars of MILES: all, and those by which atmospheres were not corrected."""
    chosen, flux = _stars(table)
    left_out = np.array([fold_of(star) == 0 for star in chosen["id"]])
    measures: Rows = {}
    for magnitude in STAR_MAGNITUDES:
        predictions = _predict(model, _at(flux, _STAR_LEVEL, magnitude + 0.2))
        for sample, rows in (("all", np.ones_like(left_out)), ("left out", left_out)):
            for name, label in (("teff", "teff"), ("logg", "logg"), ("fe_h", "feh")):
                measures[f"stars, i = {magnitude:g}, {sample}: {name}"] = residual_measures(
                    predictions[name][rows], chosen[label].to_numpy()[rows], predictions[f"{name}_err"][rows]
                )
    return measures


def write_stars(table: pd.DataFrame, folder: Path) -> None:
    """Write photometry and truth of the stars of MILES at `CALIBRATION_MAGNITUDES`, each at one position."""
    chosen, flux = _stars(table)
    n, rng = len(chosen), np.random.default_rng(5)
    ra, dec = rng.uniform(0.0, 360.0, n), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n)))
    seen = [_observe(_at(flux, _STAR_LEVEL, magnitude + 0.2)) for magnitude in CALIBRATION_MAGNITUDES]
    rows = np.tile(np.arange(n), len(seen))
    nothing = np.full(len(rows), np.nan, np.float32)
    labels = {"z_gal": nothing, "z_qso": nothing}
    labels |= {
        name: chosen[label].to_numpy(np.float32)[rows]
        for name, label in (("teff", "teff"), ("logg", "logg"), ("fe_h", "feh"))
    }
    measured, error = (np.concatenate([one[k] for one in seen]) for k in range(2))
    code = np.full(len(rows), CLASSES.index("STAR"))
    drawn = LabelledPhotometry(measured, error, np.zeros(len(rows), np.float32), code, labels)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(photometry_table(drawn, ra[rows], dec[rows], STAR_TILE), folder / "photometry.parquet")
    pq.write_table(truth_table(drawn, STAR_TILE), folder / "truth.parquet")


def _stars(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The stars of MILES with all labels, and their fluxes where MILES has spectra."""
    chosen = table[(table["set"] == "miles") & table["teff"].between(*_STAR_TEFF)]
    chosen = chosen.dropna(subset=["logg", "feh"])
    return chosen, np.where(_NARROW & (_PIVOT < _RED_END), _fluxes(chosen), np.nan)


def blue_galaxies(model: OjalaPredictor, table: pd.DataFrame) -> Rows:
    """Classes and redshifts of galaxies with observed ultraviolet, as observed beyond z = 0.05 and moved."""
    chosen = table[table["set"].isin(["galaxies_uvoptical", "galaxies_brown_atlas"]) & (table["z"] > 0.05)]
    flux = _fluxes(chosen)
    level = np.isfinite(flux[:, (_GALAXY_LEVEL[0] < _PIVOT) & (_GALAXY_LEVEL[1] > _PIVOT)]).any(axis=1)
    usable = level & (np.isfinite(flux[:, _NARROW]).sum(axis=1) >= _MIN_NARROW)
    flux, z = flux[usable], chosen["z"].to_numpy()[usable]
    measures: Rows = {}
    for magnitude in GALAXY_MAGNITUDES:
        predictions = _predict(model, _at(flux, _GALAXY_LEVEL, magnitude))
        measures[f"galaxies, i = {magnitude:g}"] = {
            "n": float(len(z)),
            "taken for quasars": float(np.mean(predictions["class_code"] == CLASSES.index("QSO"))),
            "beyond 0.15": redshift_metrics(predictions["z_gal"], z)["outliers_15"],
        }
    return measures


def masses(model: OjalaPredictor, spectra: Path, curves: Path, published: Path) -> Rows:
    """Log M, and log SFR - log M, of galaxies against published ones."""
    table = pq.read_table(published).to_pandas().set_index("id")
    objects = [s for s in read_folder(spectra) if s.source in table.index and s.object_class == "GALAXY"]
    seen = observe_spectra(
        objects, Photometer(read_curves(curves)), MASS_MAGNITUDE, np.random.default_rng(7), SURVEY_DEPTH
    )
    predictions = model.predict(seen.flux, seen.error, np.zeros(len(seen.flux), np.float32))
    rows = table.loc[[s.source for s in seen.spectra]]
    colour = 2.5 * np.log10(seen.flux[:, _I] / seen.flux[:, _R])
    own = rows["r_total"].to_numpy(float) - colour
    rate = rows["logsfr_best"].to_numpy(float) - rows["logm_best"].to_numpy(float)
    error = np.hypot(predictions["log_sfr_err"], predictions["log_mass_err"])
    return {
        "galaxies: log_mass": residual_measures(
            predictions["log_mass"] + 0.4 * (MASS_MAGNITUDE - own),
            rows["logm_best"].to_numpy(float),
            predictions["log_mass_err"],
        ),
        "galaxies: log_sfr - log_mass": residual_measures(
            predictions["log_sfr"] - predictions["log_mass"], rate, error
        ),
    }


def _fluxes(table: pd.DataFrame) -> np.ndarray:
    blank = np.full(len(table), np.nan)
    return np.stack([table.get(f"flux_{b.name}", pd.Series(blank)).to_numpy(float) for b in MODEL_BANDS], 1)


def _at(flux: np.ndarray, level: tuple[float, float], magnitude: float) -> np.ndarray:
    """Fluxes scaled so that narrow bands between two wavelengths have this mean AB magnitude."""
    bands = _NARROW & (level[0] < _PIVOT) & (level[1] > _PIVOT)
    return np.asarray(
        flux * noise.to_flux(np.array(magnitude)) / np.nanmean(flux[:, bands], axis=1, keepdims=True)
    )


def _observe(flux: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noiseless fluxes with the survey's noise, and their errors."""
    depth = np.broadcast_to(SURVEY_DEPTH, flux.shape)
    return noise.add_noise(flux.astype(np.float32), depth, np.random.default_rng(3))


def _predict(model: OjalaPredictor, flux: np.ndarray) -> dict[str, np.ndarray]:
    """Predictions of noiseless fluxes seen with the survey's noise."""
    measured, error = _observe(flux)
    return model.predict(measured, error, np.zeros(len(flux), np.float32))


def table_text(measures: Rows) -> str:
    """Measures as Markdown."""
    names = list(dict.fromkeys(name for row in measures.values() for name in row))
    lines = [f"| sample | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    for sample, row in measures.items():
        cells = [f"{row[name]:.4g}" if name in row else "" for name in names]
        lines.append(f"| {sample} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER / "ojala-base.safetensors")
    parser.add_argument("--libraries", type=Path, required=True)
    for name in ("--spectra", "--curves", "--masses"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--stars", type=Path, metavar="FOLDER")
    asked = parser.parse_args()
    if asked.stars is not None:
        write_stars(pq.read_table(asked.libraries).to_pandas(), asked.stars)
        return
    model, table = OjalaPredictor.load(asked.weights), pq.read_table(asked.libraries).to_pandas()
    print(table_text(stars(model, table)))
    print("\n" + table_text(blue_galaxies(model, table)))
    if asked.masses is not None:
        print("\n" + table_text(masses(model, asked.spectra, asked.curves, asked.masses)))


if __name__ == "__main__":
    main()
