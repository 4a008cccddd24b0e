"""Small files as the spectroscopic surveys write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits


def make_sdss(
    path: Path, z: float = 0.05, zwarning: int = 0, ra: float = 150.0, object_class: str = "GALAXY"
) -> None:
    """A spectrum of 100 pixels of signal to noise 2 to 4, the first of them bad, with one line."""
    n = 100
    columns = [
        fits.Column("flux", "E", array=np.linspace(1.0, 2.0, n)),
        fits.Column("loglam", "E", array=3.58 + 1e-4 * np.arange(n)),
        fits.Column("ivar", "E", array=np.r_[0.0, np.full(n - 1, 4.0)]),
        fits.Column("and_mask", "J", array=np.r_[1 << 24, np.zeros(n - 1, int)]),
    ]
    best = [
        fits.Column("BITS", "11X", array=np.zeros((1, 11), bool)),
        fits.Column("COEFFS", "5D", array=np.ones((1, 5))),
        fits.Column("CLASS", "6A", array=[object_class]),
        fits.Column("SUBCLASS", "21A", array=["STARFORMING"]),
        fits.Column("Z", "E", array=[z]),
        fits.Column("Z_ERR", "E", array=[1e-5]),
        fits.Column("ZWARNING", "J", array=[zwarning]),
        fits.Column("PLUG_RA", "D", array=[ra]),
        fits.Column("PLUG_DEC", "D", array=[2.0]),
    ]
    lines = [
        fits.Column("LINENAME", "13A", array=["H_alpha", "H_beta", "[O_II] 3727"]),
        fits.Column("LINEEW", "E", array=[10.5, 0.0, 3.0]),
        fits.Column("LINEEW_ERR", "E", array=[2.1, -1.0, 0.1]),
    ]
    primary = fits.PrimaryHDU()
    primary.header["RA"], primary.header["DEC"] = ra + 1.0, 3.0  # of the plate, not of the object
    tables = [fits.BinTableHDU.from_columns(c) for c in (columns, best, lines)]
    fits.HDUList([primary, *tables]).writeto(path)


def make_lamost(path: Path, fibre: int = 7) -> None:
    """A spectrum of 50 pixels of signal to noise 3."""
    rows = [np.full(50, 3.0), np.full(50, 1.0), np.zeros(50), np.arange(50)]
    primary = fits.PrimaryHDU(np.stack(rows).astype(np.float32))
    primary.header.update(COEFF0=3.5682, COEFF1=1e-4, CLASS="STAR", SUBCLASS="G5", Z=1e-4, RA=10.0, DEC=20.0)
    primary.header.update(LMJD=55862, PLANID="B6212", SPID=6, FIBERID=fibre, DESIG="LAMOST J0040+2000")
    primary.writeto(path)


def make_lamost_table(path: Path) -> None:
    """Stellar parameters of one visit of LAMOST, without [Fe/H]."""
    path.write_text(
        ",obsid,lmjd,planid,spid,fiberid,teff,teff_err,logg,logg_err,feh,feh_err\n"
        "0,605006,55862.0,B6212,6.0,7.0,4945.4,142.5,4.775,0.351,-9999.0,-9999.0\n"
    )


def make_desi(path: Path, targets: tuple[int, ...] = (7, 8), ra: tuple[float, ...] = (30.0, 31.0)) -> None:
    """A coadd of three short, overlapping arms of levels 1, 3 and 5; the first target's last pixel is bad."""
    n = len(targets)
    columns = [
        fits.Column("TARGETID", "K", array=list(targets)),
        fits.Column("TARGET_RA", "D", array=list(ra)),
        fits.Column("TARGET_DEC", "D", array=[-5.0] * n),
        fits.Column("EBV", "E", array=[0.02] * n),
        fits.Column("FLUX_W1", "E", array=[10.0] * n),
        fits.Column("FLUX_IVAR_W1", "E", array=[4.0] * n),
    ]
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="FIBERMAP")]
    for arm, first, level in (("B", 5000.0, 1.0), ("R", 5004.0, 3.0), ("Z", 5012.0, 5.0)):
        wavelength = first + 0.8 * np.arange(10)
        hdus += [
            fits.ImageHDU(wavelength, name=f"{arm}_WAVELENGTH"),
            fits.ImageHDU(np.full((n, 10), level, np.float32), name=f"{arm}_FLUX"),
            fits.ImageHDU(np.full((n, 10), 2.0, np.float32), name=f"{arm}_IVAR"),
            fits.ImageHDU(np.zeros((n, 10), np.int32), name=f"{arm}_MASK"),
        ]
    hdus[-1].data[0, -1] = 4
    fits.HDUList(hdus).writeto(path)


