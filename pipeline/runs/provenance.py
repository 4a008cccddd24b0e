"""Provenance of a run: a table of partitions, PROV-JSON and checksums.

The terms are those of the IVOA Provenance Data Model (Activity, Entity, Agent and their relations).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from prov.model import ProvDocument, ProvEntity
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.runs.record import RECORD, RunRecord
from ojala.pipeline.runs.resolved import ResolvedRun
from ojala.pipeline.runs.supplemental import supplemental_sums
from ojala.pipeline.storage.files import hash_files, list_files, write_whole
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.progress import RUN_LOG

PARTITIONS = "provenance/partitions.parquet"
PROV = "provenance/prov.json"
CHECKSUMS = "checksums.sha256"

_STAGES = ("read", "predict", "derive", "write")


def partitions_table(receipts: Sequence[Receipt]) -> pa.Table:
    """Table of receipts, one row per partition in order of the sky."""
    rows = []
    for receipt in sorted(receipts, key=lambda r: Partition.parse(r.partition)):
        partition = Partition.parse(receipt.partition)
        last = receipt.attempts[-1]
        rows.append(
            {
                "order": partition.order,
                "pixel": partition.pixel,
                "status": receipt.status,
                "run_id": receipt.run_id,
                "key": receipt.key,
                **receipt.ingredients.model_dump(),
                "model": receipt.model,
                "rows_in": receipt.rows_in,
                "rows_out": receipt.rows_out,
                "sha256": receipt.leaves[0].sha256 if receipt.leaves else None,
                "bytes": sum(leaf.bytes for leaf in receipt.leaves),
                "attempts": len(receipt.attempts),
                "error": last.error,
                "host": last.host,
                "device": receipt.device,
                "started": last.started,
                "seconds": last.seconds,
                **{f"seconds_{stage}": receipt.seconds.get(stage) for stage in _STAGES},
                "peak_rss": receipt.peak_rss,
            }
        )
    return pa.Table.from_pylist(rows)


def prov_document(run: ResolvedRun, record: RunRecord) -> ProvDocument:
    """Describe a run in the terms of W3C PROV and the IVOA Provenance Data Model.

    Parameters
    ----------
    run : ResolvedRun
        Resolved configuration of the run: inputs and contracts.
    record : RunRecord
        Its record.
    """
    document = ProvDocument()
    document.add_namespace("voprov", "http://www.ivoa.net/documents/ProvenanceDM/")
    document.add_namespace("ojala", "urn:ojala:")
    activity = document.activity(
        f"ojala:run/{record.run_id}",
        record.started,
        record.ended,
        {"prov:label": "run of the model over all partitions", "voprov:status": record.status},
    )
    agent = document.agent(
        "ojala:software", {"prov:type": "prov:SoftwareAgent", "ojala:version": record.code_version}
    )
    document.wasAssociatedWith(activity, agent)

    def use(identifier: str, **attributes: str) -> ProvEntity:
        named = {name.replace("_", ":", 1): value for name, value in attributes.items()}
        entity = document.entity(f"ojala:{identifier}", named)
        document.used(activity, entity)
        return entity

    for name, value in record.config.items():
        identifier = f"run/{record.run_id}/parameter/{name}"
        use(identifier, prov_type="voprov:Parameter", voprov_name=name, prov_value=str(value))
    adapter = run.adapter
    labels, roots = adapter.labels, {adapter.reads.name: str(run.source)}
    if adapter.auxiliary is not None and run.auxiliary is not None:
        roots[adapter.auxiliary.name] = str(run.auxiliary)
    inputs = [use(name, prov_label=labels[name], prov_location=root) for name, root in roots.items()]
    use("weights", prov_label=record.model, ojala_sha256=record.weights_sha256)
    described = {f"head.{head.name}": head.description for head in record.heads}
    for role, sha256 in record.assets.items():
        use(role.replace(".", "/"), prov_label=described.get(role, role), ojala_sha256=sha256)
    for contract in run.contracts:
        product = document.entity(
            f"ojala:run/{record.run_id}/{contract.name}",
            {"prov:label": contract.title, "ojala:contract": contract.version, "ojala:rows": record.rows_out},
        )
        document.wasGeneratedBy(product, activity)
        for source in inputs:
            document.wasDerivedFrom(product, source)
    return document


def write_provenance(run: ResolvedRun, record: RunRecord, receipts: Sequence[Receipt]) -> None:
    """Write the table of partitions and PROV-JSON into a run's folder."""
    folder = run.folder(record.run_id)
    sink = io.BytesIO()
    pq.write_table(partitions_table(receipts), sink, compression="zstd")
    write_whole(folder / PARTITIONS, sink.getvalue())
    write_whole(folder / PROV, str(prov_document(run, record).serialize(indent=1)).encode())


def write_checksums(run: UPath, receipts: Iterable[Receipt]) -> None:
    """Write ``checksums.sha256`` over all files of a run, in the form that ``sha256sum -c`` reads.

    The hashes of leaves are those of the receipts, those of margins and index are listed with them; all other
    files are read. The run's record and its log are left out, since they change last.
    """
    sums = {leaf.path: leaf.sha256 for receipt in receipts for leaf in receipt.leaves}
    sums |= supplemental_sums(run)
    left_out = {*sums, RECORD, CHECKSUMS, RUN_LOG}
    others = [name for name in list_files(run) if name not in left_out]
    sums |= dict(hash_files(run, others))
    write_whole(run / CHECKSUMS, checksums_text(sums).encode())


def checksums_text(sums: Mapping[str, str]) -> str:
    """SHA-256 by name, in the form that ``sha256sum -c`` reads."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def read_checksums(run: UPath) -> dict[str, str]:
    """Read the SHA-256 of each file from a run's ``checksums.sha256``.

    Raises
    ------
    ValueError
        If a line has another form, or names a file outside of the run.
    """
    sums = {}
    for number, line in enumerate((run / CHECKSUMS).read_text().splitlines(), start=1):
        sha256, _, name = line.partition("  ")
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts:
            raise InputError(f"{run / CHECKSUMS}, line {number}: {name!r} is no file of this run")
        sums[name] = sha256
    return sums
