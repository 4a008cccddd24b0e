"""Library of galaxies: rest-frame continua and line luminosities from bagpipes.

Stellar populations are BC03 with the MILES library, nebular lines and continuum from Cloudy, dust after
Salim et al. (2018), as shipped with bagpipes (Carnall et al. 2018); initial mass function of Kroupa.
Star-formation histories are drawn from four families (`FAMILIES`), of which the quiescent one is the
largest: old galaxies without lines are the hardest objects for a photometric redshift. The models have
solar abundance ratios; `ojala.models.simulation.populations.abundances` changes them when an object is drawn.

Continuum and lines are stored separately, so that each draw has its own line ratios and equivalent
widths. The lines of the library come from star formation alone; `scatter_lines` adds an active nucleus
or, in quiescent galaxies, weak LINER emission.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.cosmology import Planck18

from ojala.catalogs_schema.errors import InputError
from ojala.models.simulation.populations import line_ratios, priors
from ojala.models.simulation.wavelength_grid import COARSE, FINE, to_vacuum

QUIESCENT = -11.3
"""log10 of the specific star-formation rate [1/yr] below which a galaxy counts as quiescent."""

LOWEST_SSFR = -12.0
"""Lower limit of log10 of the specific star formation per mass [1/yr]; smaller ones do not show."""

Z_MAX = 1.3
"""Largest redshift that the library covers."""

FAMILIES: tuple[tuple[str, float], ...] = (("population", 0.86), ("flat", 0.08), ("young", 0.06))
"""Families of star-formation histories and their shares of the library."""

LINES: tuple[tuple[str, float, str], ...] = (
    ("H  1  6562.80A", 6564.6, "hydrogen"),
    ("H  1  4861.32A", 4862.7, "hydrogen"),
    ("H  1  4340.46A", 4341.7, "hydrogen"),
    ("H  1  4101.73A", 4102.9, "hydrogen"),
    ("H  1  3970.07A", 3971.2, "hydrogen"),
    ("H  1  3889.05A", 3890.2, "hydrogen"),
    ("H  1  3835.38A", 3836.5, "hydrogen"),
    ("H  1  9545.97A", 9548.6, "hydrogen"),
    ("H  1  9229.02A", 9231.5, "hydrogen"),
    ("H  1  9014.91A", 9017.4, "hydrogen"),
    ("H  1  1.00494m", 10052.1, "hydrogen"),
    ("H  1  1.09381m", 10941.1, "hydrogen"),
    ("Blnd  5875.66A", 5877.3, "helium"),
    ("He 1  6678.15A", 6680.0, "helium"),
    ("He 1  7065.22A", 7067.1, "helium"),
    ("Blnd  4471.50A", 4472.7, "helium"),
    ("He 1  3888.64A", 3889.7, "helium"),
    ("He 2  4685.68A", 4687.0, "helium"),
    ("N  2  6583.45A", 6585.3, "nitrogen"),
    ("N  2  6548.05A", 6549.9, "nitrogen"),
    ("N  2  5754.59A", 5756.2, "nitrogen"),
    ("O  2  3726.03A", 3727.1, "oxygen II"),
    ("O  2  3728.81A", 3729.9, "oxygen II"),
    ("Blnd  7323.00A", 7322.0, "oxygen II"),
    ("Blnd  7332.00A", 7332.7, "oxygen II"),
    ("O  3  5006.84A", 5008.2, "oxygen III"),
    ("O  3  4958.91A", 4960.3, "oxygen III"),
    ("O  3  4363.21A", 4364.4, "oxygen III"),
    ("Ne 3  3868.76A", 3869.9, "oxygen III"),
    ("Ne 3  3967.47A", 3968.6, "oxygen III"),
    ("Ar 3  7135.79A", 7137.8, "oxygen III"),
    ("Ar 3  7751.11A", 7753.2, "oxygen III"),
    ("S  3  9530.62A", 9533.2, "oxygen III"),
    ("S  3  9068.62A", 9071.1, "oxygen III"),
    ("S  3  6312.06A", 6313.8, "oxygen III"),
    ("O  1  6300.30A", 6302.0, "low ionisation"),
    ("O  1  6363.78A", 6365.5, "low ionisation"),
    ("N  1  5200.26A", 5201.7, "low ionisation"),
    ("S  2  6730.82A", 6732.7, "low ionisation"),
    ("S  2  6716.44A", 6718.3, "low ionisation"),
    ("S  2  4068.60A", 4069.8, "low ionisation"),
    ("Mg 2  2795.53A", 2796.4, "ultraviolet"),
    ("Mg 2  2802.71A", 2803.5, "ultraviolet"),
    ("Blnd  2326.00A", 2326.5, "ultraviolet"),
    ("C  3  1908.73A", 1908.7, "ultraviolet"),
    ("C  3  1906.68A", 1906.7, "ultraviolet"),
)
"""Cloudy's label, vacuum wavelength [Angstrom] and group of each line; lines of a group scatter together."""