def make_redrock(path: Path) -> None:
    """Redshifts of targets 7 (a galaxy) and 8 (a star with a warning)."""
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("TARGETID", "K", array=[8, 7]),
            fits.Column("Z", "D", array=[0.0002, 0.1]),
            fits.Column("ZERR", "D", array=[1e-5, 2e-5]),
            fits.Column("ZWARN", "K", array=[4, 0]),
            fits.Column("SPECTYPE", "6A", array=["STAR", "GALAXY"]),
            fits.Column("SUBTYPE", "6A", array=["M", ""]),
        ],
        name="REDSHIFTS",
    )
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)


def make_quasar_catalogue(path: Path) -> None:
    """Target 7 as a quasar."""
    columns = [fits.Column("TARGETID", "K", array=[7]), fits.Column("Z", "D", array=[2.2])]
    columns += [fits.Column("TARGET_RA", "D", array=[33.0]), fits.Column("TARGET_DEC", "D", array=[1.0])]
    table = fits.BinTableHDU.from_columns(columns, name="QSO_CAT")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)


def make_fastspec(path: Path) -> None:
    """Properties of target 7 as FastSpecFit writes them; [N II] lies outside of the spectrum."""
    photometric = [
        fits.Column("TARGETID", "K", array=[7]),
        fits.Column("LOGMSTAR", "E", array=[10.0]),
        fits.Column("SFR", "E", array=[10.0]),
    ]
    lines = [
        fits.Column("TARGETID", "K", array=[7]),
        fits.Column("HALPHA_EW", "E", array=[12.0]),
        fits.Column("HALPHA_EW_IVAR", "E", array=[4.0]),
        fits.Column("NII_6584_EW", "E", array=[0.0]),
        fits.Column("NII_6584_EW_IVAR", "E", array=[0.0]),
    ]
    tables = [
        fits.BinTableHDU.from_columns(columns, name=name)
        for name, columns in (("SPECPHOT", photometric), ("FASTSPEC", lines))
    ]
    fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(path)


def make_stellar_table(path: Path) -> None:
    """Stellar parameters of targets 7 (with a warning) and 8."""
    columns = [
        fits.Column("TARGETID", "K", array=[7, 8]),
        fits.Column("TEFF", "D", array=[4000.0, 3500.0]),
        fits.Column("TEFF_ERR", "D", array=[10.0, 20.0]),
        fits.Column("LOGG", "D", array=[4.0, 4.9]),
        fits.Column("FEH", "D", array=[0.0, -0.5]),
        fits.Column("RVS_WARN", "K", array=[1, 0]),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="RVTAB")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)


def make_atmosphere(path: Path) -> None:
    """A node of the ck04 grid with two gravities, one of them outside of the grid."""
    primary = fits.PrimaryHDU()
    primary.header.update(TEFF=5000, LOG_Z=-0.5)
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("WAVELENGTH", "E", array=np.geomspace(500.0, 1e5, 300)),
            fits.Column("g00", "E", array=np.zeros(300)),
            fits.Column("g45", "E", array=np.linspace(1e5, 2e5, 300)),
        ]
    )
    fits.HDUList([primary, table]).writeto(path)
