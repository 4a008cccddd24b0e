"""AVIS' model card: what its weights were trained on, what can be read from the embeddings, what not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ojala.models.avis.checkpoint import AvisInfo
from ojala.models.avis.losses import VARIANCE_WEIGHTS

Report = Mapping[str, Mapping[str, Mapping[str, float]]]

_OBJECTIVE = {
    "towers": "none: each tower alone",
    "contrastive": "contrast: a spectrum's image is to be found among those of the batch, and the reverse "
    "(symmetric InfoNCE, learned temperature)",
    "variance": "variance, invariance and covariance of the two sides (weights "
    f"{', '.join(f'{weight:g}' for weight in VARIANCE_WEIGHTS)})",
}

_OWN_CHOICE = """\
Nothing of the architecture, the objective or the numbers of the system of this name is published: all of
them here are this project's own choice."""

_PAIRS = """\
On simulated pairs of the project's own library: each object is seen as a spectrum (three quarters as
DESI, a quarter as SDSS) and as an image (g, r, z; 64 x 64 pixels of 0.262 arcsec), which share nothing
but the object. 60 % galaxies, 20 % stars, 20 % quasars. No label took part. Each time, a pair is seen
with noise, calibration, orientation and place of its own, and with part of its patches hidden."""

_RECONSTRUCTION = """\
At every stage each side is reconstructed as well, weighted with its errors: from the patches that are
shown, or (%s of the pairs) from its embedding alone."""

_PROTOCOL = """\
All on simulated pairs of held-out objects (a twentieth of the library's members, never in training),
unless said otherwise. Neighbours are mock objects from the side of the training, sought as in the atlas: in
the leading principal components of the embedding, each brought to a scatter of 1 ("not scaled": in the
embedding as it is). The redshift is the median of the 16 nearest that are galaxies or quasars. The two
sigma_NMAD are 1.4826 median|dz - median dz| and 1.4826 median|dz|; the range is that of the answers over
that of the truth (1 is best; below, answers collapse to the mean). "Tower alone" is the first stage, before
the two sides were to agree; "PCA of g, r, z" are the same objects' magnitudes with the noise of the images,
without shape."""

_PROBES = """\
Class (logistic regression, 500 steps at most): mean over the classes of the share that is recognised.
Mass of galaxies [dex] and effective temperature of stars: R2 and 1.4826 times the median absolute
deviation."""

_CLUSTERS = """\
Of mock objects from the side of the training, on the map as in the atlas, without labels. Adjusted Rand
index and purity of the objects in clusters; the index with the others as one more cluster;
trustworthiness of the 15 nearest neighbours on maps of 4,000 objects."""

_TRIED = """\
Judged on the same fewer objects. "Contrast" and "variance" began with the same towers ("before") and
learned for the same time, the weights of neither objective being tuned. Contrast lets one side find the
other far better, and tells the redshifts of galaxies better; variance those of quasars, and temperatures.
"Kept" are these weights: they went on from "contrast", with two looks at each spectrum."""

_LIMITS = """\
## What the numbers mean
* An embedding is a vector of length 1. The joint embedding is the direction of the sum of the two sides',
  or the side that there is.
* The brightness of a spectrum is part of what is read, in 1e-17 erg/s/cm2/Angstrom: spectra of another
  scale, or of an arbitrary one (LAMOST, GALAH), are taken for brighter or fainter objects than they are.
* Redshift, class, mass and temperature took no part in the training. They are read from the neighbours in
  the space, or by a linear probe that is fitted on mock objects.

## Limits
* **All pairs are simulated.** No real pair of a spectrum and a cut-out was seen, in training or in tests;
  real spectra were tested without their images.
* Spectra were seen on the wavelengths of DESI and SDSS; those of other instruments are beyond what was
  learned.
* Redshifts from an image are photometric, and agreement asks the spectrum's side only for what an image
  can tell as well. What a spectrum knows beyond that is held by the contrast of two looks and by the
  reconstruction from the embedding alone, coarsely after so short a training: for precise redshifts use
  the project's models of spectra.
* Images were simulated without correlated noise, saturation, artefacts, spiral arms and mergers, the
  object within 4 pixels of the centre. Cut-outs that were shifted at an image's edge are beyond what was
  learned.
* The pairs of the training were kept before the library's stars were given their absorption lines at the
  instruments' resolution; the figures are of stars that have them.
* Galaxies' redshifts from the neighbours scatter no less than with three magnitudes alone, though fewer
  are far off and R2 is higher; about half of the quasars' are far off.
* Real galaxies of SDSS are nearer and brighter than nearly all mock ones, and mock neighbours put them too
  far. Their R2 is below zero with real neighbours as well: their redshifts differ little (half are below
  0.03), and the few that are far off rule it.
* Clusters of the joint embedding are parts of classes: pure, but a third of the objects is in none, and
  their number depends on the size of the sample (compare the last table).
* The training was short: losses, and ranks of one side among the other, were still falling at its end.
"""


