"""Measures as tables of text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ojala.pipeline.quality.validation.result import (
    Classification,
    Expected,
    ExpectedCell,
    Interval,
    Measure,
    RedshiftScores,
    Scores,
    Validation,
)

_CALIBRATION = ("within 68 [%]", "within 95 [%]", "CRPS")
_EXPECTED = (
    "rows",
    "complete [%]",
    "sigma_NMAD",
    ">0.15 [%]",
    ">0.03 [%]",
    ">IQR [%]",
    "with truth",
    "predicted",
    "achieved sigma_NMAD",
    "predicted",
    "achieved >0.15 [%]",
)
_REDSHIFT = (
    "n",
    "none",
    "sigma_NMAD",
    "uncentred",
    "sigma68",
    "sigma_IQR",
    "bias",
    ">0.15 [%]",
    ">0.03 [%]",
    ">IQR [%]",
    "R2",
    "range",
)


def tables(found: Validation) -> str:
    """Results of a validation as text: classes, redshifts, quantities, diagrams and calibration."""
    lines = [
        f"{found.matched:,} objects are in both {found.truth} and {found.catalogue}",
        f"of the truth {found.truth_without_catalogue:,} are not in the catalogue; of the catalogue's "
        f"{found.catalogue_rows:,} rows the truth of {found.catalogue_without_truth:,} is not known",
        f"errors: half the central 68 % range over {found.resamples} bootstrap resamples of the objects",
    ]
    if found.ignored:
        lines.append(f"columns of the truth that were not used: {', '.join(found.ignored)}")
    for name, scores in (*found.samples.items(), ("", found.all)):
        title = name or ("all samples together" if found.samples else "all")
        lines += ["", f"== {title}: {scores.n:,} objects", *_sections(scores)]
    for one in found.expected:
        lines += ["", *_expected(one)]
    return "\n".join(lines)


def _expected(one: Expected) -> Iterator[str]:
    source = {
        "pdf": "from the redshift PDFs",
        "z_err": "from Gaussians of width z_err, as there are no redshift PDFs: second modes are missing",
    }[one.source]
    yield f"== redshift accuracy to expect of all {one.rows:,} rows of class {one.objects}, {source}"
    rows = [("z_odds", *_EXPECTED), *((f">= {c.odds_min:g}", *_expected_cells(c)) for c in one.by_odds)]
    yield from ("", *table(rows))
    rows = [("i", *_EXPECTED), *((between(c.magnitude), *_expected_cells(c)) for c in one.by_magnitude)]
    yield from ("", *table(rows))


def _expected_cells(c: ExpectedCell) -> tuple[str, ...]:
    p, k, a = c.predicted, c.predicted_of_known, c.achieved
    shares = (_value(v, 1, 100.0) for v in (p.outliers_15, p.outliers_03, p.outliers_iqr))
    cells = [f"{c.rows:,}", f"{100 * c.completeness:.1f}", _value(p.sigma_nmad, 4), *shares, f"{c.known:,}"]
    if a is None:
        return (*cells, *"----")
    sigma = (_value(k.sigma_nmad, 4), number(a.sigma_nmad, 4))
    return (*cells, *sigma, _value(k.outliers_15, 1, 100.0), number(a.outliers_15, 1, 100.0))


def _value(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"


def _sections(scores: Scores) -> Iterator[str]:
    if scores.classification.n:
        yield from ("", "Classes")
        yield from table(_class_rows(scores.classification))
        yield from table(_confusion_rows(scores.classification))
        yield from table(_class_bin_rows(scores))
    for sample in scores.redshifts:
        chosen = "" if sample.selection == "all" else f", {sample.selection}"
        yield from ("", f"Redshifts: {sample.objects} by {sample.given}, column {sample.column}{chosen}")
        rows: list[tuple[str, ...]] = [("", *_REDSHIFT), ("all", *_redshift_cells(sample.scores))]
        if sample.selection == "all":
            bins = [("i", b) for b in (*sample.by_magnitude, *sample.brighter_than)]
            bins += [("z", b) for b in sample.by_redshift]
            rows += [(f"{name} {between(b.interval)}", *_redshift_cells(b.scores)) for name, b in bins]
        yield from table(rows)
    if scores.labels:
        yield from ("", "Other quantities")
        yield from table(_label_rows(scores))
    for diagram in scores.diagrams:
        yield from ("", f"{diagram.name}, {diagram.selection}: {diagram.scores.n:,} galaxies")
        yield from table(_class_rows(diagram.scores))
    yield from _calibration(scores)


def _class_rows(found: Classification) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("class", "n", "predicted", "completeness", "purity", "F1")]
    for name, c in found.classes.items():
        cells = (number(m, 3) for m in (c.completeness, c.purity, c.f1))
        rows.append((name, f"{c.n:,}", f"{c.predicted:,}", *cells))
    rows.append(("weighted", f"{found.n:,}", "", "", "", number(found.f1_weighted, 3)))
    return rows


def _confusion_rows(found: Classification) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("true \\ prediction", *found.predictions)]
    pairs = zip(found.classes, found.confusion, strict=True)
    return rows + [(name, *(f"{count:,}" for count in counts)) for name, counts in pairs]


def _class_bin_rows(scores: Scores) -> list[tuple[str, ...]]:
    rows = [("iSDSS", "n", "weighted F1", *(f"F1 {name}" for name in scores.classification.classes))]
    for found in (*scores.classes_by_magnitude, *scores.classes_brighter_than):
        by_class = (number(c.f1, 3) for c in found.scores.classes.values())
        weighted = number(found.scores.f1_weighted, 3)
        rows.append((between(found.interval), f"{found.scores.n:,}", weighted, *by_class))
    return rows


def _redshift_cells(s: RedshiftScores) -> tuple[str, ...]:
    fractions = (number(m, 1, 100.0) for m in (s.outliers_15, s.outliers_03, s.outliers_iqr))
    widths = (number(m, 4) for m in (s.sigma_nmad, s.sigma_nmad_uncentred, s.sigma68, s.sigma_iqr, s.bias))
    return (
        f"{s.n:,}",
        f"{s.missing:,}",
        *widths,
        *fractions,
        number(s.r2, 2),
        number(s.range_ratio, 2),
    )


def _label_rows(scores: Scores) -> list[tuple[str, ...]]:
    header = ("quantity", "objects", "n", "none", "bias", "NMAD", "std", "R2", "range", "within error [%]")
    rows: list[tuple[str, ...]] = [header]
    for s in scores.labels:
        widths = (number(m, 1 if s.unit == "K" else 3) for m in (s.bias, s.nmad, s.std))
        shares = (number(s.r2, 2), number(s.range_ratio, 2), number(s.within_error, 1, 100.0))
        rows.append((s.name, s.selection or "all", f"{s.n:,}", f"{s.missing:,}", *widths, *shares))
    return rows


def _calibration(scores: Scores) -> Iterator[str]:
    if (found := scores.class_calibration) is not None:
        yield from (
            "",
            f"Expected calibration error of classes: {number(found.expected_calibration_error, 4)}",
        )
        yield from table(
            [
                ("probability", "n", "mean probability", "right"),
                *(
                    (f"{r.low:.1f} to {r.high:.1f}", f"{r.n:,}", f"{r.probability:.3f}", number(r.right, 3))
                    for r in found.reliability
                ),
            ]
        )
    if scores.redshift_calibration:
        yield from ("", "Redshift PDFs (expected: within 68.3 and 95.4 %)")
        yield from table(
            [
                (
                    "objects",
                    "n",
                    "PIT from",
                    "KS",
                    "CvM",
                    "AD",
                    "CDE loss",
                    "within 68 [%]",
                    "within 95 [%]",
                    "CRPS",
                ),
                *(
                    (
                        c.objects,
                        f"{c.n:,}",
                        c.source,
                        number(c.ks_distance, 3),
                        "-" if c.pit_cvm is None else f"{c.pit_cvm:.2f}",
                        "-" if c.pit_ad is None else f"{c.pit_ad:.2f}",
                        number(c.cde_loss, 2) if c.cde_loss else "-",
                        number(c.within_68, 1, 100.0),
                        number(c.within_95, 1, 100.0),
                        number(c.crps, 4) if c.crps else "-",
                    )
                    for c in scores.redshift_calibration
                ),
            ]
        )
    if (novel := scores.novelty) is not None:
        yield from (
            "",
            f"Novelty: area under the curve {number(novel.auc, 3)} ({novel.left_out:,} left out of training, "
            f"{novel.rest:,} others)",
        )


def number(measure: Measure, digits: int, factor: float = 1.0) -> str:
    """A measure with its error, as text."""
    if measure.value is None:
        return "-"
    text = f"{factor * measure.value:.{digits}f}"
    return text if measure.error is None else f"{text}±{factor * measure.error:.{digits}f}"


def between(interval: Interval) -> str:
    """An interval as text."""
    if interval.low is None:
        return f"< {interval.high:g}" if interval.high is not None else "all"
    return f">= {interval.low:g}" if interval.high is None else f"{interval.low:g}-{interval.high:g}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of aligned text, the first column to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
