"""SpecPT's model card: what its weights were trained on, how good they are, where they fail."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from ojala.models.specpt.checkpoint import SpecPTInfo

Report = Mapping[str, Mapping[str, float]]
"""Measures by sample."""

PUBLISHED = {"bgs": (0.0006, 0.0020), "elg": (0.0008, 0.0080)}
"""1.4826 median|dz| and share beyond 0.15 that arXiv:2501.01070 gives for DESI's own spectra."""

_MEANING = """\
## What the numbers mean
* The redshift is a probability over 1000 bins of 0.001 in ln(1 + z) to z = 1.718: `z` is the mean within
  0.01 (1 + z) of the highest mode, `z_odds` the mass within 0.03 (1 + z) of `z`, `z_mode2` the second
  solution. `z_err` is half of the central 68.3 % interval, less in quadrature the spread of the labels (0.76
  bins), and at least 0.0001 (1 + z).
* A reconstruction is a sum of patches, which give the continuum, and of learned rest-frame spectra at the
  redshift `z`, which give the lines: where `z` is wrong, its lines are in the wrong place.
* `reconstruction_chi2` grows with the square of the signal-to-noise ratio where the network, not the noise,
  limits: POOR_RECONSTRUCTION allows for an error of 5 % of the network.

## Limits
* Trained on simulated galaxies alone: stars and quasars are given the redshift of some galaxy, often with
  high odds. POOR_RECONSTRUCTION finds most of them, not all (see the rows of real ones): choose galaxies
  first.
* Simulated to z = 1.28, the end of the library, while DESI's emission-line galaxies reach 1.6: beyond 1.28
  nothing is known.
* Simulated emission-line galaxies have at least 6e-17 erg/s/cm2 in [O II]; fainter ones are harder than the
  figures say.
* The published figures are for DESI's own spectra, those here for simulated ones, which have no faults but
  noise, lost pixels and smooth errors of calibration: the two are not the same measurement.
"""


def specpt_card(info: SpecPTInfo, report: Report, command: str) -> str:
    """The model card of weights, as Markdown.

    Parameters
    ----------
    info : SpecPTInfo
        Of the weights.
    report : mapping
        Measures by sample, as from `ojala.flows.evaluation.specpt`.
    command : str
        The command that made them.
    """
    published = "; ".join(
        f"{name} {nmad}, {100 * eta:.2f} % beyond 0.15" for name, (nmad, eta) in PUBLISHED.items()
    )
    lines = [
        f"# {info.name} {info.version}",
        "",
        f"SpecPT, shape `{info.config.to_json()}`.  ",
        f"SHA-256 of the weights: `{info.sha256}`.",
        "",
        "## Training",
        *_training(info.training),
        "",
        "## Redshifts",
        f"`{command}`",
        "",
        *_paragraph(
            "dz = (z - z_true) / (1 + z_true); sigma_NMAD = 1.4826 median|dz - median dz|, without the "
            "median of dz in brackets, as published. `sure` are the rows without a flag of doubt "
            "(Z_MULTIMODAL, Z_UNCERTAIN, POOR_RECONSTRUCTION, FEW_PIXELS). Mock spectra (bgs, "
            "elg) are of library members that the training never saw; real ones are compared with their "
            "survey's redshift, DESI's galaxies with redrock's and its quasars with the catalogue's."
        ),
        "",
        *_redshifts(report),
        "",
        f"Published, on DESI's spectra: {published}.",
        "",
        *_other_head(info.training),
        "## Reconstruction",
        *_paragraph(
            "chi2: mean squared residual over the variance, median of the rows. NMAD: mean |x - x'| over the "
            "spectrum's median absolute deviation, noisy pixels counting less, and what the noiseless "
            "spectrum would have. Share of the noise that the reconstruction repeats, at bright lines of the "
            "night sky and elsewhere beyond 7200 A: were the lines of the sky reconstructed, the first would "
            "be near 1."
        ),
        "",
        *_reconstructions(report),
        "",
        _MEANING,
    ]
    return "\n".join(lines)


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, 105, break_long_words=False, break_on_hyphens=False)


