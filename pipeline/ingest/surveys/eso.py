"""Phase-3 spectra of ESO's archive: one row whose cells are arrays (VANDELS, LEGA-C and others)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.io import fits
from upath import UPath

from ojala.models.simulation.wavelength_grid import to_vacuum
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.formats.table import SourceColumn, scale_to
from ojala.pipeline.ingest.surveys.hdus import read_columns
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex
from ojala.pipeline.ingest.surveys.reader import reader
from ojala.pipeline.ingest.surveys.spectrum import Spectrum, double

EXPECTED = "a phase-3 spectrum of ESO (a table of one row with VOCLASS SPECTRUM)"

_UNIT = "1e-17 erg / (s cm2 Angstrom)"


def is_eso(hdus: fits.HDUList) -> bool:
    """Whether a file is a phase-3 spectrum of ESO's archive."""
    if len(hdus) < 2 or not isinstance(hdus[1], fits.BinTableHDU):
        return False
    header = hdus[1].header
    return str(header.get("VOCLASS", "")).strip().upper().startswith("SPECTRUM") and header["NAXIS2"] == 1


@reader("ESO spectrum", EXPECTED, fits=is_eso)
def read_eso(path: UPath, labels: LabelIndex | None = None) -> Spectrum:
    """Read a phase-3 spectrum.

    Columns are found by their UCD, or else by the names of ESO's standard. Wavelengths are in air where the
    UCD says ``obs.atmos``, as the standard has it. Fluxes are relative where not calibrated (FLUXCAL,
    CONTNORM), or in a unit that is no flux density. The files have no redshift.

    Raises
    ------
    SourceError
        The file is no such spectrum, or has no wavelengths or fluxes.
    """
    with open_hdus(path) as hdus:
        if not is_eso(hdus):
            raise SourceError(f"is no phase-3 spectrum of ESO: expected {EXPECTED}")
        primary, header = hdus[0].header, hdus[1].header
        names = [str(header[f"TTYPE{i}"]).strip().upper() for i in range(1, int(header["TFIELDS"]) + 1)]
        ucds = [str(header.get(f"TUCD{i}", "")).strip().lower() for i in range(1, len(names) + 1)]
        wave = _column(names, ucds, ("em.",), ("WAVE", "LAMBDA", "WAVELENGTH"))
        value = _column(names, ucds, ("phot.flux.density", "arith.ratio;phot"), ("FLUX", "FLUX_REDUCED"))
        error = _column(names, ucds, ("stat.error",), ("ERR", "ERR_FLUX"))
        quality = _column(names, ucds, ("meta.code.qual",), ("QUAL",))
        if wave is None or value is None:
            raise SourceError(f"has no column of wavelengths or of fluxes; it has {', '.join(names)}")
        chosen = [at for at in (wave, value, error, quality) if at is not None]
        data = read_columns(hdus[1], [names[at] for at in chosen])
        units = {at: SourceColumn(names[at], str(header.get(f"TUNIT{at + 1}", ""))) for at in chosen}
    wavelength = double(np.ravel(data[names[wave]])) * scale_to(units[wave], "Angstrom")
    calibrated = str(primary.get("FLUXCAL", "ABSOLUTE")).strip() == "ABSOLUTE" and not primary.get(
        "CONTNORM", False
    )
    try:
        scale = scale_to(units[value], _UNIT) if calibrated else 1.0
    except SourceError:  # counts
        calibrated, scale = False, 1.0
    flux = double(np.ravel(data[names[value]])) * scale
    ivar = np.zeros_like(flux)
    if error is not None:
        sigma = double(np.ravel(data[names[error]])) * scale
        usable = (sigma > 0.0) & np.isfinite(sigma) & np.isfinite(flux)
        ivar[usable] = sigma[usable] ** -2.0
    bits = None
    if quality is not None:
        bits = np.ravel(data[names[quality]]).astype(np.int32)
        ivar[bits != 0] = 0.0
    from_air = "obs.atmos" in ucds[wave]
    name = str(primary.get("OBJECT", header.get("OBJECT", ""))).strip()
    return Spectrum(
        source=path.name.split(".fits")[0],
        survey="ESO",
        wavelength=to_vacuum(wavelength) if from_air else wavelength,
        flux=flux,
        ivar=ivar,
        object_class="",
        subclass="",
        z=np.nan,
        trusted=False,
        ra=float(header.get("RA", primary.get("RA", np.nan))),
        dec=float(header.get("DEC", primary.get("DEC", np.nan))),
        mask=bits,
        target=name,
        relative=not calibrated,
        from_air=from_air,
    )


def _column(
    names: Sequence[str], ucds: Sequence[str], starts: Sequence[str], spellings: Sequence[str]
) -> int | None:
    """Number of the first column with such a UCD, its main one before others, or else with such a name."""
    of_kind = [at for at, ucd in enumerate(ucds) if ucd.startswith(tuple(starts))]
    main = [at for at in of_kind if "meta.main" in ucds[at]]
    return next(iter([*main, *of_kind, *(at for at, name in enumerate(names) if name in spellings)]), None)
