"""LAMOST low-resolution spectra, as an image (first releases) or a table (from DR8 on)."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.surveys.hdus import read_columns
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, visit_of_lamost
from ojala.pipeline.ingest.surveys.reader import reader
from ojala.pipeline.ingest.surveys.spectrum import Labels, Spectrum, class_word, double

EXPECTED = (
    "a LAMOST spectrum (an image with flux and inverse variance as rows and COEFF0 in its header, or a table "
    "COADD_1 with FLUX, IVAR and WAVELENGTH)"
)


def is_lamost(hdus: fits.HDUList) -> bool:
    """Whether a file is a LAMOST spectrum."""
    header = hdus[0].header
    return ("COEFF0" in header and header.get("NAXIS") == 2 and header.get("NAXIS2", 0) >= 2) or (
        "LAMOST" in str(header.get("TELESCOP", "")) and "COADD_1" in hdus
    )


@reader("LAMOST spectrum", EXPECTED, fits=is_lamost)
def read_lamost(path: UPath, labels: LabelIndex | None = None) -> Spectrum:
    """Read a LAMOST low-resolution spectrum, of the early releases (image) or from DR8 on (table).

    Parameters
    ----------
    path : UPath
        The file.
    labels : LabelIndex, optional
        Stellar parameters by visit.

    Raises
    ------
    SourceError
        The file is no LAMOST spectrum.
    """
    with open_hdus(path) as hdus:
        if not is_lamost(hdus):
            raise SourceError(f"is no LAMOST spectrum: expected {EXPECTED}")
        header = hdus[0].header.copy()
        if "COADD_1" in hdus:
            table = read_columns(hdus["COADD_1"], ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK"))
            arrays = {name: np.ravel(values) for name, values in table.items()}
            flux, ivar, wavelength = (double(arrays[name]) for name in ("FLUX", "IVAR", "WAVELENGTH"))
            mask = arrays.get("ANDMASK")
        else:
            rows = hdus[0].data
            flux, ivar = double(rows[0]), double(rows[1])
            wavelength = 10.0 ** (header["COEFF0"] + header["COEFF1"] * np.arange(len(flux)))
            mask = rows[3] if len(rows) > 3 else None
    visit = visit_of_lamost(
        *(str(header.get(key, "")).strip() for key in ("LMJD", "PLANID", "SPID", "FIBERID"))
    )
    found = (labels or LabelIndex()).lookup("LAMOST", [visit])[0] or Labels()
    object_class = class_word(str(header.get("CLASS", "")))
    return Spectrum(
        source=path.name.split(".fits")[0],
        survey="LAMOST",
        wavelength=wavelength,
        flux=flux,
        ivar=ivar,
        object_class=object_class,
        subclass=str(header.get("SUBCLASS", "")).strip(),
        z=float(header.get("Z", np.nan)),
        trusted=bool(object_class),
        ra=float(header.get("RA", np.nan)),
        dec=float(header.get("DEC", np.nan)),
        z_err=float(header.get("Z_ERR", np.nan)),
        labels=found.labels,
        mask=None if mask is None else np.nan_to_num(mask).astype(np.int32),
        target=str(header.get("DESIG", "")).removeprefix("LAMOST").strip(),
        relative=True,
    )
