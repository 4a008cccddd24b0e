"""Template spectra from their public files: stellar atmospheres, stellar archetypes, the quasar model's data.

Everything is returned as arrays for `ojala.models.simulation`, which does not read files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from ojala.models.simulation.populations.quasars import QuasarTemplates
from ojala.models.simulation.populations.stars import Archetypes, Atmospheres

CK04_METALLICITIES = {
    "m25": -2.5,
    "m20": -2.0,
    "m15": -1.5,
    "m10": -1.0,
    "m05": -0.5,
    "p00": 0.0,
    "p02": 0.2,
    "p05": 0.5,
}
"""Folder suffix of the ck04 grid -> [M/H]."""

_CK04_LOGG = np.arange(0.0, 5.01, 0.5)


def read_atmospheres(directory: Path, teff_max: float = 50000.0) -> Atmospheres:
    """Read the Castelli & Kurucz (2004) grid as STScI distributes it.

    Parameters
    ----------
    directory : Path
        Folder with ``ckm25`` .. ``ckp05`` below it.
    teff_max : float
        Hottest node [K].

    Returns
    -------
    Atmospheres
        Surface fluxes; gravities that the grid lacks hold the flux of the nearest one that it has.

    Raises
    ------
    FileNotFoundError
        A metallicity's folder or a node is missing.
    """
    folders = {name: _one(directory, f"ck{name}") for name in CK04_METALLICITIES}
    teff = sorted(
        {int(path.name.split("_")[1].split(".")[0]) for path in folders["p00"].glob("ckp00_*.fits*")}
    )
    teff = [t for t in teff if t <= teff_max]
    cube, wavelength = [], None
    for name, folder in folders.items():
        for t in teff:
            with fits.open(_one(folder, f"ck{name}_{t}.fits*")) as hdus:
                table = hdus[1].data
                wavelength = np.asarray(table["WAVELENGTH"], float)
                cube.append(
                    _nearest_gravity([np.asarray(table[f"g{10 * g:02.0f}"], float) for g in _CK04_LOGG])
                )
    assert wavelength is not None
    keep = (wavelength > 2500.0) & (wavelength < 70000.0)
    flux = np.array(cube).reshape(len(folders), len(teff), len(_CK04_LOGG), -1)[..., keep]
    return Atmospheres(
        wavelength=wavelength[keep],
        m_h=np.array(list(CK04_METALLICITIES.values())),
        teff=np.array(teff, float),
        logg=_CK04_LOGG,
        log_flux=np.log(np.maximum(flux, 1e-30)).astype(np.float32),
    )


def _nearest_gravity(columns: list[np.ndarray]) -> np.ndarray:
    """(11, P): empty columns (gravities outside the grid) replaced by the nearest filled one."""
    filled = np.array([column.sum() > 0 for column in columns])
    at = np.flatnonzero(filled)
    return np.array([columns[at[np.abs(at - k).argmin()]] for k in range(len(columns))])


def read_archetypes(directory: Path, kind: str) -> Archetypes:
    """Read the stellar archetypes that come with the redrock templates.

    Parameters
    ----------
    directory : Path
        Folder with ``rrtemplate-STAR-<kind>-*.fits*`` below it.
    kind : str
        ``A``, ``B``, ``F``, ``G``, ``K``, ``M`` or ``WD``.
    """
    with fits.open(_one(directory, f"rrtemplate-STAR-{kind}-*.fits*")) as hdus:
        header, basis = hdus[0].header, np.asarray(hdus[0].data, float)
        coefficients = np.asarray(hdus[1].data, float)
    wavelength = header["CRVAL1"] + header["CDELT1"] * np.arange(basis.shape[1])
    # 2 A bins: as fine as the synthesis needs, and twenty times less to multiply
    bins = basis.shape[1] // 20
    return Archetypes(
        kind=kind,
        wavelength=wavelength[: 20 * bins].reshape(bins, 20).mean(axis=1),
        basis=basis[:, : 20 * bins].reshape(len(basis), bins, 20).mean(axis=2),
        coefficients=coefficients,
    )


def read_pickles(directory: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the Pickles (1998) library as LePhare distributes it, extended to the infrared.

    Returns
    -------
    dict of str to (ndarray, ndarray)
        Spectral type, for example ``m4v`` -> wavelength [Angstrom], f_lambda (arbitrary unit).
    """
    found = sorted(_one(directory, "PICKLES").glob("*.sed.ext*"))
    if not found:
        raise FileNotFoundError(f"no *.sed.ext under {directory}: the Pickles library of LePhare is needed")
    library = {}
    for path in found:
        wavelength, flux = np.loadtxt(path, unpack=True)
        library[path.name.split(".")[0]] = (wavelength, flux)
    return library


_SINGLE_STARS = {
    "CalciumWD": "WD",
    "WDcooler": "WD",
    "WDhotter": "WD",
    "WDmagnetic": "WD",
    "Ldwarf": "M",
}


def read_single_stars(directory: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Read single spectra of stars: SDSS' templates, hot white dwarfs of Koester's grid, the Pickles library.

    Returns
    -------
    list of (str, ndarray, ndarray)
        Kind (of `ojala.models.simulation.populations.stars.KINDS`), wavelength [Angstrom] and f_lambda
        (arbitrary unit).
    """
    found: list[tuple[str, np.ndarray, np.ndarray]] = []
    with fits.open(_one(directory, "spEigenStar-*.fits*")) as hdus:
        header, spectra = hdus[0].header, np.asarray(hdus[0].data, float)
    wavelength = 10.0 ** (header["COEFF0"] + header["COEFF1"] * np.arange(spectra.shape[1]))
    for k, flux in enumerate(spectra):
        found.append((_SINGLE_STARS.get(header[f"NAME{k}"], "single"), wavelength, flux))
    with fits.open(_one(directory, "ndArch-DATLTE-*.fits*")) as hdus:
        header, cube = hdus[0].header, np.asarray(hdus[0].data, float)
    wavelength = 10.0 ** (header["CRVAL1"] + header["CDELT1"] * np.arange(cube.shape[-1]))
    found += [("hot WD", wavelength, flux) for flux in cube.reshape(-1, cube.shape[-1])]
    return found + [("single", *spectrum) for spectrum in read_pickles(directory).values()]


def read_quasar_templates(directory: Path) -> QuasarTemplates:
    """Read the data files of the Temple, Hewett & Banerji (2021) quasar model and the IGM coefficients.

    Parameters
    ----------
    directory : Path
        Folder with ``qsosed_emlines_*.dat*``, ``pl_ext_comp_03.sph``, ``LAFcoeff.txt`` and
        ``DLAcoeff.txt`` (Inoue et al. 2014, Table 2) below it.
    """
    lines = np.loadtxt(_one(directory, "qsosed_emlines_*.dat*"))
    extinction = np.loadtxt(_one(directory, "pl_ext_comp_03.sph"))
    return QuasarTemplates(
        wavelength=lines[:, 0],
        median_lines=lines[:, 1],
        continuum=lines[:, 2],
        strong_lines=lines[:, 3],
        blueshifted_lines=lines[:, 4],
        extinction_wavelength=extinction[:, 0],
        extinction=extinction[:, 1],
        forest=np.loadtxt(_one(directory, "LAFcoeff.txt"))[:, 1:],
        damped=np.loadtxt(_one(directory, "DLAcoeff.txt"))[:, 1:],
    )


def _one(directory: Path, pattern: str) -> Path:
    found = sorted(directory.rglob(pattern))
    if not found:
        raise FileNotFoundError(f"nothing like {pattern} under {directory}")
    return found[0]
