"""The photometric bands: J-PAS, Legacy Survey and WISE.

Pivot wavelengths and widths were computed from the measured total transmission curves
(J-PAS: SVO Filter Profile Service, facility OAJ; Legacy Survey and WISE: speclite). The
extinction coefficients k_x = A_x / E(B-V) of the J-PAS bands are those of the survey's Filter
table; those of the Legacy Survey bands are the DECam values of Schlafly & Finkbeiner (2011)
scaled to the SFD map as used by the Legacy Surveys, those of WISE from Fitzpatrick (1999).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class System(enum.StrEnum):
    """The survey that a band belongs to."""

    JPAS = "J-PAS"
    LEGACY = "Legacy Survey"
    WISE = "WISE"


@dataclass(frozen=True, slots=True)
class Band:
    """One photometric band.

    Attributes
    ----------
    name : str
        Name in the survey's own spelling; the columns are ``flux_<name>`` in lower case.
    system : System
        Survey the band belongs to.
    pivot : float
        Pivot wavelength [Angstrom].
    fwhm : float
        Full width at half maximum of the transmission curve [Angstrom].
    k_x : float
        Galactic extinction ``A_x / E(B-V)`` with E(B-V) on the SFD98 scale [mag/mag].
    """

    name: str
    system: System
    pivot: float
    fwhm: float
    k_x: float

    @property
    def is_narrow(self) -> bool:
        """Whether this is one of the 54 narrow bands J0378 .. J0910."""
        return self.system is System.JPAS and self.fwhm < 200.0

    @property
    def flux_column(self) -> str:
        """Column of the flux density [uJy]."""
        return f"flux_{self.name.lower()}"

    @property
    def error_column(self) -> str:
        """Column of the flux density's standard error [uJy]."""
        return f"flux_{self.name.lower()}_err"


# name, pivot wavelength [A], FWHM [A], k_x; in the order of the archive's Filter table, which is
# the order of the archive's array columns.
_JPAS = (
    ("uJAVA", 3545.2, 411.0, 4.916),
    ("J0378", 3796.7, 154.0, 4.567),
    ("J0390", 3904.4, 143.0, 4.442),
    ("J0400", 4007.1, 144.0, 4.341),
    ("J0410", 4116.2, 143.0, 4.241),
    ("J0420", 4209.9, 145.0, 4.143),
    ("J0430", 4310.8, 147.0, 4.048),
    ("J0440", 4408.6, 147.0, 3.953),
    ("J0450", 4515.1, 147.0, 3.861),
    ("J0460", 4608.9, 146.0, 3.771),
    ("J0470", 4705.0, 145.0, 3.682),
    ("J0480", 4808.6, 142.0, 3.596),
    ("J0490", 4906.8, 149.0, 3.511),
    ("J0500", 5005.8, 149.0, 3.428),
    ("J0510", 5102.2, 146.0, 3.347),
    ("J0520", 5208.4, 148.0, 3.268),
    ("J0530", 5304.0, 149.0, 3.190),
    ("J0540", 5397.3, 147.0, 3.115),
    ("J0550", 5502.1, 146.0, 3.041),
    ("J0560", 5604.6, 147.0, 2.969),
    ("J0570", 5710.2, 148.0, 2.900),
    ("J0580", 5811.7, 147.0, 2.832),
    ("J0590", 5920.2, 147.0, 2.765),
    ("J0600", 6010.3, 148.0, 2.701),
    ("J0610", 6117.7, 147.0, 2.639),
    ("J0620", 6209.2, 147.0, 2.578),
    ("J0630", 6312.9, 147.0, 2.519),
    ("J0640", 6410.7, 145.0, 2.462),
    ("J0650", 6507.6, 145.0, 2.407),
    ("J0660", 6607.6, 147.0, 2.354),
    ("J0670", 6713.1, 146.0, 2.302),
    ("J0680", 6810.9, 147.0, 2.251),
    ("J0690", 6916.2, 146.0, 2.203),
    ("J0700", 7008.6, 146.0, 2.155),
    ("J0710", 7121.9, 146.0, 2.109),
    ("J0720", 7212.1, 144.0, 2.064),
    ("J0730", 7312.2, 145.0, 2.020),
    ("J0740", 7416.1, 146.0, 1.977),
    ("J0750", 7501.8, 140.0, 1.935),
    ("J0760", 7599.5, 142.0, 1.894),
    ("J0770", 7720.7, 141.0, 1.854),
    ("J0780", 7808.2, 141.0, 1.815),
    ("J0790", 7908.3, 141.0, 1.776),
    ("J0800", 8007.1, 139.0, 1.739),
    ("J0810", 8114.3, 141.0, 1.702),
    ("J0820", 8216.7, 139.0, 1.666),
    ("J0830", 8318.8, 146.0, 1.630),
    ("J0840", 8410.9, 146.0, 1.595),
    ("J0850", 8509.1, 144.0, 1.561),
    ("J0860", 8598.1, 146.0, 1.528),
    ("J0870", 8709.0, 145.0, 1.495),
    ("J0880", 8819.0, 145.0, 1.462),
    ("J0890", 8910.5, 146.0, 1.431),
    ("J0900", 9003.3, 145.0, 1.400),
    ("J0910", 9095.9, 144.0, 1.370),
    ("J1007", 9590.5, 595.0, 1.119),
    ("iSDSS", 7656.2, 1483.0, 1.825),
)

_LEGACY = (
    ("ls_g", 4759.3, 1434.0, 3.214),
    ("ls_r", 6397.2, 1410.0, 2.165),
    ("ls_i", 7814.6, 1475.0, 1.592),
    ("ls_z", 9199.3, 1430.0, 1.211),
)

_WISE = (
    ("W1", 33682.2, 7900.0, 0.184),
    ("W2", 46179.0, 11000.0, 0.113),
    ("W3", 120727.9, 86700.0, 0.0241),
    ("W4", 221943.7, 45500.0, 0.00910),
)

JPAS_BANDS: tuple[Band, ...] = tuple(Band(n, System.JPAS, p, f, k) for n, p, f, k in _JPAS)
"""The 57 bands of the J-PAS archive, in the order of its array columns (Filter.filter_id)."""

LEGACY_BANDS: tuple[Band, ...] = tuple(Band(n, System.LEGACY, p, f, k) for n, p, f, k in _LEGACY)
"""Legacy Survey g, r (BASS), i (DECam), z (MzLS)."""

WISE_BANDS: tuple[Band, ...] = tuple(Band(n, System.WISE, p, f, k) for n, p, f, k in _WISE)
"""unWISE W1 .. W4 (forced photometry of the Legacy Survey)."""

BANDS: tuple[Band, ...] = JPAS_BANDS + LEGACY_BANDS + WISE_BANDS
"""All bands of the photometry contract, 65 of them."""

MODEL_BANDS: tuple[Band, ...] = tuple(band for band in BANDS if band.name not in ("W3", "W4"))
"""The 63 bands that models read; W3 and W4 detect too few J-PAS objects to be of use."""

NARROW_BANDS: tuple[Band, ...] = tuple(band for band in BANDS if band.is_narrow)
"""The 54 narrow bands."""

REFERENCE_BAND = "iSDSS"
"""The detection band, to which relative continua refer."""

BY_NAME: dict[str, Band] = {band.name: band for band in BANDS}
"""Bands by name."""

KRON_BAND = replace(BY_NAME[REFERENCE_BAND], name=f"{REFERENCE_BAND}_auto")
"""The Kron (AUTO) flux in the detection band, a column of the photometry beside those of the bands."""
