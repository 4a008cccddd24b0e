"""Gates that look at one run: its rows, files and versions, and the shares of its rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.contract import NONE
from ojala.pipeline.runs.gate import Finding, RunEvidence, gate, sample, some_of
from ojala.pipeline.runs.record import Status
from ojala.pipeline.runs.totals import RunTotals
from ojala.pipeline.runs.zero_points import zero_points_of
from ojala.pipeline.storage.files import READERS, sha256_of

CONTRACT_SAMPLE = 64
"""Leaves that are read in full to check their contract again."""


@gate()
def partitions(run: RunEvidence) -> Finding:
    """All partitions of the input are there."""
    missing = sorted(run.rows.keys() - {receipt.partition for receipt in run.done})
    numbers = {"partitions": float(len(run.rows)), "missing": float(len(missing))}
    if not missing:
        return Finding(f"all {len(run.rows):,} partitions of the input are there", numbers=numbers)
    text = f"{len(missing):,} of {len(run.rows):,} partitions are missing: {some_of(missing)}"
    accepted = run.record.status == Status.PARTIAL
    return Finding(text, "warn" if accepted else "fail", numbers=numbers)


@gate()
def rows(run: RunEvidence) -> Finding:
    """Each partition has as many rows as the input, in every product."""
    wrong = [
        receipt.partition
        for receipt in run.done
        if not receipt.rows_in == receipt.rows_out == run.rows.get(receipt.partition)
        or [leaf.rows for leaf in receipt.leaves] != [receipt.rows_out] * len(run.record.products)
    ]
    count = sum(receipt.rows_out for receipt in run.done)
    expected = sum(run.rows.get(receipt.partition, 0) for receipt in run.done)
    text = f"{count:,} rows out of {expected:,}, partition by partition"
    if wrong:
        text = f"{len(wrong):,} partitions have another number of rows than the input: {some_of(wrong)}"
    numbers = {"rows_out": count, "rows_in": expected, "partitions_wrong": len(wrong)}
    return Finding(text, "fail" if wrong else "pass", numbers=numbers)


@gate()
def inputs(run: RunEvidence) -> Finding:
    """Each partition was made from the input that the catalogue holds now."""
    own, linked = list[str](), list[str]()
    for receipt in run.done:
        if receipt.ingredients.input_sha256 != run.inputs.get(receipt.partition):
            outside = run.record.region is not None and receipt.run_id != run.record.run_id
            (linked if outside else own).append(receipt.partition)
    numbers = {"partitions": len(run.done), "changed": len(own), "changed_outside_region": len(linked)}
    if own:
        text = f"the input of {len(own):,} partitions is not what they were made from: {some_of(own)}"
        return Finding(text, "fail", numbers=numbers)
    if linked:
        text = f"{len(linked):,} partitions outside of the region were made from an earlier input"
        return Finding(f"{text}: {some_of(linked)}", "warn", numbers=numbers)
    text = f"the input of all {len(run.done):,} partitions is what they were made from"
    return Finding(text, numbers=numbers)


@gate()
def checksums(run: RunEvidence) -> Finding:
    """Each leaf has the SHA-256 of its receipt."""
    leaves = [leaf for receipt in run.done for leaf in receipt.leaves]

    def is_right(path: str, sha256: str) -> bool:
        try:
            return sha256_of(run.run / path) == sha256
        except OSError:
            return False

    with ThreadPoolExecutor(READERS) as pool:
        right = pool.map(is_right, (leaf.path for leaf in leaves), (leaf.sha256 for leaf in leaves))
        wrong = [leaf.path for leaf, is_same in zip(leaves, right, strict=True) if not is_same]
    text = f"all {len(leaves):,} leaves were read and have the SHA-256 of their receipts"
    if wrong:
        text = f"{len(wrong):,} of {len(leaves):,} leaves differ from their receipts: {some_of(wrong)}"
    numbers = {"leaves": len(leaves), "different": len(wrong)}
    return Finding(text, "fail" if wrong else "pass", numbers=numbers)


@gate()
def contract(run: RunEvidence) -> Finding:
    """A sample of leaves keeps the contract of its product, all of them the same version."""
    leaves = [leaf for receipt in run.done for leaf in receipt.leaves]
    versions = {receipt.ingredients.contract_version for receipt in run.done}
    read, violations = sample(leaves, CONTRACT_SAMPLE), list[str]()
    for leaf in read:
        try:
            table = pq.ParquetFile(pa.BufferReader((run.run / leaf.path).read_bytes())).read()
        except (OSError, pa.ArrowException) as problem:
            violations.append(f"{leaf.path}: {problem}")
            continue
        violations += [f"{leaf.path}: {one}" for one in run.record.contract(leaf.product).violations(table)]
    numbers = {"leaves_read": len(read), "faults": len(violations), "versions": len(versions)}
    if violations:
        return Finding(f"the contract is broken: {some_of(violations)}", "fail", numbers=numbers)
    if len(versions) > 1:
        text = f"leaves keep {len(versions)} versions of the contract: {some_of(sorted(versions))}"
        return Finding(text, "warn", numbers=numbers)
    text = f"checked when each leaf was written, and again in {len(read)} leaves"
    return Finding(text, numbers=numbers)


@gate()
def mixed_versions(run: RunEvidence) -> Finding:
    """All partitions were made with the same weights, configuration, code and contract."""
    mixed = run.record.mixed_versions
    if not mixed:
        return Finding("one set of weights, one configuration, one code")
    counts = [f"{len(values)} of {name.removesuffix('_sha256')}" for name, values in mixed.items()]
    numbers = {name: float(len(values)) for name, values in mixed.items()}
    text = f"partitions were made with different versions: {', '.join(counts)}"
    return Finding(text, "warn", numbers=numbers)


@gate("share of rows without a class", warn=0.05, fail=0.5, former="unanswered")
def unclassified(run: RunEvidence) -> Finding:
    """Rows have a class."""
    return _share(run.totals, run.totals.classes[NONE], "have no class")


@gate("share of rows with any flag", warn=0.7, fail=0.98, former="flagged")
def flags(run: RunEvidence) -> Finding:
    """Rows have no flag."""
    return _share(run.totals, run.totals.flagged, "carry a flag")


def _share(totals: RunTotals, count: int, text: str) -> Finding:
    rows = totals.rows_summarised
    share = count / max(rows, 1)
    text = f"{share:.1%} of {rows:,} rows {text}"
    return Finding(text, "pass", share, rows, {"share": share, "rows": rows})


@gate("offset of a tile's band from the median of its band, beyond chance", warn=0.002, fail=0.5)
def zero_points(run: RunEvidence) -> Finding:
    """Each band has the same zero point in all tiles of the survey, by its prediction from other bands."""
    found = zero_points_of(run.done)
    if found is None or len(found.tiles) < 2:
        return Finding("bands were not asked for, or not of enough objects in two tiles of the survey")
    tile, band = found.farthest
    off, sigma, count = (array[tile, band] for array in (found.deviation, found.sigma, found.n))
    text = (
        f"{MODEL_BANDS[band].name} of tile {found.tiles[tile]}: {off:+.1%} from the median of the band "
        f"({sigma:+.1f} sigma); {found.beyond_chance.sum():,} bands of tiles are off beyond chance"
    )
    numbers = {
        "offset": float(off),
        "sigma": float(sigma),
        "beyond_chance": float(found.beyond_chance.sum()),
        "bands_of_tiles": float(np.isfinite(found.sigma).sum()),
    }
    return Finding(text, "pass", float(np.nanmax(found.excess)), int(count), numbers)
