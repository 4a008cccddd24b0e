"""Report page of a run: results, inputs, quality and cost in one file that needs no network."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from upath import UPath

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.quality.validation.expected import COLUMNS, expected_redshifts
from ojala.pipeline.quality.validation.predictions import pdf_product, pdfs_for, predictions_for
from ojala.pipeline.quality.validation.result import Expected
from ojala.pipeline.quality.validation.scores import validate
from ojala.pipeline.quality.validation.truth import Matched, match_truth, read_truth
from ojala.pipeline.report.atlas.page import atlas_section
from ojala.pipeline.report.difference import difference_section
from ojala.pipeline.report.expected import PARTITIONS_READ, expected_section
from ojala.pipeline.report.figures import (
    band_drawing,
    class_drawing,
    rate_drawing,
    redshift_drawing,
    stage_drawing,
)
from ojala.pipeline.report.render import render
from ojala.pipeline.report.skymap import sky_drawing
from ojala.pipeline.report.spectra_section import reconstruction_section, survey_section
from ojala.pipeline.report.truth_section import objects_csv, truth_section
from ojala.pipeline.report.zero_points import zero_points_csv, zero_points_numbers, zero_points_section
from ojala.pipeline.runs.diff import read_difference
from ojala.pipeline.runs.gates import GateReport
from ojala.pipeline.runs.record import RunRecord
from ojala.pipeline.runs.report_state import BEGIN, END, NOT_PUBLISHED
from ojala.pipeline.runs.resolved import ResolvedRun
from ojala.pipeline.runs.totals import RunTotals, finite, run_numbers, seconds_between, totals_of
from ojala.pipeline.runs.zero_points import zero_points_of
from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.hats import read_counts, read_leaves
from ojala.pipeline.storage.healpix import Partition

ROWS_SHOWN = 50
"""Failed partitions and workers that the page lists."""

SLOWEST = 5
"""Slowest partitions that the page lists."""


def write_report(
    run: ResolvedRun, record: RunRecord, receipts: Sequence[Receipt], gates: GateReport | None
) -> None:
    """Write the report of a run.

    The page is ``report/index.html`` in the run's folder. ``quality.json`` has the same numbers, and
    ``objects.csv``, where the run has a truth file, predictions and true values of each object;
    ``zero_points.csv``, where bands were predicted, measured against predicted bands of each tile.

    Parameters
    ----------
    run : ResolvedRun
        Resolved configuration of the run.
    record : RunRecord
        Its record.
    receipts : sequence of Receipt
        One per partition, failed ones too.
    gates : GateReport or None
        Results of the quality gates; None if they could not be evaluated.

    Raises
    ------
    TruthError
        If the truth file is malformed.
    """
    truth = read_truth(UPath(run.config.truth)) if run.config.truth else None
    totals = totals_of(receipts)
    done = [p for p, is_done in zip(totals.partitions, totals.done, strict=True) if is_done]
    folder = run.folder(record.run_id)
    missing = len(read_leaves(run.source).keys() - set(totals.partitions))
    wall = seconds_between(record.started, record.ended or record.started)
    numbers = run_numbers(totals, missing, wall, record.run_id)

    shown = _run_context(totals, run, record, numbers)
    shown["state"] = {"gates": _verdict(gates), "begin": BEGIN, "text": NOT_PUBLISHED, "end": END}
    shown["drawings"] = {
        "sky": sky_drawing(totals, read_counts(run.source)) if totals.partitions else None,
        "classes": class_drawing(totals),
        "redshifts": redshift_drawing(totals),
        "bands": band_drawing(totals),
        "stages": stage_drawing(totals),
        "rates": rate_drawing(totals),
    }
    shown["truth"] = matched = None
    pdfs = _pdfs_of(run, folder)
    if truth:
        rows = int(totals.rows_out[totals.done].sum())
        names = record.adapter.main.column_names
        predictions = predictions_for(truth, folder / record.main, run.source, done, names)
        pdf = pdfs_for(predictions, pdfs, done) if pdfs else None
        matched = match_truth(truth, predictions, rows, pdf)
        validation = validate(truth, matched, str(folder / record.main))
        numbers["truth"] = validation.model_dump(mode="json")
        shown["truth"] = truth_section(matched, validation)
        shown["sections"].append(("truth", "Comparison with true values"))
        write_whole(folder / "report" / "objects.csv", objects_csv(matched))
    shown["extra"] = []
    if expected := _expected(run, folder, done, pdfs, matched):
        numbers["expected"] = [one.model_dump(mode="json") for one in expected]
        shown["extra"].append({"template": "expected.html.j2", "context": expected_section(expected)})
        shown["sections"].append(("expected", "Redshift accuracy to expect"))
    if (points := zero_points_of([receipt for receipt in receipts if receipt.status == "done"])) is not None:
        numbers["zero_points"] = zero_points_numbers(points)
        shown["extra"].append({"template": "zero_points.html.j2", "context": zero_points_section(points)})
        shown["sections"].append(("zero-points", "Zero points"))
        write_whole(folder / "report" / "zero_points.csv", zero_points_csv(points))
    if (difference := read_difference(folder)) is not None:
        numbers["difference"] = difference.model_dump(mode="json")
        shown["extra"].append({"template": "difference.html.j2", "context": difference_section(difference)})
        shown["sections"].append(("difference", "Change since the release"))
    for name in run.adapter.report_sections if done else ():
        section = SECTIONS[name]
        context, section_numbers = section.build(run, record.run_id, done)
        if context is None:
            continue
        numbers |= {name: section_numbers} if section_numbers else {}
        shown["extra"].append({"template": section.template, "context": context})
        shown["sections"].append((name, section.title))
    shown["sections"] += [("gates", "Quality gates")] if gates else []
    shown["sections"].append(("provenance", "Provenance"))
    numbers = {"run_id": record.run_id, "product": record.main, **numbers}
    text = json.dumps(finite(numbers), indent=1, allow_nan=False)
    write_whole(folder / "report" / "quality.json", text.encode())
    shown |= {"gates": gates, "record": record, "reads": run.adapter.reads.name, "folder": str(folder)}
    write_whole(folder / "report" / "index.html", render("template.html.j2", shown).encode())


def _pdfs_of(run: ResolvedRun, folder: UPath) -> UPath | None:
    """Root of the product with redshift PDFs; None where the run has none."""
    product = pdf_product(run.adapter)
    return folder / product.name if product and product.name in run.products else None


def _expected(
    run: ResolvedRun,
    folder: UPath,
    done: Sequence[Partition],
    pdfs: UPath | None,
    matched: Matched | None,
) -> tuple[Expected, ...]:
    """Accuracy to expect of the redshifts; none of a model without their columns."""
    contract = run.contracts[0]
    if (
        run.adapter.validation is None
        or not {contract.name_of(name) for name in COLUMNS} <= set(contract.names)
        or not done
    ):
        return ()
    place = np.unique(np.linspace(0, len(done) - 1, PARTITIONS_READ).astype(int))
    main, names = folder / contract.name, contract.column_names
    some = [done[i] for i in place]
    return expected_redshifts(main, pdfs, run.source, some, matched, total=len(done), names=names)


@dataclass(frozen=True, slots=True)
class Section:
    """Section of the page that only some models have.

    Attributes
    ----------
    title : str
        Heading.
    template : str
        Template in this package; the section is its ``section``.
    build : callable
        Function from run, its name and its partitions to context of the template, None to leave the section
        out, and numbers for ``quality.json``.
    """

    title: str
    template: str
    build: Callable[[ResolvedRun, str, Sequence[Partition]], tuple[dict[str, Any] | None, dict[str, Any]]]


SECTIONS = {
    "spectra": Section("Comparison with the surveys", "spectra.html.j2", survey_section),
    "reconstructions": Section("Reconstructed spectra", "reconstructions.html.j2", reconstruction_section),
    "atlas": Section("Atlas", "atlas_section.html.j2", atlas_section),
}
"""Sections by the name in `ModelAdapter.report_sections`."""


def _run_context(
    totals: RunTotals, run: ResolvedRun, record: RunRecord, numbers: dict[str, Any]
) -> dict[str, Any]:
    rows = max(totals.rows_summarised, 1)
    slowest = np.argsort(-totals.seconds, kind="stable")[:SLOWEST]
    meanings = {flag.name: text for flag, text in run.contracts[0].flag_meanings.items()}
    config, adapter = run.config, run.adapter
    workers = f"{config.workers} worker{'s' if config.workers != 1 else ''}"
    inputs = [(adapter.reads.name, run.source)]
    inputs += [(adapter.auxiliary.name, run.auxiliary)] if adapter.auxiliary and run.auxiliary else []
    sections = [
        ("where", "Where"),
        ("rows", "Rows and classes"),
        *([("observed", "What was observed")] if totals.bands is not None else []),
        ("cost", "Time and memory"),
    ]
    return {
        "when": f"{_time(record.started)} to {_time(record.ended or record.started)}",
        "banners": _banners(totals, numbers),
        "cards": _cards(totals, run, numbers),
        "sections": sections,
        "failures": totals.failures[:ROWS_SHOWN],
        "failures_total": len(totals.failures),
        "flagged": totals.flagged,
        "class_rows": [
            {
                "name": "no class" if n == NONE else n,
                "rows": c,
                "share": c / rows,
                "expected": totals.expected.get(n),
            }
            for n, c in totals.classes.items()
        ],
        "flag_rows": [
            {"name": name, "rows": count, "share": count / rows, "meaning": meanings.get(name, "")}
            for name, count in totals.flags.items()
        ],
        "stages": list(totals.stages),
        "slowest": [_slow(totals, int(i)) for i in slowest],
        "workers": totals.workers[:ROWS_SHOWN],
        "workers_total": len(totals.workers),
        "provenance": [
            ("Run", record.run_id),
            ("Product", f"{record.main}, contract {run.contracts[0].version}"),
            *((name.capitalize(), str(root)) for name, root in inputs),
            ("Model", record.model),
            ("Weights, SHA-256", record.weights_sha256 or "none"),
            *((f"{role.capitalize()}, SHA-256", sha256) for role, sha256 in record.assets.items()),
            ("Code", record.code_version),
            ("Engine", f"{config.engine}, {workers}, {config.device}"),
            ("Partitions", _origin(record) or "all made by this run"),
            ("Started, ended", f"{_time(record.started)}, {_time(record.ended or record.started)}"),
        ],
    }


def _origin(record: RunRecord) -> str:
    origin = ""
    if record.region is not None:
        origin = f"region {record.region} of run {record.base} reprocessed; "
    if record.linked:
        origin += f"{record.linked:,} of {record.partitions:,} partitions linked as earlier runs made them"
    return origin


def _banners(totals: RunTotals, numbers: dict[str, Any]) -> list[dict[str, str]]:
    banners = []
    if totals.failures:
        names = [name for name, _ in totals.failures]
        banners.append(
            {
                "title": f"Failed: {len(names):,} of {len(totals.partitions):,} partitions. The "
                "catalogue is incomplete.",
                "text": f"{_some(names)}. Errors are listed below; the same command retries only these.",
            }
        )
    if totals.unequal:
        banners.append(
            {
                "title": "Rows out differ from rows in.",
                "text": f"The input has another number of rows: {_some(totals.unequal)}.",
            }
        )
    if missing := numbers["partitions"]["without_receipt"]:
        banners.append(
            {
                "title": f"No receipt in this run: {missing:,} partitions of the input.",
                "text": "They were not processed, or their worker was lost before it could write one.",
            }
        )
    return banners


def _verdict(gates: GateReport | None) -> dict[str, str]:
    """Outcome of the quality gates in a sentence."""
    if gates is None:
        return {"state": "bad", "text": "Quality gates: not evaluated."}
    named = {outcome: [g.name for g in gates.gates if g.outcome == outcome] for outcome in ("fail", "warn")}
    if named["fail"]:
        text = f"Quality gates: {_some(named['fail'])} failed; the run is not published by itself."
        return {"state": "bad", "text": text}
    warned = f"; {_some(named['warn'])} with a warning" if named["warn"] else ""
    return {"state": "good", "text": f"Quality gates: none of {len(gates.gates)} failed{warned}."}


def _cards(totals: RunTotals, run: ResolvedRun, numbers: dict[str, Any]) -> list[dict[str, str]]:
    rows, partitions = numbers["rows"], numbers["partitions"]
    flagged, rate = rows["flagged"], numbers["rows_per_second"]
    wall, busy = numbers["seconds"]["wall"], numbers["seconds"]["at_work"]
    share = f"{flagged / rows['out']:.1%} of the rows" if rows["out"] else "no rows"
    return [
        _card("Rows in", f"{rows['in']:,}", run.adapter.reads.name),
        _card(
            "Rows out",
            f"{rows['out']:,}",
            "equal" if rows["equal"] else "not equal",
            "good" if rows["equal"] else "bad",
        ),
        _card("Partitions done", f"{partitions['done']:,}", f"of {len(totals.partitions):,}"),
        _card(
            "Partitions failed",
            f"{partitions['failed']:,}",
            "named below" if partitions["failed"] else "none",
            "bad" if partitions["failed"] else "good",
        ),
        _card("Rows flagged", f"{flagged:,}", share),
        _card("Rows computed", f"{rows['computed']:,}", f"{rows['linked']:,} linked from earlier runs"),
        _card("Wall time", _duration(wall), "first start to end"),
        _card(
            "Rows per second",
            "–" if rate is None else f"{rate:,.0f}",
            f"computed rows, engine {run.config.engine}, {run.config.device}",
        ),
        _card("Worker time", _duration(busy), "summed over partitions of this run"),
    ]


def _card(label: str, value: str, note: str, state: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "note": note, "state": state}


def _slow(totals: RunTotals, i: int) -> dict[str, Any]:
    attempts = totals.receipts[i].attempts
    seconds = float(totals.seconds[i])
    return {
        "name": totals.partitions[i].name + ("" if totals.done[i] else " (failed)"),
        "rows": int(totals.rows_out[i]),
        "seconds": seconds,
        "rate": totals.rows_out[i] / seconds if seconds else None,
        "stages": [float(values[i]) for values in totals.stages.values()],
        "host": attempts[-1].host if attempts else "",
    }


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {left:02d} s"


def _time(text: str) -> str:
    return dt.datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S %Z").strip()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 12:,} more" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more
