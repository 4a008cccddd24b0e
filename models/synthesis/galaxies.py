"""Galaxies: a library of rest-frame continua and line luminosities made with bagpipes.

Stellar populations are BC03 with the MILES library, nebular lines and continuum from Cloudy, dust after
Salim et al. (2018), as shipped with bagpipes (Carnall et al. 2018); initial mass function of Kroupa.
Star-formation histories are drawn from four families (`FAMILIES`), of which the quiescent one is the
largest: old galaxies without lines are the hardest objects for a photometric redshift. The models have
solar abundance ratios; `models.synthesis.abundances` changes them when an object is drawn.

Continuum and lines are kept apart, so that each draw has its own line ratios and its own equivalent
widths. The lines of the library come from star formation alone; `scatter_lines` adds an active nucleus
or, in quiescent galaxies, weak LINER emission.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.synthesis.grid import COARSE, FINE, to_vacuum

QUIESCENT = -11.3
"""log10 of the specific star-formation rate [1/yr] below which a galaxy counts as quiescent."""

Z_MAX = 1.3
"""Largest redshift that the library covers."""

FAMILIES: tuple[tuple[str, float], ...] = (
    ("quiescent", 0.40),
    ("star-forming", 0.38),
    ("fading", 0.10),
    ("young", 0.12),
)
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
"""Cloudy's label, vacuum wavelength [Angstrom] and group of each line; the lines of a group vary together."""

LINE_WAVELENGTH = np.array([wavelength for _, wavelength, _ in LINES])
"""Vacuum wavelengths of `LINES` [Angstrom]."""

_GROUPS = sorted({group for _, _, group in LINES})
_GROUP = np.array([_GROUPS.index(group) for _, _, group in LINES])
_AT = {name: k for k, (name, _, _) in enumerate(LINES)}

_ABSENT = 0.0  # log10 of one solar mass beside 10^10: a component that does not matter


