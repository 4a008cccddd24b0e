"""What must hold after every command and every fault, whatever came before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from upath import UPath

from ojala.catalogs_schema.files import TEMPORARY
from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.runs.published_paths import MANIFEST, PUBLISHED
from ojala.pipeline.runs.record import ENDED, RunRecord, Status, find_runs, read_record
from ojala.pipeline.runs.releases import pointers
from ojala.pipeline.storage.files import sha256_of
from ojala.pipeline.storage.lock import LOCKS
from tests.fault_injection.accounts import columns_of

RECEIPTS = "receipts/*/*.json"


@dataclass
class Truth:
    """The data of undisturbed runs: SHA-256 of the columns of a leaf by what it is made from.

    Attributes
    ----------
    leaves : dict
        Hash by product, partition, SHA-256 of the weights and SHA-256 of the input.
    partitions : set of str
        All partitions of the survey.
    """

    leaves: dict[tuple[str, str, str, str], str] = field(default_factory=dict)
    partitions: set[str] = field(default_factory=set)

    def learn(self, run: UPath) -> None:
        """Take over the data of a run that nothing happened to."""
        for receipt in receipts_of(run):
            self.partitions.add(receipt.partition)
            self.leaves |= {
                _made_from(receipt, leaf.product): hash_of(run / leaf.path) for leaf in receipt.leaves
            }

    def check(self, out: UPath, *, damaged: str = "") -> None:
        """Check a collection: what readers see, and what receipts say.

        Parameters
        ----------
        out : UPath
            Root of the collection.
        damaged : str
            Run with a leaf that was damaged on purpose.
        """
        for way, catalogues in ways_of(out):
            runs = {Path(catalogue).parent.name for catalogue in catalogues.values()}
            assert len(runs) <= 1, f"{way} mixes the runs {runs}"
            for run_id in runs - {damaged}:
                record = read_record(out / "runs" / run_id)
                assert record.status == Status.COMPLETE, f"{way} shows run {run_id}, which is {record.status}"
                assert set(catalogues) == set(record.products), f"{way} shows {list(catalogues)}"
        for run in find_runs(out):
            if (run / "run.json").exists() and run.name != damaged:
                self.check_run(run, read_record(run))

    def check_run(self, run: UPath, record: RunRecord) -> None:
        """Check the receipts of a run against its leaves, and the leaves against undisturbed ones."""
        receipts = receipts_of(run)
        ended = record.status in ENDED
        for receipt in receipts:
            for leaf in receipt.leaves if receipt.status == "done" else ():
                path = run / leaf.path
                if not path.exists():
                    assert not ended, f"{path} is missing"
                    continue
                whole = path.stat().st_size == leaf.bytes and file_hash(path) == leaf.sha256
                assert whole or not ended, f"{path} is not what its receipt says"
                same = hash_of(path) == self.leaves[_made_from(receipt, leaf.product)]
                assert same or not whole, f"{path} is not what an undisturbed run gives"
        if record.status == Status.COMPLETE:
            done = [receipt.partition for receipt in receipts if receipt.status == "done"]
            assert len(done) == len(set(done)), f"{run} has a partition twice"
            assert set(done) == self.partitions, f"{run} lacks {self.partitions - set(done)}"
            leaves_of = [leaf for receipt in receipts for leaf in receipt.leaves]
            for product in record.products:
                leaves = {leaf.path for leaf in leaves_of if leaf.product == product}
                there = {path.relative_to(run).as_posix() for path in (run / product).rglob("Npix=*.parquet")}
                assert there == leaves, f"{run / product} has leaves without a receipt: {there - leaves}"


def ways_of(out: UPath) -> Iterator[tuple[str, dict[str, str]]]:
    """The ways by which readers find the published catalogue of each product, with what they find."""
    yield (
        "collection.properties",
        {product: f"runs/{run}/{product}" for product, run in pointers(out).items()},
    )
    if (out / MANIFEST).exists():
        manifest = json.loads((out / MANIFEST).read_text())
        yield MANIFEST, {product: entry["catalogue"] for product, entry in manifest.items()}
        for entry in manifest.values():
            missing = [leaf for leaf in entry["leaves"] if not (out / leaf).exists()]
            assert not missing, f"{MANIFEST} names {missing[0]}, which is not there"
    links = Path(out.path, PUBLISHED)
    if links.exists():
        root = Path(out.path).resolve()
        yield PUBLISHED, {link.name: str(link.resolve().relative_to(root)) for link in links.iterdir()}


def check_settled(out: UPath, command: str, words: list[object], kind: str = "") -> None:
    """After a command that ended well: one release by all ways, nothing unfinished where it works.

    One that may open no folder any more, by the kind of its fault, leaves former links to the next command.
    """
    if command == "ingest --add":
        root = Path(_after("--to", words))
        assert not (left := [*root.glob(".*"), *root.glob("releases/.*")]), f"left behind: {left}"
    if command in ("ingest", "export"):
        target = Path(_after("--out" if command == "ingest" else "--to", words))
        assert not (left := [*target.parent.glob(f".{target.name}.*")]), f"left behind: {left}"
    if command not in ("run", "reprocess", "publish", "rollback"):
        return
    if "--no-publish" not in words:  # what a killed publication left is settled by the next one
        found = [catalogues for _, catalogues in ways_of(out) if catalogues]
        assert all(catalogues == found[0] for catalogues in found), found
    left = [
        path for run in set(pointers(out).values()) for path in (out / "runs" / run).rglob(f".*{TEMPORARY}")
    ]
    if command in ("run", "reprocess"):
        left += Path(out.path, LOCKS).glob("ojala.lock")
    if (
        "--no-publish" not in words and kind != "limit of open files"
    ):  # the collection itself is written when a run is published
        links = Path(out.path, PUBLISHED).resolve()
        left += [path for path in Path(out.path).glob(".*") if path.name != links.name]
    assert not left, f"left behind: {left}"


def _after(option: str, words: list[object]) -> str:
    return str(words[words.index(option) + 1])


def receipts_of(run: UPath) -> list[Receipt]:
    """All receipts of a run, from their files."""
    return [Receipt.model_validate_json(path.read_bytes()) for path in run.glob(RECEIPTS)]


def _made_from(receipt: Receipt, product: str) -> tuple[str, str, str, str]:
    made = receipt.ingredients
    return product, receipt.partition, made.weights_sha256, made.input_sha256


def hash_of(leaf: UPath) -> str:
    """SHA-256 of the columns of a leaf; a file that has not changed is read once."""
    return _hash(leaf, _stamp(leaf))


def file_hash(leaf: UPath) -> str:
    """SHA-256 of a file; one that has not changed is read once."""
    return _file_hash(leaf, _stamp(leaf))


def _stamp(path: UPath) -> tuple[object, ...]:
    """What is another after each change of a file."""
    if path.protocol == "s3":
        return (path.fs.info(path.path)["ETag"],)
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@cache
def _hash(path: UPath, stamp: tuple[object, ...]) -> str:
    return columns_of(path)


@cache
def _file_hash(path: UPath, stamp: tuple[object, ...]) -> str:
    return sha256_of(path)
