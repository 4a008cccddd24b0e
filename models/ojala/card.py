"""The model card: what weights were trained on, how good they are, what their numbers mean."""

from __future__ import annotations

from typing import Any

from ojala.models.evaluation.metrics import MAGNITUDE_BINS
from ojala.models.ojala.checkpoint import WeightsInfo
from ojala.models.quantities import SCALARS

_MEANING = """\
## What the numbers mean
* `p_galaxy`, `p_star`, `p_qso`: class probabilities for the mix of classes in a survey to i = 22.5 (67 %
  galaxies, 28 % stars, 5 % quasars on the whole; stars are more common at the bright end). For another mix
  multiply by the ratio of the shares and normalise.
* Redshift: a probability over 1825 bins of 0.001 in ln(1 + z), 0 <= z <= 5.2; `z` is the mean within
  0.01 (1 + z) of the highest mode, `z_err` half the width between the 16 % and 84 % quantiles, `z_odds` the
  mass within 0.03 (1 + z) of `z`. Labels were spread over one bin, so `z_err` is never much below 0.001 (1
  + z).
* Other quantities: a Student-t distribution with 3 degrees of freedom of the transformed quantity; `_err`
  is half the width of its central 68.3 % interval, which is 1.197 times its scale. Its wings are wider than
  a Gaussian's.
* Flux in a band, where these weights can be asked for it: the flux that the band would measure without
  noise, in the same distribution of arcsinh(flux / s), from the bands that are not hidden with it.
* An answer under the wrong class has no meaning: `log_mass` of a star is whatever the network says.
* A row without any band gets the prior of the training.

## Limits
* What the training does not hold (blends, variable sources, T dwarfs, calibration faults beyond its jitter)
  is answered with unjustified confidence; `novelty` finds part of it.
* A quasar has a non-stellar continuum of a ninth or more of its light at 6000 A; `z_gal` of such an object
  ignores its nucleus.
* Galaxies were simulated to z = 1.28 and i = 22.8, quasars to z = 5; nothing is known beyond.
"""


_BAND_TRAINING = [
    "Of half of the draws one band in four or in eight is hidden besides; six bands that a draw does not",
    "show are asked for, with the flux that they would measure without noise as the target.",
]


def model_card(info: WeightsInfo, curve: str | None = None) -> str:
    """The model card of weights, as Markdown, with the measures that their training stored.

    ``curve`` names the picture of the learning curve beside the card, where there is one.
    """
    training: dict[str, Any] = dict(info.training)
    config, held_out = training["config"], training["held_out"]
    minutes, device = training["seconds"] / 60.0, config["device"].upper()
    precision = "bfloat16 where that is safe" if config["bf16"] else "float32"
    lines = [
        f"# {info.name} {info.version}",
        "",
        f"OJALA, shape `{config['preset']}`: `{info.config.to_json()}`.  ",
        f"SHA-256 of the weights: `{info.sha256}`.",
        "",
        "## Training",
        f"{training['draws']:,} draws of mock photometry, none seen twice, in {minutes:.0f} minutes on",
        f"one {device} (threads: {training['threads']}), in {precision}.",
        "Each draw is a library spectrum (galaxies: bagpipes; quasars: after Temple et al. 2021; stars: ck04",
        "and empirical templates) at a drawn redshift and magnitude, with the noise, depths, calibration",
        "errors and missing bands of a survey. A twentieth of the library never enters the training.",
        *(_BAND_TRAINING if info.config.band_requests else []),
        *([f"It began with the weights {config['start']}."] if config.get("start") else []),
        f"Batches of {config['batch_size']}, Muon and AdamW with a peak rate of {config['learning_rate']:g},",
        "cosine schedule, running mean of the weights.",
        *([config["note"]] if config["note"] else []),
        "",
        *([f"![Learning curve]({curve})", ""] if curve else []),
        "## On held-out mocks",
        f"{config['held_out']} objects from library members that the training never saw, in the survey's",
        "mix, bands missing as in the training. Redshifts are under the true class. sigma_NMAD =",
        "1.4826 median|dz - median dz|, dz = (z - z_true) / (1 + z_true).",
        "",
        *_by_magnitude(held_out),
        "",
        *_scalars(held_out),
        "",
        *_calibrated(training.get("calibrated")),
        _MEANING,
    ]
    return "\n".join(lines)


