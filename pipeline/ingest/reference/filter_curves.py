"""Transmission curves of the bands, as their public homes hand them out.

J-PAS: the SVO Filter Profile Service's two columns, ``OAJ_JPAS.<band>.dat`` [Angstrom]. Legacy Survey and
WISE: the ECSV files of the package speclite, with their unit in the header.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.table import Table

from ojala.catalogs_schema.bands import MODEL_BANDS, System

_SPECLITE = {
    "ls_g": "BASS-g",
    "ls_r": "BASS-r",
    "ls_i": "decam2014-i",
    "ls_z": "MzLS-z",
    "W1": "wise2010-W1",
    "W2": "wise2010-W2",
}
_JPAS_SPELLING = {"uJAVA": "uJava"}


def read_curves(directory: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the curves of all model bands.

    Parameters
    ----------
    directory : Path
        Folder that holds the files somewhere below it.

    Returns
    -------
    dict of str to (ndarray, ndarray)
        Band name -> wavelength [Angstrom], transmission; in the order of `MODEL_BANDS`.

    Raises
    ------
    FileNotFoundError
        A band's file is not there; says which name was looked for.
    """
    curves = {}
    for band in MODEL_BANDS:
        if band.system is System.JPAS:
            path = _find(directory, f"OAJ_JPAS.{_JPAS_SPELLING.get(band.name, band.name)}.dat", band.name)
            wavelength, transmission = np.loadtxt(path, unpack=True)
        else:
            path = _find(directory, f"{_SPECLITE[band.name]}.ecsv", band.name)
            table = Table.read(path, format="ascii.ecsv")
            wavelength = table["wavelength"].quantity.to_value("Angstrom")
            transmission = np.asarray(table["response"], float)
        curves[band.name] = (np.asarray(wavelength, float), np.maximum(transmission, 0.0))
    return curves


def _find(directory: Path, name: str, band: str) -> Path:
    found = sorted(directory.rglob(name))
    if not found:
        raise FileNotFoundError(
            f"no transmission curve {name} for band {band} under {directory}; the J-PAS curves come from "
            "the SVO Filter Profile Service (facility OAJ), the others from the package speclite"
        )
    return found[0]
