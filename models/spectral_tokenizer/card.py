"""The tokenizer's model card: what its weights were trained on, how good they are, where they fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ojala.models.spectral_tokenizer.checkpoint import TokenizerInfo
from ojala.models.spectral_tokenizer.objective import HUBER, MODEL_ERROR

Report = Mapping[str, Mapping[str, float]]

_LIMITS = """\
## What the numbers mean
* `p_galaxy`, `p_star`, `p_qso` are for a mix of 60 % galaxies, 20 % stars and 20 % quasars, as trained on.
* The redshift is a probability over 1825 bins of 0.001 in ln(1 + z) to z = 5.2: `z` is the mean within
  0.01 (1 + z) of the highest mode, `z_err` half of the central 68.3 % interval. Galaxies were simulated to
  z = 1.28, quasars to z = 5.
* Stellar parameters are Student-t distributions with 3 degrees of freedom; `_err` is half of the central
  68.3 % interval.
* The embedding is the mean of the encoded patches. It carries the instrument as well as the object: subtract
  the mean embedding of each instrument before comparing across instruments.

## Limits
* The encoder has never seen a real spectrum. Continua have no resolving power beyond that of the library
  (2000; stars of model atmospheres some 300), whatever the instrument's own; emission lines, and some 460
  absorption lines of stars with parameters, have it.
* The other lines of stars are missing, bands of molecules are as blurred as the library's, and lines come
  from a simple curve of growth: see the row of real LAMOST stars. The errors, which are true of mock spectra,
  do not know of it.