def _calibrated(measures: dict[str, Any] | None) -> list[str]:
    """What the calibration changed; nothing where there is none."""
    if measures is None:
        return []
    lines = [
        "## Calibration",
        "Fitted on two thirds of held-out draws and measured on the rest, which share library members with",
        "them. `fitted` is without, `stored` with the broadening of redshift PDFs for what mocks leave out",
        "(0.001 in ln(1 + z), assumed). Errors and probabilities elsewhere in this card are from before.",
        "",
    ]
    return [*lines, calibration_table(measures), ""]


def calibration_table(measures: dict[str, Any]) -> str:
    """The measures of `ojala.flows.training.calibrate.calibrate_weights` as a Markdown table."""
    rows = [
        "| quantity | n | measure | before | fitted | stored |",
        "|---|---|---|---|---|---|",
    ]
    names = {
        "ece": "expected calibration error",
        "nll": "mean -ln p of the truth",
        "pit_ks": "distance of PIT from uniform (KS)",
        "within_68": "truths within 68.3 %",
        "within_95": "truths within 95.4 %",
    }
    for quantity, before in measures["before"].items():
        for key, label in names.items():
            if key in before:
                figures = [measures[stage][quantity][key] for stage in ("before", "fitted", "after")]
                cells = [quantity, f"{before['n']:.0f}", label, *(f"{figure:.4f}" for figure in figures)]
                rows.append("| " + " | ".join(cells) + " |")
    novel = 100.0 * measures["novel"]
    rows += ["", f"{novel:.2f} % of held-out mocks are novel (1 % is right)."]
    return "\n".join(rows)


def _by_magnitude(held_out: dict[str, dict[str, float]]) -> list[str]:
    """Table of classes and redshifts by measured magnitude."""
    header = (
        "| i | weighted F1 | F1 galaxy, star, QSO | galaxies: n | sigma_NMAD | bias | beyond 0.03 | 0.15 "
        "| quasars: n | sigma_NMAD | bias | beyond 0.03 | 0.15 |"
    )
    rows = [header, "|" + "---|" * 13]
    for label, suffix in [("all", ""), *((f"{a:g}-{b:g}", f" {a:g}-{b:g}") for a, b in MAGNITUDE_BINS)]:
        if f"class{suffix}" not in held_out:
            continue
        classes = held_out[f"class{suffix}"]
        cells = [label, f"{classes['f1_weighted']:.3f}"]
        cells += [", ".join(f"{classes[f'f1_{name}']:.3f}" for name in ("galaxy", "star", "qso"))]
        for name in ("z_gal", "z_qso"):
            z = held_out[f"{name}{suffix}"]
            cells += [f"{z['n']:.0f}", f"{z['sigma_nmad']:.4f}", f"{z['bias']:+.4f}"]
            cells += [f"{100 * z['outliers_03']:.1f} %", f"{100 * z['outliers_15']:.1f} %"]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _scalars(held_out: dict[str, dict[str, float]]) -> list[str]:
    """Table of the scalar quantities."""
    rows = [
        "| quantity | n | bias | NMAD | std | R2 | range ratio | truth within `_err` (0.683 is right) |",
        "|" + "---|" * 8,
    ]
    for quantity in SCALARS:
        if (found := held_out.get(quantity.name)) is None:
            continue
        name = "log10 teff" if quantity.name == "teff" else quantity.name
        cells = [name, f"{found['n']:.0f}"]
        cells += [f"{found['bias']:+.3f}", *(f"{found[key]:.3f}" for key in ("nmad", "std", "r2"))]
        cells += [f"{found['range_ratio']:.2f}", f"{found['within_err']:.3f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return rows