def draw_histories(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw star-formation histories, metallicities and dust for ``n`` galaxies.

    A galaxy is a delayed exponential of 10^10 solar masses, an intermediate-age burst and a young
    component of constant rate; the latter two may be absent. Ages and times in Gyr, metallicities in
    solar units, masses as log10 of solar masses formed.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        ``family`` and the parameters that `simulate` hands to bagpipes.
    """
    family = rng.choice(len(FAMILIES), n, p=[share for _, share in FAMILIES])
    old, fading, young = (family == k for k in (0, 2, 3))
    age = rng.uniform(1.5, 13.2, n)
    age[old] = rng.uniform(2.0, 13.3, old.sum())
    age[fading] = rng.uniform(1.5, 13.0, fading.sum())
    age[young] = 10 ** rng.uniform(-1.3, 0.7, young.sum())
    tau = 10 ** rng.uniform(-0.1, 1.1, n)
    tau[old] = age[old] / rng.uniform(6.0, 30.0, old.sum())
    tau[fading] = age[fading] / rng.uniform(2.5, 6.0, fading.sum())
    log_metals = rng.normal(-0.2, 0.3, n)
    log_metals[old] = rng.normal(0.02, 0.22, old.sum())
    log_metals[young] = rng.normal(-0.6, 0.35, young.sum())
    metallicity = 10 ** np.clip(log_metals, -1.5, 0.4)
    metallicity[old] = np.maximum(metallicity[old], 0.3)

    def present(probability: tuple[float, float, float, float]) -> np.ndarray:
        return np.asarray(rng.random(n) < np.choose(family, probability))

    burst_age = age * rng.uniform(0.1, 0.9, n)
    burst_age[fading] = np.minimum(10 ** rng.uniform(-0.7, 0.2, fading.sum()), 0.9 * age[fading])
    log_burst = rng.uniform(-2.0, -0.3, n)
    burst_mass = np.where(present((0.3, 0.15, 0.7, 0.0)), 10.0 + log_burst, _ABSENT)
    # A little recent star formation in an old galaxy ("frosting"); a burst in a young one.
    log_recent = np.choose(
        family, [rng.uniform(lo, hi, n) for lo, hi in ((-5, -2.5), (-3, -1), (-4.5, -2), (-2, 0.3))]
    )
    recent_mass = np.where(present((0.35, 0.45, 0.4, 0.8)), 10.0 + log_recent, _ABSENT)
    recent_age = np.minimum(10 ** rng.uniform(-2.4, -0.5, n), 0.9 * age)
    dust = np.choose(
        family,
        [rng.exponential(0.13, n), rng.gamma(2.0, 0.3, n), rng.gamma(1.5, 0.2, n), rng.exponential(0.3, n)],
    )
    log_u = np.where(young, rng.normal(-2.5, 0.4, n), rng.normal(-3.1, 0.35, n))
    return {
        "family": family,
        "age": age,
        "tau": tau,
        "metallicity": metallicity,
        "burst_age": burst_age,
        "burst_mass": burst_mass,
        "burst_metallicity": np.clip(metallicity * 10 ** rng.normal(0.0, 0.15, n), 0.03, 2.5),
        "recent_age": recent_age,
        "recent_mass": recent_mass,
        "av": np.minimum(dust, 3.0),
        "eta": rng.uniform(1.0, 2.8, n),
        "slope": np.clip(rng.normal(-0.2, 0.3, n), -0.8, 0.4),
        "bump": rng.uniform(0.0, 3.0, n),
        "log_u": np.clip(log_u, -3.95, -1.6),
    }


def simulate(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Make ``n`` library galaxies with bagpipes, about 20 to 50 ms each.

    Returns
    -------
    dict of str to ndarray
        ``fine`` (n, P) and ``coarse`` (n, Q): rest-frame continua, f_lambda, float16, normalised to a
        mean of one at 5500-6500 A; ``lines`` (n, len(LINES)): line luminosities in units of that mean
        [Angstrom]; ``log_l`` : log10 of that mean per living solar mass [erg/s/A/Msun]; ``log_ssfr``:
        log10 of the star-formation rate over the last 100 Myr per living solar mass [1/yr], not below
        -14; ``age``: time since the first star formed [Gyr]; ``family``.

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
        out["log_ssfr"][i] = max(np.log10(max(model.sfh.sfr, 1e-30)) - model.sfh.stellar_mass, -14.0)
    return out


def _components(p: dict[str, np.ndarray]) -> dict[str, object]:
    """The dictionary by which bagpipes knows a galaxy; at redshift 0 it answers in erg/s/A."""
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
    """Model and configuration of bagpipes: a fine wavelength grid, no nebular lines in the continuum."""
    try:
        import bagpipes
        from bagpipes import config
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "galaxy spectra are made with bagpipes, which is not installed: pip install 'ojala[training]'"
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
    """Continuum at H alpha, H beta and [O III] 5007, in the library's unit.

    The mean of the library's continuum in side bands 0.6 to 1.5 % of the wavelength away, which leaves
    out the stellar absorption below the line itself.

    Parameters
    ----------
    fine : ndarray, shape (M, P)
        Library continua.

    Returns
    -------
    ndarray of float32, shape (M, 3)
    """
    grid = FINE.rest_wavelength(Z_MAX)
    levels = []
    for line in (6564.6, 4862.7, 5008.2):
        distance = np.abs(grid / line - 1.0)
        levels.append(fine[:, (distance > 0.006) & (distance < 0.015)].astype(np.float32).mean(axis=1))
    return np.stack(levels, axis=1)


def equivalent_widths(lines: np.ndarray, levels: np.ndarray) -> dict[str, np.ndarray]:
    """Rest-frame equivalent widths of emission [Angstrom], positive; shape (N,) each.

    Parameters
    ----------
    lines : ndarray, shape (N, len(LINES))
        Line luminosities.
    levels : ndarray, shape (N, 3)
        Continua as from `line_levels`, same unit per Angstrom.
    """
    return {
        "ew_halpha": lines[:, _AT["H  1  6562.80A"]] / levels[:, 0],
        "ew_nii_6584": lines[:, _AT["N  2  6583.45A"]] / levels[:, 0],
        "ew_hbeta": lines[:, _AT["H  1  4861.32A"]] / levels[:, 1],
        "ew_oiii_5007": lines[:, _AT["O  3  5006.84A"]] / levels[:, 2],
    }


def scatter_lines(
    lines: np.ndarray, levels: np.ndarray, log_ssfr: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Give each galaxy line ratios of its own, and to some an active nucleus.

    All lines scatter by 0.15 dex together, and each group of `LINES` by a further 0.12 dex. Of galaxies
    with a specific rate below 10^-11.3 a year, half have weak LINER emission (median EW(H alpha) 0.7 A;
    [N II]/H alpha 0.6-2.5, [O III]/H beta 1-4); of the others 12 % have an active nucleus with 3 to 300 %
    of the galaxy's H alpha ([N II]/H alpha 0.4-1.8, [O III]/H beta 2-12).

    Parameters
    ----------
    lines : ndarray, shape (N, len(LINES))
        Line luminosities of the library.
    levels : ndarray, shape (N, 3)
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
    common = rng.normal(0.0, 0.15, (n, 1))
    per_group = rng.normal(0.0, 0.12, (n, len(_GROUPS)))
    out = lines * 10.0 ** (common + per_group[:, _GROUP])
    quiescent = log_ssfr < QUIESCENT
    liner = quiescent & (rng.random(n) < 0.5)
    seyfert = ~quiescent & (rng.random(n) < 0.12)
    weak = 0.7 * 10.0 ** rng.normal(0.0, 0.4, n) * levels[:, 0]
    strong = lines[:, _AT["H  1  6562.80A"]] * 10.0 ** rng.uniform(-1.5, 0.5, n)
    halpha = np.where(liner, weak, np.where(seyfert, strong, 0.0))
    decrement = 2.86 * 10.0 ** np.abs(rng.normal(0.0, 0.08, n))
    log_n2 = np.where(liner, rng.uniform(-0.2, 0.4, n), rng.uniform(-0.4, 0.25, n))
    log_o3 = np.where(liner, rng.uniform(0.0, 0.6, n), rng.uniform(0.3, 1.1, n))
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
        ("He 2  4685.68A", np.where(seyfert, 0.2, 0.0) * hbeta),
    ):
        out[:, _AT[name]] += strength
    return np.asarray(out, np.float32)
