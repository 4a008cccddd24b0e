"""SDSS-V spectra of the Milky Way Mapper (mwmStar, mwmVisit): BOSS and APOGEE, an HDU for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.surveys.hdus import column_names, read_columns
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex
from ojala.pipeline.ingest.surveys.reader import reader
from ojala.pipeline.ingest.surveys.spectrum import Spectrum, double

EXPECTED = "an SDSS-V spectrum of the Milky Way Mapper (mwmStar or mwmVisit, with V_ASTRA and SDSS_ID)"


def is_mwm(hdus: fits.HDUList) -> bool:
    """Whether a file is mwmStar or mwmVisit."""
    if not {"V_ASTRA", "SDSS_ID"} <= set(hdus[0].header):
        return False
    tables = [column_names(hdu) for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
    return any({"FLUX", "IVAR"} <= set(names) for names in tables)


@reader("SDSS-V star", EXPECTED, fits=is_mwm)
def read_mwm(path: UPath, labels: LabelIndex | None = None) -> Iterator[Spectrum]:
    """Read all spectra: the combined ones of mwmStar, or the visits of mwmVisit; empty HDUs hold none.

    Spectra are in vacuum. Class and redshift are not in the files.

    Raises
    ------
    SourceError
        The file is no such file, or states no wavelengths.
    """
    with open_hdus(path) as hdus:
        if not is_mwm(hdus):
            raise SourceError(f"is no spectrum of the Milky Way Mapper: expected {EXPECTED}")
        primary = hdus[0].header
        target = str(primary["SDSS_ID"])
        for hdu in hdus[1:]:
            if not isinstance(hdu, fits.BinTableHDU) or not hdu.header["NAXIS2"]:
                continue
            data = read_columns(hdu, ("FLUX", "IVAR", "PIXEL_FLAGS", "WAVELENGTH"))
            flux, ivar = (np.atleast_2d(double(data[name])) for name in ("FLUX", "IVAR"))
            if "WAVELENGTH" in data:
                wavelength = np.atleast_2d(double(data["WAVELENGTH"]))[0]
            elif {"CRVAL", "CDELT"} <= set(hdu.header):
                wavelength = 10.0 ** (hdu.header["CRVAL"] + np.arange(flux.shape[1]) * hdu.header["CDELT"])
            else:
                raise SourceError(f"has no wavelengths in {hdu.name}: neither a column nor CRVAL and CDELT")
            mask = (
                np.atleast_2d(data["PIXEL_FLAGS"]).astype(np.int64).astype(np.int32)
                if "PIXEL_FLAGS" in data
                else None
            )
            for row in range(len(flux)):
                usable = np.isfinite(ivar[row]) & np.isfinite(flux[row]) & (ivar[row] > 0.0)
                yield Spectrum(
                    source=f"{path.name.split('.fits')[0]}-{hdu.name}-{row}",
                    survey="APOGEE" if hdu.name.upper().startswith("APOGEE") else "SDSS",
                    wavelength=wavelength,
                    flux=flux[row],
                    ivar=np.where(usable, ivar[row], 0.0),
                    object_class="",
                    subclass="",
                    z=np.nan,
                    trusted=False,
                    ra=float(primary.get("RA", np.nan)),
                    dec=float(primary.get("DEC", np.nan)),
                    mask=None if mask is None else mask[row],
                    target=target,
                )
