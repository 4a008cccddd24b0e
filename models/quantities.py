"""Quantities that a model predicts, and their scale.

One row per quantity. A network predicts the *standardised* value ``(t(x) - center) / scale``, where
``t`` is the transform named in the row; the table is the only place that knows these numbers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from ojala.catalogs_schema.ojala import CLASSES as CLASSES


class Kind(enum.StrEnum):
    """How a quantity is predicted."""

    CLASS = "class"
    REDSHIFT = "redshift"
    SCALAR = "scalar"


class Transform(enum.StrEnum):
    """The function of a scalar quantity in which its distribution is compact."""

    LINEAR = "linear"
    LOG10 = "log10"
    ASINH = "asinh"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity that can be requested from a model.

    Attributes
    ----------
    name : str
        Name, as in the value-added catalogue.
    kind : Kind
        Class, redshift PDF, or scalar with a predictive distribution.
    applies_to : str or None
        The class for which the quantity has a meaning; None for all.
    transform : Transform
        Space in which it is standardised. ``asinh`` is ``arcsinh(x / soft)``.
    center, scale : float
        Location and scale in the transformed space.
    soft : float
        Softening of ``asinh`` [unit of the quantity].
    """

    name: str
    kind: Kind
    applies_to: str | None = None
    transform: Transform = Transform.LINEAR
    center: float = 0.0
    scale: float = 1.0
    soft: float = 1.0

    def standardise(self, value: np.ndarray) -> np.ndarray:
        """Physical value -> standardised value (same shape; NaN stays NaN)."""
        if self.transform is Transform.LOG10:
            with np.errstate(divide="ignore", invalid="ignore"):
                value = np.log10(value)
        elif self.transform is Transform.ASINH:
            value = np.arcsinh(value / self.soft)
        return (value - self.center) / self.scale

    def restore(self, standard: np.ndarray) -> np.ndarray:
        """Standardised value -> physical value; the inverse of `standardise`."""
        value = standard * self.scale + self.center
        if self.transform is Transform.LOG10:
            return 10.0**value
        if self.transform is Transform.ASINH:
            return np.sinh(value) * self.soft
        return value


def _line(name: str, center: float, scale: float) -> Quantity:
    return Quantity(name, Kind.SCALAR, "GALAXY", Transform.ASINH, center, scale, soft=3.0)


def _continuum(name: str) -> Quantity:
    return Quantity(name, Kind.SCALAR, "GALAXY", Transform.LOG10, scale=0.1)


QUANTITIES: tuple[Quantity, ...] = (
    Quantity("class", Kind.CLASS),
    Quantity("z_gal", Kind.REDSHIFT, "GALAXY"),
    Quantity("z_qso", Kind.REDSHIFT, "QSO"),
    Quantity("log_mass", Kind.SCALAR, "GALAXY", center=10.3, scale=0.9),
    Quantity("log_sfr", Kind.SCALAR, "GALAXY", center=0.0, scale=1.2),
    _line("ew_hbeta", center=0.8, scale=1.0),
    _line("ew_oiii_5007", center=0.8, scale=1.2),
    _line("ew_halpha", center=1.8, scale=1.3),
    _line("ew_nii_6584", center=1.0, scale=1.0),
    _continuum("cont_hbeta"),
    _continuum("cont_halpha"),
    Quantity("teff", Kind.SCALAR, "STAR", Transform.LOG10, center=3.74, scale=0.09),
    Quantity("logg", Kind.SCALAR, "STAR", center=4.4, scale=0.5),
    Quantity("fe_h", Kind.SCALAR, "STAR", center=-0.6, scale=0.6),
    Quantity("alpha_fe", Kind.SCALAR, "STAR", center=0.2, scale=0.15),
)
"""All quantities of OJALA, in the order of its request tokens.

* class: a quasar has a non-stellar continuum that gives at least a ninth of the light at 6000 A in the rest
  frame (its broad lines are then seen); nuclei with narrow lines alone are galaxies.
* z_gal, z_qso: redshift of a galaxy and of a quasar.
* log_mass: log10 of the mass in living stars and remnants [Msun], of all light of the galaxy; IMF of Kroupa,
  Planck18 distances.
* log_sfr: log10 of the star-formation rate, mean of the last 100 Myr [Msun/yr], same IMF. Specific rates
  below 10^-12 a year count as 10^-12: such a label is an upper limit.
* ew_hbeta, ew_oiii_5007, ew_halpha, ew_nii_6584: equivalent widths of the emission line alone (stellar
  absorption below it is not subtracted from it) in the rest frame [Angstrom], positive in emission, over the
  continuum 0.6 to 1.5 % of the wavelength to either side; star formation and narrow-line nuclei together.
* cont_hbeta, cont_halpha: that continuum relative to the f_lambda of iSDSS, both observed.
* teff [K], logg [dex(cm/s2)], fe_h and alpha_fe [dex, solar units] of stars. In simulated stars alpha_fe
  follows from fe_h, with scatter, and leaves no trace of its own in the spectrum."""

BY_NAME: dict[str, Quantity] = {quantity.name: quantity for quantity in QUANTITIES}
SCALARS: tuple[Quantity, ...] = tuple(q for q in QUANTITIES if q.kind is Kind.SCALAR)

FINE_TUNED: tuple[Quantity, ...] = (Quantity("log_mbh", Kind.SCALAR, "QSO"),)
"""Quantities without a query of the network: heads on its frozen embedding predict them, with center and
scale of their own data (see `ojala.models.ojala.heads`). log_mbh is log10 of the virial black-hole mass
[Msun] from one spectrum: FWHM of H beta and L(5100 A) at z < 0.7, Mg II and L(3000 A) to 1.9, C IV and L(1350
A) beyond (Vestergaard & Peterson 2006; Vestergaard & Osmer 2009), of the light of the nucleus alone, not
corrected for dust within the quasar."""