def avis_card(info: AvisInfo, report: Report, command: str) -> str:
    """The model card of weights, as Markdown.

    Parameters
    ----------
    info : AvisInfo
        Of the weights.
    report : mapping
        Measures by table and row, as from `ojala.flows.evaluation.avis.evaluate`.
    command : str
        The command that made them.
    """
    lines = [
        f"# {info.name} {info.version}",
        "",
        f"AVIS: spectra and images in one embedding. Shape `{info.config.to_json()}`.  ",
        f"SHA-256 of the weights: `{info.sha256}`.",
        "",
        _OWN_CHOICE,
        "",
        *_training(info.training),
        "## Quality",
        f"`{command}`",
        "",
        _PROTOCOL,
        "",
        "### Redshift of galaxies from the neighbours",
        "",
        *_redshifts({**report["pairs"], **report["unscaled"]}, "galaxy"),
        "",
        "### Redshift of quasars from the neighbours",
        "",
        *_redshifts({**report["pairs"], **report["unscaled"]}, "qso"),
        "",
    ]
    if "real" in report:
        lines += [
            "### Redshift of real objects from their spectra alone",
            "Neighbours are mock objects of the same instrument, or the survey's other real ones.",
            "",
            "Galaxies:",
            "",
            *_redshifts(report["real"], "galaxy"),
            "",
            "Quasars:",
            "",
            *_redshifts(report["real"], "qso"),
            "",
        ]
    lines += [
        "### Linear probes",
        _PROBES,
        "",
        *_table(
            ("embedding", "class", "mass R2", "mass NMAD", "Teff R2", "Teff NMAD [K]"),
            [
                (
                    name,
                    _share(m["class"]),
                    _number(m["log_mass_r2"], 3),
                    _number(m["log_mass_nmad"], 2),
                    _number(m["teff_r2"], 3),
                    _number(m["teff_nmad"], 0),
                )
                for name, m in report["pairs"].items()
            ],
        ),
        "",
        "### Clusters (HDBSCAN) against class, and the map (PaCMAP)",
        _CLUSTERS,
        "",
        *_table(
            ("embedding", "clusters", "in none", "adjusted Rand", "with the others", "purity", "2-D", "3-D"),
            [
                (
                    name,
                    _number(m["clusters"], 0),
                    _share(m["unclustered"]),
                    _number(m["adjusted_rand"], 3),
                    _number(m["adjusted_rand_all"], 3),
                    _share(m["purity"]),
                    _number(m["trustworthiness_2"], 3),
                    _number(m["trustworthiness_3"], 3),
                )
                for name, m in report["clusters"].items()
            ],
        ),
        "",
        "### One side finds the other",
        "Rank of the right one by the cosine distance of centred embeddings (by chance half of n).",
        "",
        *_table(
            ("sought", "n", "median rank", "first", "among ten"),
            [
                (name, f"{m['n']:.0f}", f"{m['median_rank']:.0f}", _share(m["top_1"]), _share(m["top_10"]))
                for name, m in report["retrieval"].items()
            ],
        ),
        "",
    ]
    if "tried" in report:
        lines += [
            "### Objectives that were tried",
            _TRIED,
            "",
            *_tried(report["tried"]),
            "",
        ]
    return "\n".join([*lines, _LIMITS])


def _training(training: Mapping[str, Any]) -> list[str]:
    stages = [training]
    while stages[0].get("before"):
        stages.insert(0, stages[0]["before"])
    return [
        "## Training",
        _PAIRS,
        "",
        *_table(
            ("stage", "joint objective", "pairs seen", "steps of", "minutes", "device"),
            [
                (
                    str(number),
                    _OBJECTIVE[stage["config"]["objective"]] + _again(stage["config"]),
                    f"{stage['pairs']:,}",
                    f"{stage['config']['batch_size']}",
                    f"{stage['seconds'] / 60:.0f}",
                    f"{stage['config']['device'].upper()}, {stage['threads']} thread",
                )
                for number, stage in enumerate(stages, start=1)
            ],
        ),
        "",
        _RECONSTRUCTION % _share(training["config"]["lesson"]["p_bottleneck"]),
        "",
    ]


def _again(config: Mapping[str, Any]) -> str:
    return "; contrast of two looks at a spectrum" if config.get("again") else ""


def _redshifts(rows: Mapping[str, Mapping[str, float]], kind: str) -> list[str]:
    header = ("embedding", "n", "sigma_NMAD", "not centred", "bias", ">0.15", ">0.03", "R2", "range")
    return _table(
        header,
        [
            (
                name,
                f"{m[f'{kind}_n']:.0f}",
                _number(m[f"{kind}_sigma_nmad"], 4),
                _number(m[f"{kind}_sigma_nmad_uncentred"], 4),
                _number(m[f"{kind}_bias"], 4),
                _share(m[f"{kind}_outliers_15"]),
                _share(m[f"{kind}_outliers_03"]),
                _number(m[f"{kind}_r2"], 3),
                _number(m[f"{kind}_range_ratio"], 2),
            )
            for name, m in rows.items()
            if f"{kind}_n" in m
        ],
    )


def _tried(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    of_side = ("z gal", ">0.15", "z QSO", ">0.15", "class", "mass R2", "Teff R2")
    of_both = ("adjusted Rand", "in none", "median rank", "first", "among ten")
    header = ("objective, embedding", *of_side, *of_both)
    return _table(
        header,
        [
            (
                name,
                _number(m["galaxy_sigma_nmad"], 4),
                _share(m["galaxy_outliers_15"]),
                _number(m["qso_sigma_nmad"], 4),
                _share(m["qso_outliers_15"]),
                _share(m["class"]),
                _number(m["log_mass_r2"], 3),
                _number(m["teff_r2"], 3),
                _number(m.get("adjusted_rand_all"), 3),
                _share(m.get("unclustered")),
                _number(m.get("median_rank"), 0),
                _share(m.get("top_1")),
                _share(m.get("top_10")),
            )
            for name, m in rows.items()
        ],
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
