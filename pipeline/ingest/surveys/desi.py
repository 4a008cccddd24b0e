"""DESI coadds, HEALPix or tile, with the arms of the spectrograph joined.

The columns of FIBERMAP differ between releases; all but TARGETID may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from astropy.io import fits
from upath import UPath

from ojala.catalogs_schema.spectra import IMAGING_BANDS
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.fits import open_hdus
from ojala.pipeline.ingest.formats.table import SourceColumn, scale_to
from ojala.pipeline.ingest.surveys.hdus import hdu_names, read_columns, whole_keys
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex
from ojala.pipeline.ingest.surveys.reader import reader
from ojala.pipeline.ingest.surveys.spectrum import Labels, Spectrum, double

ARMS = ("B", "R", "Z")
"""Arms of a DESI spectrum, from blue to red."""

EXPECTED = "a DESI coadd (FIBERMAP, and WAVELENGTH, FLUX and IVAR of the arms B, R, Z or of BRZ)"

_NANOMAGGY = 3.631  # uJy
_IMAGING = {band.name: band.name.removeprefix("ls_").upper() for band in IMAGING_BANDS}
_POSITIONS = (("TARGET_RA", "TARGET_DEC"), ("RA_TARGET", "DEC_TARGET"), ("MEAN_FIBER_RA", "MEAN_FIBER_DEC"))
_FIBERMAP = (
    *("TARGETID", "OBJTYPE", "EBV", "EXPID"),
    *(name for position in _POSITIONS for name in position),
    *(f"FLUX_{short}" for short in _IMAGING.values()),
    *(f"FLUX_IVAR_{short}" for short in _IMAGING.values()),
)


def is_desi(hdus: fits.HDUList) -> bool:
    """Whether a file holds spectra of DESI."""
    return "FIBERMAP" in hdus and any(f"{arm}_WAVELENGTH" in hdus for arm in (*ARMS, "BRZ"))


@reader("DESI coadd", EXPECTED, fits=is_desi)
def read_desi(path: UPath, labels: LabelIndex) -> Iterator[Spectrum]:
    """Read all spectra of a DESI coadd, with its arms joined.

    Where arms overlap, pixels are averaged by inverse variance. A spectrum without a row in any table has no
    class and no redshift, nor has a fibre on the sky (OBJTYPE SKY, which is its subclass) or without a target
    (a negative TARGETID). A target without data is a row whose pixels have no weight. Positions come from
    FIBERMAP or else from the tables; fluxes of the Legacy Surveys and WISE, and E(B-V), from FIBERMAP.

    Raises
    ------
    SourceError
        The file is no DESI coadd; names the missing part.
    """
    with open_hdus(path) as hdus:
        if not is_desi(hdus):
            raise SourceError(f"is no DESI coadd: expected {EXPECTED}; it has {hdu_names(hdus)}")
        fibermap = read_columns(hdus["FIBERMAP"], _FIBERMAP)
        if "TARGETID" not in fibermap:
            raise SourceError("has no TARGETID in its FIBERMAP", column="TARGETID")
        target = whole_keys(fibermap["TARGETID"], "TARGETID")
        if "EXPID" in fibermap and len(np.unique(target)) < len(target):
            raise SourceError("holds single exposures; name the coadd of the same targets instead")
        arms = [arm for arm in (*ARMS, "BRZ") if f"{arm}_WAVELENGTH" in hdus]
        missing = [f"{a}_{what}" for a in arms for what in ("FLUX", "IVAR") if f"{a}_{what}" not in hdus]
        if missing:
            raise SourceError(f"lacks {', '.join(missing)}; it has {hdu_names(hdus)}")
        wavelength = np.concatenate([_in_angstrom(hdus[f"{arm}_WAVELENGTH"]) for arm in arms])
        flux = np.concatenate([np.asarray(hdus[f"{arm}_FLUX"].data) for arm in arms], axis=1)
        ivar = np.concatenate([np.asarray(hdus[f"{arm}_IVAR"].data) for arm in arms], axis=1)
        masked = all(f"{arm}_MASK" in hdus for arm in arms)
        mask = (
            np.concatenate([np.asarray(hdus[f"{arm}_MASK"].data) for arm in arms], axis=1)
            if masked
            else np.zeros(flux.shape, np.int32)
        )
        if len(flux) != len(target):
            raise SourceError(f"has {len(flux)} spectra but {len(target)} rows in its FIBERMAP")
    ra, dec = labels.positions("DESI", target)
    for names in _POSITIONS:
        if all(name in fibermap for name in names):
            ra, dec = (double(fibermap[name]) for name in names)
            break
    sky = fibermap.get("OBJTYPE", np.full(len(target), "")) == "SKY"
    ebv = double(fibermap["EBV"]) if "EBV" in fibermap else np.full(len(target), np.nan)
    join = JoinedArms(wavelength)
    for k, (targetid, found) in enumerate(zip(target.tolist(), labels.lookup("DESI", target), strict=True)):
        labelled = Labels(subclass="SKY") if sky[k] else found or Labels()
        joined_flux, joined_ivar, joined_mask = join(flux[k], ivar[k], mask[k])
        yield Spectrum(
            source=f"{path.name.split('.fits')[0]}-{targetid}",
            survey="DESI",
            wavelength=join.wavelength,
            flux=joined_flux,
            ivar=joined_ivar,
            ra=float(ra[k]),
            dec=float(dec[k]),
            mask=joined_mask if masked else None,
            # A negative number is a fibre of one tile without a target; the same comes in other tiles.
            target=str(targetid) if targetid >= 0 else "",
            ebv=float(ebv[k]),
            imaging=_imaging(fibermap, k),
        ).labelled(labelled)


def _in_angstrom(hdu: fits.ImageHDU) -> np.ndarray:
    """Wavelengths [Angstrom], from those in the unit of BUNIT."""
    column = SourceColumn(hdu.name, str(hdu.header.get("BUNIT", "")))
    return double(hdu.data) * scale_to(column, "Angstrom")


def _imaging(fibermap: dict[str, np.ndarray], row: int) -> dict[str, tuple[float, float]]:
    """Fluxes and errors [uJy] of the target in the Legacy Surveys and WISE."""
    found = {}
    for band, short in _IMAGING.items():
        ivar = fibermap.get(f"FLUX_IVAR_{short}")
        if ivar is not None and f"FLUX_{short}" in fibermap and ivar[row] > 0.0:
            flux = float(fibermap[f"FLUX_{short}"][row])
            found[band] = (_NANOMAGGY * flux, _NANOMAGGY * float(ivar[row]) ** -0.5)
    return found


class JoinedArms:
    """Averages pixels of equal wavelength (to 0.01 A) by inverse variance.

    Parameters
    ----------
    wavelength : ndarray, shape (P,)
        Wavelengths of the arms, one after the other [Angstrom].
    """

    def __init__(self, wavelength: np.ndarray) -> None:
        self._of = wavelength
        self.wavelength, self._pixel = np.unique(np.round(wavelength, 2), return_inverse=True)

    def is_of(self, wavelength: np.ndarray) -> bool:
        """Whether these are the wavelengths that it joins."""
        return np.array_equal(wavelength, self._of)

    def __call__(
        self, flux: np.ndarray, ivar: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flux, inverse variance and the bits of all pixels that were masked, on the joint wavelengths."""
        size = len(self.wavelength)
        good = (mask == 0) & (ivar > 0.0) & np.isfinite(flux)
        weight = np.where(good, ivar, 0.0).astype(np.float64)
        total = np.bincount(self._pixel, np.where(good, flux, 0.0) * weight, size)
        weights = np.bincount(self._pixel, weight, size)
        mean = np.divide(total, weights, out=np.zeros(size), where=weights > 0.0)
        bits = np.zeros(size, np.int32)
        np.bitwise_or.at(bits, self._pixel, mask.astype(np.int32))
        return mean, weights, np.where(weights > 0.0, 0, bits).astype(np.int32)
