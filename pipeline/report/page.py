"""The page: what a run made, from what, how well and at what cost, in one file that needs no network."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from upath import UPath

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.quality.gates import GateReport
from ojala.pipeline.quality.validation.predictions import answers_for
from ojala.pipeline.quality.validation.scores import validate
from ojala.pipeline.quality.validation.truth import match_truth, read_truth
from ojala.pipeline.report.atlas.page import write_atlas_page
from ojala.pipeline.report.figures import (
    band_drawing,
    class_drawing,
    rate_drawing,
    redshift_drawing,
    stage_drawing,
)
from ojala.pipeline.report.render import render
from ojala.pipeline.report.skymap import sky_drawing
from ojala.pipeline.report.spectra_section import spectra_section
from ojala.pipeline.report.totals import RunTotals, account_of, finite, run_numbers, seconds_between
from ojala.pipeline.report.truth_section import objects_csv, truth_section
from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.hats import read_counts, read_leaves

ROWS_SHOWN = 50
"""Failed partitions and workers that the page lists."""

SLOWEST = 5
"""Slowest partitions that the page lists."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run was asked to do and with what it did it.

    Attributes
    ----------
    run_id, product : str
        Name of the run and of its main product.
    source, reads : str
        Where the catalogue is that was read, and what it is: photometry or spectra.
    started, ended : str
        First start and end, ISO 8601.
    engine, workers, device : str, int, str
        Where partitions were worked on.
    model, weights_sha256 : str
        Name and version of the model, hash of its weights.
    code_version, contract_version : str
        Versions of the code and of the product's contract.
    versions, config : dict of str to str
        Versions of packages, resolved configuration.
    beside, atlas_sha256 : str
        Where the second catalogue is that was read, and hash of the atlas; empty if there is none.
    origin : str
        What was reprocessed, and how much was linked from earlier runs; empty if all was made by this run.
    """

    run_id: str
    product: str
    source: str
    reads: str
    started: str
    ended: str
    engine: str
    workers: int
    device: str
    model: str
    weights_sha256: str
    code_version: str
    contract_version: str
    versions: dict[str, str]
    config: dict[str, str]
    beside: str = ""
    atlas_sha256: str = ""
    origin: str = ""


def write_report(
    run: UPath,
    source: UPath,
    receipts: Sequence[Receipt],
    facts: RunFacts,
    truth: UPath | None,
    gates: GateReport | None = None,
) -> UPath:
    """Write the report of a run.

    Parameters
    ----------
    run : UPath
        Folder of the run, which holds the product's leaves.
    source : UPath
        Root of the catalogue that was read.
    receipts : sequence of Receipt
        One per partition, failed ones too.
    facts : RunFacts
        What is not in the receipts.
    truth : UPath or None
        A file of known objects, see `read_truth`.
    gates : GateReport, optional
        The quality gates, as they were found.

    Returns
    -------
    UPath
        ``report/index.html`` in the run's folder. ``quality.json`` beside it has the same numbers, and
        ``objects.csv``, where a truth was given, answer and truth of each object.

    Raises
    ------
    TruthError
        If the truth file is malformed.
    """
    known = read_truth(truth) if truth else None
    account = account_of(receipts)
    done = [p for p, whole in zip(account.partitions, account.done, strict=True) if whole]
    catalogue, folder = run / facts.product, run / "report"
    missing = len(read_leaves(source).keys() - set(account.partitions))
    wall = seconds_between(facts.started, facts.ended)
    numbers = run_numbers(account, missing, wall)

    drawings = {
        "sky": sky_drawing(account, read_counts(source)) if account.partitions else None,
        "classes": class_drawing(account),
        "redshifts": redshift_drawing(account),
        "bands": band_drawing(account),
        "stages": stage_drawing(account),
        "rates": rate_drawing(account),
    }
    shown = _run_context(account, facts, numbers)
    if known:
        rows = int(account.rows_out[account.done].sum())
        matched = match_truth(known, answers_for(known, catalogue, source, done), rows)
        found = validate(known, matched, str(catalogue))
        numbers["truth"] = found.model_dump(mode="json")
        shown["truth"] = truth_section(matched, found)
        shown["sections"].append(("truth", "Where the truth is known"))
        write_whole(folder / "objects.csv", objects_csv(matched))
    adapter = ADAPTERS.of_product(facts.product)
    if "spectra" in adapter.report_sections:
        made = [contract for contract in adapter.products(extended=True) if (run / contract.name).exists()]
        shown["spectra"], numbers["spectra"] = spectra_section(run, source, done, made)
        shown["sections"].append(("spectra", "Beside the surveys' own answers"))
    if "atlas" in adapter.report_sections:
        beside = UPath(facts.beside) if facts.beside else None
        shown["atlas"] = write_atlas_page(folder, facts.run_id, run, source, beside, done)
        numbers["atlas"] = {name: shown["atlas"][name] for name in ("rows", "clusters", "unclustered")}
        shown["sections"].append(("atlas", "The atlas"))
    if gates:
        shown["sections"].append(("gates", "Quality gates"))
    shown["sections"].append(("provenance", "Provenance"))
    numbers = {"run_id": facts.run_id, "product": facts.product, **numbers}
    write_whole(folder / "quality.json", json.dumps(finite(numbers), indent=1, allow_nan=False).encode())
    page = folder / "index.html"
    context = {"truth": None, "spectra": None, "atlas": None, "gates": gates, **shown}
    context |= {"drawings": drawings, "facts": facts, "verify": str(run)}
    write_whole(page, render("template.html.j2", context).encode())
    return page


def _run_context(account: RunTotals, facts: RunFacts, numbers: dict[str, Any]) -> dict[str, Any]:
    rows = max(account.rows_summarised, 1)
    slowest = np.argsort(-account.seconds, kind="stable")[:SLOWEST]
    meanings = {flag.name: text for flag, text in ADAPTERS.of_product(facts.product).main.remarks.items()}
    sections = [
        ("where", "Where"),
        ("rows", "Rows and classes"),
        *([("observed", "What was observed")] if account.bands is not None else []),
        ("cost", "What it took"),
    ]
    return {
        "when": f"{_time(facts.started)} to {_time(facts.ended)}",
        "banners": _banners(account, numbers),
        "cards": _cards(account, facts, numbers),
        "sections": sections,
        "failures": account.failures[:ROWS_SHOWN],
        "failures_total": len(account.failures),
        "flagged": account.flagged,
        "class_rows": [
            {
                "name": "no class" if n == NONE else n,
                "rows": c,
                "share": c / rows,
                "expected": account.expected.get(n),
            }
            for n, c in account.classes.items()
        ],
        "flag_rows": [
            {"name": name, "rows": count, "share": count / rows, "meaning": meanings.get(name, "")}
            for name, count in account.flags.items()
        ],
        "stages": list(account.stages),
        "slowest": [_slow(account, int(i)) for i in slowest],
        "workers": account.workers[:ROWS_SHOWN],
        "workers_total": len(account.workers),
        "provenance": [
            ("Run", facts.run_id),
            ("Product", f"{facts.product}, contract {facts.contract_version}"),
            (facts.reads.capitalize(), facts.source),
            *([("Cut-outs", facts.beside)] if facts.beside else []),
            ("Model", facts.model),
            ("Weights, SHA-256", facts.weights_sha256 or "none"),
            *([("Atlas, SHA-256", facts.atlas_sha256)] if facts.atlas_sha256 else []),
            ("Code", facts.code_version),
            (
                "Engine",
                f"{facts.engine}, {facts.workers} worker{'s' if facts.workers != 1 else ''}, {facts.device}",
            ),
            ("Partitions", facts.origin or "all made by this run"),
            ("Started, ended", f"{_time(facts.started)}, {_time(facts.ended)}"),
        ],
    }


def _banners(account: RunTotals, numbers: dict[str, Any]) -> list[dict[str, str]]:
    found = []
    if account.failures:
        names = [name for name, _ in account.failures]
        found.append(
            {
                "title": f"Failed: {len(names):,} of {len(account.partitions):,} partitions. The "
                "catalogue is incomplete.",
                "text": f"{_some(names)}. Their errors stand below; the same command again does them alone.",
            }
        )
    if account.unequal:
        found.append(
            {
                "title": "Rows out differ from rows in.",
                "text": f"The catalogue that was read has another number of rows: {_some(account.unequal)}.",
            }
        )
    if missing := numbers["partitions"]["without_receipt"]:
        found.append(
            {
                "title": f"No receipt in this run: {missing:,} of the partitions that were to be read.",
                "text": "They were not worked on, or their worker was lost before it could say so.",
            }
        )
    return found


def _cards(account: RunTotals, facts: RunFacts, numbers: dict[str, Any]) -> list[dict[str, str]]:
    rows, partitions = numbers["rows"], numbers["partitions"]
    flagged, rate = rows["flagged"], numbers["rows_per_second"]
    wall, busy = numbers["seconds"]["wall"], numbers["seconds"]["at_work"]
    share = f"{flagged / rows['out']:.1%} of the rows" if rows["out"] else "no rows"
    return [
        _card("Rows in", f"{rows['in']:,}", facts.reads),
        _card(
            "Rows out",
            f"{rows['out']:,}",
            "equal" if rows["equal"] else "not equal",
            "good" if rows["equal"] else "bad",
        ),
        _card("Partitions done", f"{partitions['done']:,}", f"of {len(account.partitions):,}"),
        _card(
            "Partitions failed",
            f"{partitions['failed']:,}",
            "named below" if partitions["failed"] else "none",
            "bad" if partitions["failed"] else "good",
        ),
        _card("Rows flagged", f"{flagged:,}", share),
        _card("Wall time", _duration(wall), "first start to end"),
        _card(
            "Rows per second",
            "–" if rate is None else f"{rate:,.0f}",
            f"engine {facts.engine}, {facts.device}",
        ),
        _card("Time at work", _duration(busy), "summed over partitions"),
    ]


def _card(label: str, value: str, note: str, state: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "note": note, "state": state}


def _slow(account: RunTotals, i: int) -> dict[str, Any]:
    attempts = account.receipts[i].attempts
    seconds = float(account.seconds[i])
    return {
        "name": account.partitions[i].name + ("" if account.done[i] else " (failed)"),
        "rows": int(account.rows_out[i]),
        "seconds": seconds,
        "rate": account.rows_out[i] / seconds if seconds else None,
        "stages": [float(values[i]) for values in account.stages.values()],
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