LINE_WAVELENGTH = np.array([wavelength for _, wavelength, _ in LINES])
"""Vacuum wavelengths of `LINES` [Angstrom]."""

_GROUPS = sorted({group for _, _, group in LINES})
_GROUP = np.array([_GROUPS.index(group) for _, _, group in LINES])
_AT = {name: k for k, (name, _, _) in enumerate(LINES)}
_HALPHA, _HBETA = _AT["H  1  6562.80A"], _AT["H  1  4861.32A"]
_NII, _OIII = _AT["N  2  6583.45A"], _AT["O  3  5006.84A"]
_SII = [_AT["S  2  6716.44A"], _AT["S  2  6730.82A"]]
_OII = [_AT["O  2  3726.03A"], _AT["O  2  3728.81A"]]

_ABSENT = 0.0  # log10 of one solar mass beside 10^10: a component that does not matter
_LIVING = 0.6  # share of the mass formed that still lives, roughly
_DECLINE = np.geomspace(0.02, 30.0, 400)  # age / tau of a delayed exponential
_RATE = _DECLINE**2 / (np.expm1(_DECLINE) - _DECLINE)  # its rate x age / mass formed


def draw_histories(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw star-formation histories, metallicities and dust for ``n`` galaxies.

    Four fifths are drawn from observed relations (family ``population``): magnitude and redshift as in a
    survey to i = 23, from them a stellar mass, and from mass and redshift

    * whether star formation has ended: half of the galaxies at 10^(10.45 + 0.45 z) Msun, never less than
      12 % (satellites);
    * the specific rate: main sequence of Renzini & Peng (2015) with (1 + z)^2.7 and a scatter of 0.3 dex,
      4 % starbursts, 13 % between the sequences, quiescent ones about 10^-12.2 / yr;
    * stellar metallicity after Gallazzi et al. (2005);
    * dust after Garn & Best (2010), with 0.25 dex scatter; little in quiescent galaxies.

    ``flat`` members have independent ages, metallicities and dust, so that nothing is impossible;
    ``young`` ones are low-mass bursts, the tail of extreme emission lines.

    A galaxy is a delayed exponential of 10^10 solar masses, a burst, and a recent component of constant
    rate; the latter two may be absent. Ages and times in Gyr, metallicities in solar units, masses as
    log10 of solar masses formed.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        ``family``, ``z`` and ``log_mass`` (redshift and living mass that the member was made for) and
        the parameters that `simulate` hands to bagpipes.
    """
    family = rng.choice(len(FAMILIES), n, p=[share for _, share in FAMILIES])
    flat, young = family == 1, family == 2
    z, log_mass = _draw_masses(n, rng)
    log_mass[young] = np.minimum(log_mass[young], rng.uniform(7.0, 9.8, young.sum()))
    grid = np.linspace(0.0, Z_MAX, 600)
    oldest = np.interp(z, grid, Planck18.age(grid).to_value("Gyr"))

    ended = 0.12 + 0.80 / (1.0 + np.exp(-(log_mass - 10.45 - 0.45 * z) / 0.28))
    quiescent = rng.random(n) < ended
    between = ~quiescent & (rng.random(n) < 0.16)
    sequence = -10.1 - 0.24 * (log_mass - 10.0) - 0.12 * np.maximum(log_mass - 10.5, 0.0)
    sequence = np.minimum(sequence + 2.7 * np.log10(1.0 + z), -8.6)
    log_ssfr = sequence + rng.normal(0.0, 0.3, n) + np.where(rng.random(n) < 0.04, 0.6, 0.0)
    log_ssfr = np.where(between, rng.uniform(-11.3, np.maximum(sequence - 0.5, -11.2), n), log_ssfr)
    log_ssfr = np.where(quiescent, rng.normal(-12.2, 0.5, n), log_ssfr)
    log_ssfr = np.where(young, rng.uniform(-9.0, -7.3, n), log_ssfr)
    log_ssfr = np.where(flat, rng.uniform(-13.0, -8.7, n), log_ssfr)

    share = np.where(quiescent, rng.normal(0.74, 0.13, n) + 0.06 * (log_mass - 10.5), rng.beta(3.0, 1.6, n))
    share = np.where(flat, rng.uniform(0.1, 0.99, n), share)
    age = oldest * np.clip(share, 0.12, 0.98)
    age = np.where(young, 10 ** rng.uniform(-1.0, 0.7, n), age)

    # The rate of the last 100 Myr, per mass formed [1/Gyr], is shared by the delayed exponential and the
    # recent component; what the exponential cannot give, the recent component does.
    rate = _LIVING * 10.0 ** (log_ssfr + 9.0)
    recent_share = np.where(rng.random(n) < 0.5, rng.uniform(0.05, 0.9, n), 0.0)
    decline = np.interp(-(1.0 - recent_share) * rate * age, -_RATE, _DECLINE)
    from_old = np.interp(decline, _DECLINE, _RATE) / age
    recent_age = np.minimum(10 ** rng.uniform(-1.7, -0.2, n), 0.9 * age)
    recent_age[young] = 10 ** rng.uniform(-2.5, -1.3, young.sum())
    missing = np.maximum(rate - from_old, 0.0) * np.maximum(recent_age, 0.1)
    recent_mass = np.where(missing > 1e-7, 10.0 + np.log10(np.maximum(missing, 1e-7)), _ABSENT)

    log_metals = np.interp(
        log_mass, (8.0, 9.0, 9.5, 10.0, 10.5, 11.0, 11.5), (-1.0, -0.65, -0.55, -0.35, -0.08, 0.08, 0.14)
    )
    log_metals = np.where(quiescent, np.maximum(log_metals + 0.06, -0.45), log_metals)
    log_metals += rng.normal(0.0, 1.0, n) * np.interp(log_mass, (10.0, 11.0), (0.3, 0.14))
    log_metals = np.where(young, rng.normal(-0.7, 0.3, n), log_metals)
    log_metals = np.where(flat, rng.normal(-0.1, 0.3, n), log_metals)
    metallicity = 10 ** np.clip(log_metals, -1.6, 0.4)

    x = np.clip(log_mass - 10.0, -1.5, 1.3)
    dust = 0.54 * (0.91 + 0.77 * x + 0.11 * x**2 - 0.09 * x**3) * 10 ** rng.normal(0.0, 0.25, n)
    dust = np.where(between, 0.6 * dust, dust)
    dust = np.where(quiescent, rng.exponential(0.12, n), dust)
    dust = np.where(young, rng.exponential(0.25, n), np.where(flat, rng.exponential(0.4, n), dust))
    dust *= np.where(rng.random(n) < 0.04, 2.0, 1.0)

    burst = rng.random(n) < 0.15
    recent_burst = (quiescent | between) & (rng.random(n) < 0.06)
    burst_age = np.where(recent_burst, rng.uniform(0.15, 1.3, n), age * rng.uniform(0.1, 0.9, n))
    log_burst = np.where(burst | recent_burst, rng.uniform(-2.0, -0.2, n), -10.0)
    log_u = -3.0 - 0.2 * (log_mass - 10.0) + 0.2 * np.clip(log_ssfr - sequence, -1.0, 1.5)
    return {
        "family": family,
        "z": z,
        "log_mass": log_mass,
        "age": age,
        "tau": age / decline,
        "metallicity": metallicity,
        "burst_age": np.minimum(burst_age, 0.9 * age),
        "burst_mass": np.maximum(10.0 + log_burst, _ABSENT),
        "burst_metallicity": np.clip(metallicity * 10 ** rng.normal(0.0, 0.15, n), 0.03, 2.5),
        "recent_age": recent_age,
        "recent_mass": recent_mass,
        "av": np.clip(dust, 0.0, 3.0),
        "eta": np.clip(rng.normal(2.1, 0.35, n), 1.2, 3.0),
        "slope": np.clip(rng.normal(-0.2, 0.25, n), -0.8, 0.4),
        "bump": rng.uniform(0.0, 3.0, n),
        "log_u": np.clip(np.where(young, -2.5, log_u) + rng.normal(0.0, 0.25, n), -3.95, -1.6),
    }


def _draw_masses(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Redshifts and living masses (log10) of galaxies with i = 14.5 to 23, massive ones at most 10^11.8."""
    magnitude = rng.uniform(14.5, 23.0, n)
    z = np.clip(priors.draw_galaxy_redshifts(magnitude, rng), 0.004, Z_MAX)
    grid = np.linspace(1e-3, Z_MAX, 600)
    modulus = Planck18.distmod(grid).value
    for _ in range(6):
        absolute = magnitude - np.interp(np.log(z), np.log(grid), modulus) - 0.6 * z
        log_mass = -0.4 * (absolute - 4.5) + 0.2
        too_massive = log_mass > rng.normal(11.45, 0.15, n)
        z = np.where(too_massive, z * rng.uniform(0.2, 1.0, n), z)
    return z, np.clip(log_mass + rng.normal(0.0, 0.2, n), 7.0, 11.8)


def simulate(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Simulate ``n`` library galaxies with bagpipes, about 20 to 50 ms each.

    Returns
    -------
    dict of str to ndarray
        ``fine`` (n, P) and ``coarse`` (n, Q): rest-frame continua, f_lambda, float16, normalised to a
        mean of one at 5500-6500 A; ``lines`` (n, len(LINES)): line luminosities in units of that mean
        [Angstrom]; ``log_l`` : log10 of that mean per living solar mass [erg/s/A/Msun]; ``log_ssfr``:
        log10 of the star-formation rate over the last 100 Myr per living solar mass [1/yr], not below
        `LOWEST_SSFR`; ``age``: time since the first star formed [Gyr]; ``family``; ``z`` and ``log_mass``:
        the redshift and the living mass [log10 Msun] that the member was made for.

    Raises
    ------
    ModuleNotFoundError
        bagpipes is not installed.
    """
    model, pipes_config = _new_model()
    line_index = np.array([list(pipes_config.line_names).index(name) for name, _, _ in LINES])
    histories = draw_histories(n, rng)
    fine_grid, coarse_grid = FINE.rest_wavelength(Z_MAX), COARSE.rest_wavelength(Z_MAX)
    reference = (model.wavelengths > 5500.0) & (model.wavelengths < 6500.0)
    out: dict[str, np.ndarray] = {
        "fine": np.empty((n, len(fine_grid)), np.float16),
        "coarse": np.empty((n, len(coarse_grid)), np.float16),
        "lines": np.empty((n, len(LINES)), np.float32),
        "log_l": np.empty(n, np.float32),
        "log_ssfr": np.empty(n, np.float32),
        "age": histories["age"].astype(np.float32),
        "family": histories["family"].astype(np.int8),
        "z": histories["z"].astype(np.float32),
        "log_mass": histories["log_mass"].astype(np.float32),
    }
    wavelength = to_vacuum(model.wavelengths)
    for i in range(n):
        model.update(_components({name: values[i] for name, values in histories.items()}))
        level = model.spectrum_full[reference].mean()
        out["fine"][i] = np.interp(fine_grid, wavelength, model.spectrum_full / level)
        out["coarse"][i] = np.interp(coarse_grid, wavelength, model.spectrum_full / level)
        luminosities = np.fromiter(model.line_fluxes.values(), np.float64)
        out["lines"][i] = luminosities[line_index] / level
        out["log_l"][i] = np.log10(level) - model.sfh.stellar_mass
        out["log_ssfr"][i] = max(np.log10(max(model.sfh.sfr, 1e-30)) - model.sfh.stellar_mass, LOWEST_SSFR)
    return out


def _components(p: dict[str, np.ndarray]) -> dict[str, object]:
    """Model components of bagpipes; at redshift 0 the spectrum is in erg/s/A."""
    return {
        "redshift": 0.0,
        "delayed": {"age": p["age"], "tau": p["tau"], "massformed": 10.0, "metallicity": p["metallicity"]},
        "burst": {
            "age": p["burst_age"],
            "massformed": p["burst_mass"],
            "metallicity": p["burst_metallicity"],
        },
        "constant": {
            "age_max": p["recent_age"],
            "age_min": 0.0,
            "massformed": p["recent_mass"],
            "metallicity": p["metallicity"],
        },
        "dust": {
            "type": "Salim",
            "Av": p["av"],
            "eta": p["eta"],
            "delta": p["slope"],
            "B": p["bump"],
            "qpah": 2.5,
            "umin": 2.0,
            "gamma": 0.02,
        },
        "nebular": {"logU": p["log_u"]},
    }


def _new_model() -> tuple[Any, Any]:
    """Model and configuration of bagpipes: a fine wavelength grid, no nebular lines in the continuum.

    Raises
    ------
    InputError
        bagpipes is not installed.
    """
    try:
        import bagpipes
        from bagpipes import config
    except ModuleNotFoundError as error:
        raise InputError(
            "galaxy spectra are made with bagpipes, which is not installed: pip install '.[training]' in a "
            "checkout of ojala"
        ) from error
    config.max_redshift, config.R_spec, config.R_other = 1e-3, 1700.0, 100.0
    fine = FINE.rest_wavelength(Z_MAX)
    first = draw_histories(1, np.random.default_rng(0))
    components = _components({name: values[0] for name, values in first.items()})
    model = bagpipes.model_galaxy(components, spec_wavs=np.geomspace(0.99 * fine[0], 1.01 * fine[-1], 200))
    model.spec_wavs = None  # only spectrum_full is needed: no resampling after each update
    wavelengths = model.wavelengths
    for k, line in enumerate(config.line_wavs):
        pixel = int(np.abs(wavelengths - line).argmin())
        if 0 < pixel < len(wavelengths) - 1:
            width = (wavelengths[pixel + 1] - wavelengths[pixel - 1]) / 2.0
            model.nebular.combined_grid[pixel] -= model.nebular.line_grid[k] / width
    return model, config


def line_levels(fine: np.ndarray) -> np.ndarray:
    """Continuum at H alpha, H beta, [O III] 5007 and [O II] 3728, in the library's unit.

    The mean of the library's continuum in side bands 0.6 to 1.5 % of the wavelength away, which leaves
    out the stellar absorption below the line itself.

    Parameters
    ----------
    fine : ndarray, shape (M, P)
        Library continua.

    Returns
    -------
    ndarray of float32, shape (M, 4)
    """
    grid = FINE.rest_wavelength(Z_MAX)
    levels = []
    for line in (6564.6, 4862.7, 5008.2, 3728.5):
        distance = np.abs(grid / line - 1.0)
        levels.append(fine[:, (distance > 0.006) & (distance < 0.015)].astype(np.float32).mean(axis=1))
    return np.stack(levels, axis=1)


def equivalent_widths(lines: np.ndarray, levels: np.ndarray) -> dict[str, np.ndarray]:
    """Compute rest-frame equivalent widths of emission [Angstrom], positive; shape (N,) each.

    Parameters
    ----------
    lines : ndarray, shape (N, len(LINES))
        Line luminosities.
    levels : ndarray, shape (N, 4)
        Continua as from `line_levels`, same unit per Angstrom.
    """
    return {
        "ew_halpha": lines[:, _HALPHA] / levels[:, 0],
        "ew_nii_6584": lines[:, _NII] / levels[:, 0],
        "ew_hbeta": lines[:, _HBETA] / levels[:, 1],
        "ew_oiii_5007": lines[:, _OIII] / levels[:, 2],
    }


_ESCAPE = 0.75  # share of the ionising photons that dust within the nebulae leaves


def scatter_lines(
    lines: np.ndarray, levels: np.ndarray, log_ssfr: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw strengths and ratios of emission lines, and active nuclei.

    The hydrogen lines of the library, less a quarter for ionising photons that dust absorbs, scatter by
    0.15 dex. The ratios [N II]/H alpha, [O III]/H beta, [S II]/H alpha and [O II]/H beta are drawn for the
    strength of H alpha as DESI observes them (`line_ratios`); each group of `LINES` follows its ratio.

    Of galaxies with a specific rate below 10^-11.3 a year, half have weak LINER emission (median
    EW(H alpha) 0.7 A; [N II]/H alpha 0.6-2.5, [O III]/H beta 1-4); 2 % of the others, and 1 % of these,
    hold a strong hidden nucleus (EW([O III]) 5 to 300 A; [N II]/H alpha 0.4-1.8, [O III]/H beta 3-14).

    Parameters
    ----------
    lines : ndarray, shape (N, len(LINES))
        Line luminosities of the library.
    levels : ndarray, shape (N, 4)
        Continua as from `line_levels`.
    log_ssfr : ndarray, shape (N,)
        log10 of the specific star-formation rate [1/yr].
    rng : Generator
        Source of randomness.

    Returns
    -------
    ndarray of float32, shape (N, len(LINES))
    """
    n = len(lines)
    lines = np.maximum(lines, 1e-9)
    factor = rng.normal(0.0, 0.05, (n, len(_GROUPS)))
    common = np.log10(_ESCAPE) + rng.normal(0.0, 0.15, n)
    ratios = line_ratios.draw_ratios(10.0**common * lines[:, _HALPHA] / levels[:, 0], rng)
    natural = np.log10(lines)
    balance = np.log10(
        levels[:, 3] / levels[:, 1]
    )  # of the continua, from ratios of widths to those of fluxes
    for group, wanted in (
        ("nitrogen", ratios[:, 0] - natural[:, _NII] + natural[:, _HALPHA]),
        ("oxygen III", ratios[:, 1] - natural[:, _OIII] + natural[:, _HBETA]),
        ("low ionisation", ratios[:, 2] - np.log10(lines[:, _SII].sum(axis=1)) + natural[:, _HALPHA]),
        ("oxygen II", ratios[:, 3] + balance - np.log10(lines[:, _OII].sum(axis=1)) + natural[:, _HBETA]),
    ):
        factor[:, _GROUPS.index(group)] = wanted
    factor[:, _GROUPS.index("hydrogen")] = 0.0
    out = lines * 10.0 ** (common[:, None] + np.clip(factor, -1.5, 1.5)[:, _GROUP])
    out[:, _HBETA] *= 10.0 ** rng.normal(0.0, 0.03, n)

    quiescent = log_ssfr < QUIESCENT
    chance = rng.random(n)
    nucleus = chance < np.where(quiescent, 0.01, 0.02)
    liner = quiescent & (chance > 0.5)
    weak = 0.7 * 10.0 ** rng.normal(0.0, 0.4, n) * levels[:, 0]
    log_n2 = np.where(liner, rng.uniform(-0.2, 0.4, n), rng.uniform(-0.4, 0.25, n))
    log_o3 = np.where(liner, rng.uniform(0.0, 0.6, n), rng.uniform(0.5, 1.15, n))
    decrement = 2.86 * 10.0 ** np.abs(rng.normal(0.0, 0.08, n))
    strong = 5.0 * 10.0 ** (1.8 * rng.beta(1.0, 2.0, n)) * levels[:, 2]
    halpha = np.where(liner, weak, np.where(nucleus, strong / 10.0**log_o3 * decrement, 0.0))
    hbeta = halpha / decrement
    o3 = hbeta * 10.0**log_o3
    s2 = halpha * 10.0 ** rng.normal(-0.3, 0.12, n)
    o2 = hbeta * np.where(liner, 10.0 ** rng.normal(0.6, 0.2, n), 10.0 ** rng.normal(0.3, 0.2, n))
    o1 = halpha * 10.0 ** rng.normal(-0.9, 0.2, n)
    for name, strength in (
        ("H  1  6562.80A", halpha),
        ("H  1  4861.32A", hbeta),
        ("H  1  4340.46A", 0.45 * hbeta),
        ("H  1  4101.73A", 0.24 * hbeta),
        ("N  2  6583.45A", halpha * 10.0**log_n2),
        ("N  2  6548.05A", halpha * 10.0**log_n2 / 2.96),
        ("O  3  5006.84A", o3),
        ("O  3  4958.91A", o3 / 2.98),
        ("O  2  3726.03A", 0.5 * o2),
        ("O  2  3728.81A", 0.5 * o2),
        ("S  2  6716.44A", 0.53 * s2),
        ("S  2  6730.82A", 0.47 * s2),
        ("O  1  6300.30A", o1),
        ("O  1  6363.78A", o1 / 3.0),
        ("Ne 3  3868.76A", 0.09 * o3),
        ("He 2  4685.68A", np.where(nucleus, 0.2, 0.0) * hbeta),
    ):
        out[:, _AT[name]] += strength
    return np.asarray(out, np.float32)
