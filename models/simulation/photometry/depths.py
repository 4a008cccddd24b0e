"""Depths of the survey's bands, for the noise of mock photometry."""

from __future__ import annotations

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS, System

# band: (deep, shallow), AB magnitude of a source at 5 sigma. Deep: median DEPTH3ARC5S of the four tiles of
# miniJPAS (3 arcsec aperture). Shallow: empirical depth of the first JPCam release, IDR202406 (6 arcsec
# aperture corrections).
_JPAS: dict[str, tuple[float, float]] = {
    "uJAVA": (23.39, 20.86),
    "J0378": (22.98, 21.16),
    "J0390": (23.79, 21.46),
    "J0400": (23.37, 21.54),
    "J0410": (23.03, 21.40),
    "J0420": (22.61, 21.53),
    "J0430": (23.33, 21.53),
    "J0440": (23.64, 21.48),
    "J0450": (22.40, 21.29),
    "J0460": (23.95, 21.11),
    "J0470": (23.46, 21.37),
    "J0480": (23.30, 21.36),
    "J0490": (22.58, 21.38),
    "J0500": (23.25, 21.36),
    "J0510": (23.50, 21.33),
    "J0520": (22.43, 21.11),
    "J0530": (23.54, 21.18),
    "J0540": (23.13, 21.19),
    "J0550": (23.03, 21.11),
    "J0560": (22.27, 20.72),
    "J0570": (22.84, 21.00),
    "J0580": (23.15, 21.09),
    "J0590": (22.32, 20.92),
    "J0600": (23.11, 21.13),
    "J0610": (22.98, 21.19),
    "J0620": (22.58, 21.19),
    "J0630": (22.53, 20.87),
    "J0640": (23.16, 21.04),
    "J0650": (23.22, 21.04),
    "J0660": (23.60, 21.06),
    "J0670": (23.76, 21.18),
    "J0680": (23.13, 21.09),
    "J0690": (22.66, 20.98),
    "J0700": (22.64, 21.19),
    "J0710": (22.92, 21.20),
    "J0720": (23.05, 21.10),
    "J0730": (22.18, 20.59),
    "J0740": (22.84, 20.72),
    "J0750": (22.69, 20.71),
    "J0760": (22.17, 20.65),
    "J0770": (22.18, 20.46),
    "J0780": (22.00, 20.29),
    "J0790": (22.24, 20.47),
    "J0800": (21.83, 20.50),
    "J0810": (21.78, 20.75),
    "J0820": (21.86, 20.81),
    "J0830": (21.87, 20.60),
    "J0840": (21.68, 20.50),
    "J0850": (21.76, 20.51),
    "J0860": (22.39, 20.49),
    "J0870": (22.15, 20.36),
    "J0880": (21.84, 20.25),
    "J0890": (21.71, 20.18),
    "J0900": (21.81, 20.29),
    "J0910": (21.91, 20.55),
    "J1007": (21.98, 20.70),
    "iSDSS": (23.21, 22.20),
}

# Forced photometry of the Legacy Surveys; deep and shallow are the same.
_LEGACY_WISE = {"ls_g": 24.0, "ls_r": 23.4, "ls_i": 23.0, "ls_z": 22.5, "W1": 21.0, "W2": 20.4}

TILE_SCATTER = 0.2
"""Standard deviation of a band's depth between tiles [mag]: median over the bands of miniJPAS and J-NEP."""


def _table(column: int) -> np.ndarray:
    rows = [
        _JPAS[band.name][column] if band.system is System.JPAS else _LEGACY_WISE[band.name]
        for band in MODEL_BANDS
    ]
    return np.array(rows)


DEEP: np.ndarray = _table(0)
"""5 sigma depth of miniJPAS and of the Legacy Surveys [AB mag], shape (63,)."""

SHALLOW: np.ndarray = _table(1)
"""5 sigma depth of the first JPCam data and of the Legacy Surveys [AB mag], shape (63,)."""
