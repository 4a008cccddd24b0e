"""SDSS, BOSS and SDSS-V spectra: ``spec-PLATE-MJD-FIBER.fits`` or ``spec-FIELD-MJD-CATALOGID.fits``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.surveys.hdus import column_names, read_columns
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex
from ojala.pipeline.ingest.surveys.reader import reader
from ojala.pipeline.ingest.surveys.spectrum import Spectrum, class_word, double

EXPECTED = "an SDSS spectrum (a table with FLUX, LOGLAM and IVAR, and one with CLASS and Z)"

_LINES = {
    "H_beta": "ew_hbeta",
    "[O_III] 5007": "ew_oiii_5007",
    "H_alpha": "ew_halpha",
    "[N_II] 6583": "ew_nii_6584",
}
_POSITIONS = (("PLUG_RA", "PLUG_DEC"), ("RACAT", "DECCAT"), ("FIBER_RA", "FIBER_DEC"), ("RA", "DEC"))
_BEST = (
    *("CLASS", "SUBCLASS", "Z", "Z_ERR", "ZWARNING"),
    *(name for position in _POSITIONS for name in position),
)


def is_sdss(hdus: fits.HDUList) -> bool:
    """Whether a file is an SDSS spectrum."""
    if len(hdus) < 3 or not all(isinstance(hdu, fits.BinTableHDU) for hdu in hdus[1:3]):
        return False
    return {"FLUX", "LOGLAM", "IVAR"} <= set(column_names(hdus[1])) and "CLASS" in column_names(hdus[2])


@reader("SDSS spectrum", EXPECTED, fits=is_sdss)
def read_sdss(path: UPath, labels: LabelIndex | None = None) -> Spectrum:
    """Read the coadd of an SDSS, BOSS or SDSS-V spectrum, with equivalent widths where it lists lines.

    Raises
    ------
    SourceError
        The file lacks the coadd's or the redshift's columns, or is damaged.
    """
    with open_hdus(path) as hdus:
        if not is_sdss(hdus):
            raise SourceError(f"is no SDSS spectrum: expected {EXPECTED}")
        coadd = read_columns(hdus[1], ("FLUX", "LOGLAM", "IVAR", "AND_MASK"))
        best = {name: values[0] for name, values in read_columns(hdus[2], _BEST).items()}
        header = hdus[0].header
        z = float(best["Z"])
        # SDSS-V has the redshifts of all templates (ZALL) before the lines.
        lines = next((hdu for hdu in hdus[3:5] if _lists_lines(hdu)), None)
        widths = _equivalent_widths(lines, z) if lines is not None else {}
    ra, dec = _position(best, header)
    mask = coadd.get("AND_MASK")
    return Spectrum(
        source=path.name.split(".fits")[0],
        survey="SDSS",
        wavelength=10.0 ** double(coadd["LOGLAM"]),
        flux=double(coadd["FLUX"]),
        ivar=double(coadd["IVAR"]),
        object_class=class_word(str(best["CLASS"])),
        subclass=str(best.get("SUBCLASS", "")).strip(),
        z=z,
        trusted=int(best.get("ZWARNING", 1)) == 0,
        ra=ra,
        dec=dec,
        z_err=float(best.get("Z_ERR", np.nan)),
        labels=widths,
        mask=None if mask is None else mask.astype(np.int32),
    )


def _position(best: Mapping[str, np.ndarray], header: fits.Header) -> tuple[float, float]:
    """Position of the object [deg]; NaN where the file has none.

    RA and DEC of the primary header are those of the plate or field, the same for all its spectra.
    """
    for names, found in (*((names, best) for names in _POSITIONS), (_POSITIONS[0], header)):
        ra, dec = (float(found.get(name, np.nan)) for name in names)
        if 0.0 <= ra <= 360.0 and abs(dec) <= 90.0:  # else -999 or the like: not known
            return ra, dec
    return np.nan, np.nan


def _lists_lines(hdu: fits.hdu.base.ExtensionHDU) -> bool:
    return isinstance(hdu, fits.BinTableHDU) and "LINENAME" in column_names(hdu)


def _equivalent_widths(table: fits.BinTableHDU, z: float) -> Mapping[str, tuple[float, float]]:
    """Rest-frame EWs [A], positive in emission; the pipeline's are in the observed frame."""
    columns = read_columns(table, ("LINENAME", "LINEEW", "LINEEW_ERR"))
    if len(columns) < 3:
        return {}
    found = {}
    for name, ew, error in zip(columns["LINENAME"], columns["LINEEW"], columns["LINEEW_ERR"], strict=True):
        if name in _LINES and error > 0.0:  # a negative error stands for no measurement
            found[_LINES[name]] = (float(ew) / (1.0 + z), float(error) / (1.0 + z))
    return found