def _training(training: Mapping[str, Any]) -> list[str]:
    config = training["config"]
    return _paragraph(
        f"{training['draws']:,} simulated spectra, none seen twice, in {training['seconds'] / 60.0:.0f} "
        f"minutes on one {config['device'].upper()} (threads: {training['threads']}), bfloat16 where that is "
        f"safe; for the first {100.0 * config['reconstruction']:.0f} % of the time the reconstruction alone "
        "was learnt, with the published loss and one of residuals over their errors, and with the true "
        "redshift for the rest-frame part; then reconstruction and redshift. "
        "Each draw is a bagpipes galaxy at a redshift of its own with DESI's resolution, noise and lost "
        "pixels: 35 % bright galaxies (r < 20.2, z < 0.6), 35 % emission-line galaxies (0.6 < z < 1.28), "
        "10 % galaxies of any kind to r = 22, 20 % bright galaxies in longer exposures of DESI and of SDSS. "
        "A twentieth of the library never enters the training. Spectra are rebinned by inverse variance to "
        "pixels of 2.5e-4 in ln(wavelength) (75 km/s). Batches "
        f"of {config['batch_size']}, Muon and AdamW with a peak rate of {config['learning_rate']:g}, cosine "
        f"schedule, running mean of the weights, seed {config['seed']}."
    )


def _redshifts(report: Report) -> list[str]:
    rows = [
        "| sample | rows | S/N of a pixel | sigma_NMAD | bias | beyond 0.15 | beyond 0.03 | R2 | range ratio "
        "| within `z_err` | sure | sigma_NMAD of sure | beyond 0.15 |",
        "|" + "---|" * 13,
    ]
    for name, row in report.items():
        sure = (
            [f"{row['sure sigma_nmad']:.5f}", f"{100 * row['sure outliers_15']:.2f} %"]
            if "sure sigma_nmad" in row
            else ["-", "-"]
        )
        cells = [
            name,
            f"{row['rows']:.0f}",
            f"{row['median snr']:.1f}",
            f"{row['sigma_nmad']:.5f} ({row['sigma_nmad_uncentred']:.5f})",
            f"{row['bias']:+.5f}",
            *(f"{100 * row[key]:.2f} %" for key in ("outliers_15", "outliers_03")),
            *(f"{row[key]:.3f}" if row["r2"] > -100.0 else "-" for key in ("r2", "range_ratio")),
            f"{100 * row['within z_err']:.0f} %",
            f"{100 * row['sure']:.0f} %",
            *sure,
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _other_head(training: Mapping[str, Any]) -> list[str]:
    """The published head beside the one that is served, as measured at the end of the training."""
    cells = [
        f"{name} {row['softplus sigma_nmad']:.4f}, {100 * row['softplus outliers_15']:.1f} % beyond 0.15"
        for name, row in training["held_out"].items()
        if "softplus sigma_nmad" in row
    ]
    if not cells:
        return []
    text = "; ".join(cells)
    return [f"The published head (residual network, softplus), trained beside: sigma_NMAD {text}.", ""]


def _reconstructions(report: Report) -> list[str]:
    rows = [
        "| sample | chi2 | NMAD | NMAD of the truth | noise repeated at sky lines | elsewhere |",
        "|" + "---|" * 6,
    ]
    keys = ("truth nmad", "noise reconstructed at sky lines", "noise reconstructed elsewhere")
    for name, row in report.items():
        cells = [name, f"{row['reconstruction_chi2']:.2f}", f"{row['reconstruction_nmad']:.3f}"]
        cells += [f"{row[key]:.3f}" if key in row else "-" for key in keys]
        rows.append("| " + " | ".join(cells) + " |")
    return rows
