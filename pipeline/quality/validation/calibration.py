"""Calibration of redshift PDFs, class probabilities and novelty scores."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ojala.catalogs_schema.ojala import CLASSES, PDF_STEP, Z_QUANTILES
from ojala.catalogs_schema.redshift_pdfs import Z_CENTRES, Z_EDGES, RedshiftPdfs, bin_position
from ojala.models.evaluation.bootstrap import bootstrap_counts, bootstrap_objects
from ojala.models.evaluation.metrics import (
    CONFIDENCE_BINS,
    area_under_curve,
    calibration_error,
    cde_losses,
    confidence_bin,
    ks_distance,
    pit_and_crps,
    uniformity,
)
from ojala.pipeline.quality.validation.result import (
    ClassCalibration,
    Measure,
    Novelty,
    RedshiftCalibration,
    Reliability,
    finite,
    measure,
)
from ojala.pipeline.quality.validation.samples import code_of
from ojala.pipeline.quality.validation.truth import Matched

PIT_BINS = 20
"""Bins of the histogram of the PIT where the whole PDF is there."""

_PIT_FINE = 5  # bins of the distribution that the distance is measured on, per bin of the histogram


def class_calibration(matched: Matched) -> ClassCalibration | None:
    """Probability of the most probable class against how often it is true; None where none was given."""
    true = code_of(matched.words("true_class"), CLASSES)
    probability = np.stack([matched.numbers(f"p_{name.lower()}") for name in CLASSES], axis=1)
    given = (true >= 0) & np.isfinite(probability).all(axis=1)
    if not given.any():
        return None
    confidence = probability[given].max(axis=1)
    right = probability[given].argmax(axis=1) == true[given]
    error = bootstrap_objects(lambda p, r: {"ece": calibration_error(p, r)}, confidence, right)["ece"]
    cell, curve = confidence_bin(confidence), []
    for k in range(CONFIDENCE_BINS):
        if (members := cell == k).any():
            share = bootstrap_objects(lambda r: {"right": r.mean(axis=-1)}, right[members])["right"]
            curve.append(
                Reliability(
                    low=k / CONFIDENCE_BINS,
                    high=(k + 1) / CONFIDENCE_BINS,
                    n=int(members.sum()),
                    probability=float(confidence[members].mean()),
                    right=measure(share),
                )
            )
    return ClassCalibration(
        n=int(given.sum()), expected_calibration_error=measure(error), reliability=tuple(curve)
    )


def redshift_calibration(matched: Matched) -> tuple[RedshiftCalibration, ...]:
    """PIT, coverage and CRPS of the redshift PDFs of galaxies and quasars of right class.

    Without the PDFs themselves the PIT is known to lie between two of the catalogue's quantiles, and no
    closer.
    """
    true, predicted, z_true = matched.words("true_class"), matched.words("class"), matched.z_true
    quantiles = np.stack([matched.numbers(name) for name in Z_QUANTILES], axis=1)
    found = []
    kinds: tuple[Literal["GALAXY", "QSO"], ...] = ("GALAXY", "QSO")
    for objects in kinds:
        chosen = (true == objects) & (predicted == objects) & np.isfinite(z_true)
        chosen &= np.isfinite(quantiles).all(axis=1)
        if not chosen.any():
            continue
        between = (quantiles[chosen] < z_true[chosen, None]).sum(axis=1)
        inside = {
            "within_68": (between == 2) | (between == 3),
            "within_95": (between >= 1) & (between <= len(Z_QUANTILES) - 1),
        }
        coverage = bootstrap_objects(
            lambda one, two: {"within_68": one.mean(axis=-1), "within_95": two.mean(axis=-1)},
            *inside.values(),
        )
        pdf = None if matched.pdf is None else matched.pdf[objects].take(chosen)
        cvm = ad = score = loss = exact = None
        if pdf is not None and (pdf.count > 0).all():
            pit, crps, losses = pdf_measures(pdf, z_true[chosen])
            exact, cvm, ad = uniformity(pit)
            fine = np.histogram(pit.clip(0.0, 1.0), np.linspace(0.0, 1.0, PIT_BINS * _PIT_FINE + 1))[0]
            counts = fine.reshape(PIT_BINS, _PIT_FINE).sum(axis=1)
            edges, fine_edges = np.linspace(0.0, 1.0, PIT_BINS + 1), np.linspace(0.0, 1.0, len(fine) + 1)
            means = bootstrap_objects(
                lambda c, d: {"crps": c.mean(axis=-1), "loss": d.mean(axis=-1)}, crps * PDF_STEP, losses
            )
            score, loss = measure(means["crps"]), measure(means["loss"])
        else:
            counts = fine = np.bincount(between, minlength=len(Z_QUANTILES) + 1)
            edges = fine_edges = np.array([0.0, *(0.01 * p for p in Z_QUANTILES.values()), 1.0])
        distance = measure(bootstrap_counts(lambda n, at=fine_edges: {"ks": ks_distance(n, at)}, fine)["ks"])
        found.append(
            RedshiftCalibration(
                objects=objects,
                source="quantiles" if score is None else "z_pdf",
                n=int(chosen.sum()),
                pit_edges=tuple(edges.tolist()),
                pit_counts=tuple(counts.tolist()),
                ks_distance=distance if exact is None else Measure(value=exact, error=distance.error),
                pit_cvm=None if cvm is None else finite(cvm),
                pit_ad=None if ad is None else finite(ad),
                within_68=measure(coverage["within_68"]),
                within_95=measure(coverage["within_95"]),
                crps=score,
                cde_loss=loss,
            )
        )
    return tuple(found)


def pdf_measures(pdfs: RedshiftPdfs, z_true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PIT, CRPS [bins] and CDE loss of N redshift PDFs with true redshifts z_true, shape (N,) each."""
    parts = []
    for rows, density in pdfs.chunks():
        pit, crps = pit_and_crps(density * np.diff(Z_EDGES), bin_position(z_true[rows]))
        parts.append((pit, crps, cde_losses(density, Z_CENTRES, z_true[rows])))
    pit, crps, losses = (np.concatenate(column) for column in zip(*parts, strict=True))
    return pit, crps, losses


def novelty(matched: Matched) -> Novelty | None:
    """Whether left-out kinds of objects score higher; None without a score or without such objects."""
    if matched.left_out is None or "novelty" not in matched.rows.column_names:
        return None
    score = matched.numbers("novelty")
    known = np.isfinite(score)
    left_out = matched.left_out[known]
    if not left_out.any() or left_out.all():
        return None
    auc = bootstrap_objects(lambda s, p: {"auc": area_under_curve(s, p)}, score[known], left_out)["auc"]
    return Novelty(left_out=int(left_out.sum()), rest=int((~left_out).sum()), auc=measure(auc))