* GALAH's windows hold too little of a galaxy or quasar for a sure redshift.
* Infrared spectra were not simulated: the network takes them, but its answers to them mean nothing.
"""


def tokenizer_card(info: TokenizerInfo, report: Report, command: str) -> str:
    """The model card of weights, as Markdown.

    Parameters
    ----------
    info : TokenizerInfo
        Of the weights.
    report : mapping
        Measures by sample, as from `ojala.flows.evaluation.spectral_tokenizer`.
    command : str
        The command that made them.
    """
    lines = [
        f"# {info.name} {info.version}",
        "",
        f"Universal spectral tokenizer, shape `{info.config.to_json()}`.  ",
        f"SHA-256 of the weights: `{info.sha256}`.",
        "",
        *_training(info.training),
        "## Quality",
        f"`{command}`",
        "",
        "Class: mean over the classes of the share that is recognised. Redshifts of galaxies and quasars not",
        "taken for stars: sigma_NMAD and the share beyond 0.15 in dz / (1 + z). Parameters of stars: median",
        "absolute deviation from the median and, in brackets, the median itself, of answer less truth.",
        "",
        *_quality(report),
        "",
        *_errors(info.training),
        "### The same object through two instruments",
        "Rank of the right object among all by the cosine distance of centred embeddings (1 is best; by",
        "chance half of n).",
        "",
        *_table(
            ("sought", "n", "median rank", "first", "among ten"),
            [
                (name, f"{m['n']:.0f}", f"{m['median_rank']:.0f}", _share(m["top_1"]), _share(m["top_10"]))
                for name, m in report.items()
                if "median_rank" in m
            ],
        ),
        "",
        "### Half of the range cut away (DESI)",
        "Median over the spectra of the reduced chi-square of the reconstruction, within what was shown and",
        "beyond.",
        "",
        *_table(
            ("shown", "blue half", "red half"),
            [
                (name, f"{m['chi2 of the blue half']:.2f}", f"{m['chi2 of the red half']:.2f}")
                for name, m in report.items()
                if "chi2 of the whole" in m
            ],
        ),
        "",
        _LIMITS,
    ]
    return "\n".join(lines)


def _training(training: Mapping[str, Any]) -> list[str]:
    stages = [training]
    while stages[0].get("before"):
        stages.insert(0, stages[0]["before"])
    first = stages[0]
    lesson = first["config"]["lesson"]
    lines = [
        "## Training",
        f"{first['draws']:,} mock spectra, none seen twice, in {first['seconds'] / 60:.0f} minutes on one",
        f"{first['config']['device'].upper()} (threads: {first['threads']}), in equal parts through "
        f"{', '.join(first['instruments'])}: galaxies, stars and",
        "quasars of the project's library, each with the instrument's wavelengths, resolution and noise. A",
        "twentieth of the library is never drawn for training; what follows is measured on it.",
        "",
        "Objective, as published: reconstruct the usable pixels, weighted with their errors (Huber loss",
        f"from {HUBER:g} errors, errors of at least {100 * MODEL_ERROR:g} %). Added here:",
        f"* in {_share(1 - lesson['whole'])} of the lessons only a part of the patches is shown (from",
        f"  {_share(lesson['min_visible'])} to all; any patches, or a range), and all may be asked for;",
        f"* {_share(lesson['p_bottleneck'])} of the spectra are reconstructed from the embedding alone.",
        "",
        "The heads learned beside the network, without a gradient to it.",
    ]
    for later in stages[1:]:
        lines += _later(later)
    return [*lines, ""]


def _later(stage: Mapping[str, Any]) -> list[str]:
    """What a stage did that went on from the weights of another."""
    config, effort = stage["config"], f"{stage['draws']:,} spectra in {stage['seconds'] / 60:.0f} minutes"
    if config["frozen"]:
        return [f"Then, the network being frozen, they learned on for {effort}."]
    lines = [
        f"Then network and heads went on for {effort};",
        f"in {_share(1 - config['lesson']['whole'])} of the lessons only a part was shown, from "
        f"{_share(config['lesson']['min_visible'])} of the patches to all.",
    ]
    if config.get("contrast"):
        lines += [
            f"Each step saw {config['batch_size']} objects through two instruments; with a weight of "
            f"{config['contrast']:g}, each embedding",
            "was to be nearest to the same object's (cross-entropy of the cosines of centred embeddings).",
        ]
    return lines


def _errors(training: Mapping[str, Any]) -> list[str]:
    """How often the truth lies within the stated intervals, before and after the errors were scaled."""
    if not (measured := training.get("calibrated")):
        return []
    rows = [
        (
            name,
            f"{after['n']:.0f}",
            *(_share(part[share]) for share in ("within_68", "within_95") for part in (before, after)),
        )
        for name, after in measured["after"].items()
        for before in [measured["before"][name]]
    ]
    return [
        "### Errors",
        f"Each stated error has a factor, fitted on {measured['draws']:,} held-out mock spectra of all "
        "instruments. On as",
        "many others, of objects that were taken for what they are, the share of truths within the stated",
        "central intervals of 68.3 % and 95.4 %, before and after:",
        "",
        *_table(("error", "n", "68.3 %", "scaled", "95.4 %", "scaled"), rows),
        "",
    ]


def _quality(report: Report) -> list[str]:
    header = (
        "spectra",
        "n gal, star, QSO",
        "class",
        "gal",
        "star",
        "QSO",
        "z gal",
        ">0.15",
        "z QSO",
        ">0.15",
    )
    rows = [
        (
            name,
            ", ".join(f"{m.get(f'n_{kind}', 0):.0f}" for kind in ("galaxy", "star", "qso")),
            *(_share(m.get(key)) for key in ("class_mean", "class_galaxy", "class_star", "class_qso")),
            _number(m.get("z_galaxy_nmad"), 4),
            _share(m.get("z_galaxy_outliers_15")),
            _number(m.get("z_qso_nmad"), 4),
            _share(m.get("z_qso_outliers_15")),
            *(_scatter(m, key, places) for key, places in _PARAMETERS),
        )
        for name, m in report.items()
        if "class_mean" in m
    ]
    return _table((*header, "Teff [K]", "log g", "[Fe/H]"), rows)


_PARAMETERS = (("teff", 0), ("logg", 2), ("fe_h", 2))


def _scatter(measures: Mapping[str, float], key: str, places: int) -> str:
    if f"{key}_mad" not in measures:
        return ""
    return f"{measures[f'{key}_mad']:.{places}f} ({measures[f'{key}_bias']:+.{places}f})"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
