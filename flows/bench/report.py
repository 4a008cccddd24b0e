"""Results of a benchmark, their tables, and ratios to the limits."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, ValidationError
from upath import UPath

from ojala.flows.bench.machine import Device
from ojala.pipeline.storage.files import write_whole


@dataclass(frozen=True, slots=True)
class MedianRange:
    """Repeated measurement: median, smallest and largest value, and all values in order."""

    median: float
    least: float
    largest: float
    values: list[float]

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Self:
        """Summarise values."""
        return cls(statistics.median(values), min(values), max(values), list(values))


@dataclass(frozen=True, slots=True)
class Machine:
    """Limits of the machine, with as many processes as the flow has workers.

    Attributes
    ----------
    matrix : dict of str to MedianRange
        Matrix products at the best square size, by precision [FLOP/s].
    matrix_of_network : dict of str to MedianRange
        The same for the shapes and numbers of products in the network.
    copy : MedianRange
        Copies in memory: bytes read plus bytes written [bytes/s].
    disk_write, disk_read : MedianRange
        Rates of one file [bytes/s].
    """

    matrix: dict[str, MedianRange]
    matrix_of_network: dict[str, MedianRange]
    copy: MedianRange
    disk_write: MedianRange
    disk_read: MedianRange


@dataclass(frozen=True, slots=True)
class Network:
    """Operations of the network per object, and its rates.

    Attributes
    ----------
    batch : int
        Objects per forward pass.
    flops : float
        Floating-point operations of its matrix products.
    bytes_moved, bytes_least : float
        Bytes of all operands without fusion of operations, and lower limit; in single precision.
    roofline : dict of str to float
        Limit by precision [objects/s]: the smaller one of the measured matrix rate over ``flops`` and the
        measured copy rate over ``bytes_least``.
    forward : dict of str to MedianRange
        Rate of the bare network, from tokens to raw outputs [objects/s], by precision.
    predict : dict of str to MedianRange
        Rate of the predictor, from photometry to the columns of the catalogue [objects/s], by precision.
    predict_with_bands : dict of str to MedianRange
        The same with all bands requested; empty for weights without band requests.
    published : MedianRange
        Rate of the published network, all answers from one pass, in single precision.
    reference : MedianRange
        Rate of the same network, weights and rows in its authors' way: 64 objects, one request at a time.
    """

    batch: int
    flops: float
    bytes_moved: float
    bytes_least: float
    roofline: dict[str, float]
    forward: dict[str, MedianRange]
    predict: dict[str, MedianRange]
    predict_with_bands: dict[str, MedianRange]
    published: MedianRange
    reference: MedianRange


@dataclass(frozen=True, slots=True)
class Leaves:
    """Rates of Parquet leaves of one partition, in one process.

    Attributes
    ----------
    rows : int
        Rows of the leaf.
    read, write : MedianRange
        Photometry in and value-added catalogue out [rows/s].
    read_bytes, write_bytes : MedianRange
        The same [bytes/s of the files].
    """

    rows: int
    read: MedianRange
    write: MedianRange
    read_bytes: MedianRange
    write_bytes: MedianRange


@dataclass(frozen=True, slots=True)
class Flow:
    """Run over partitions, from photometry leaves to written leaves and receipts.

    Attributes
    ----------
    rows, partitions, workers : int
        Size of the run.
    precision : str
        Arithmetic of the network.
    rate : MedianRange
        Rate from the start of the first partition to the last receipt [rows/s].
    startup : MedianRange
        Seconds of the start of the workers, with loading of the model.
    stages : dict of str to MedianRange
        Seconds of one partition's stages, over all partitions.
    partition_milliseconds : MedianRange
        Wall-clock time per partition of a few rows with the dummy model.
    partition_cpu_milliseconds : MedianRange
        Processor time of one such partition in one process.
    peak_memory : dict of int to int
        Peak resident memory of a worker [MiB] by rows of its partition.
    """

    rows: int
    partitions: int
    workers: int
    precision: str
    rate: MedianRange
    startup: MedianRange
    stages: dict[str, MedianRange]
    partition_milliseconds: MedianRange
    partition_cpu_milliseconds: MedianRange
    peak_memory: dict[int, int]


@dataclass(frozen=True, slots=True)
class Spectral:
    """Model of spectra, on spectra of DESI's 7,781 pixels.

    Attributes
    ----------
    flops : float
        Floating-point operations of matrix products and convolutions per spectrum.
    predict : dict of str to MedianRange
        Rate of the predictor by precision [spectra/s].
    roofline : dict of str to float
        Limit of the measured matrix rate [spectra/s].
    """

    flops: float
    predict: dict[str, MedianRange]
    roofline: dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """Measurements of a benchmark, and ratios of their medians.

    Attributes
    ----------
    turns : int
        Number of turns of the measurements.
    skipped : list of str
        What was not measured, and why.
    """

    device: Device
    machine: Machine
    network: Network
    leaves: Leaves
    flow: Flow
    spectra: dict[str, Spectral]
    ratios: dict[str, float]
    turns: int
    skipped: list[str]

    def table(self) -> str:
        """Render the measurements as Markdown tables."""
        return comparison([self])

    def about(self) -> list[str]:
        """Describe the machine, and what was not measured."""
        d = self.device
        return [
            f"{d.kind}, {d.memory / 2**30:.0f} GiB; torch {d.torch}, Python {d.python}, {d.system}; "
            f"{d.date}, load before {d.load:.1f}; turns: {self.turns}.",
            *(f"Skipped: {what}." for what in self.skipped),
        ]

    def sections(self) -> dict[str, list[tuple[str, str]]]:
        """Names and values of the rows of each table."""
        return {
            "limit": self._limits(),
            "rate": self._rates(),
            "partition": self._partition(),
            "spectra": self._spectra(),
            "ratio": [(name, f"{value:.2f}") for name, value in self.ratios.items()],
        }

    def _limits(self) -> list[tuple[str, str]]:
        m, n = self.machine, self.network
        return [
            *((f"matrix products {p}, best square", _si(s, "FLOP/s")) for p, s in m.matrix.items()),
            *(
                (f"matrix products {p}, the network's shapes", _si(s, "FLOP/s"))
                for p, s in m.matrix_of_network.items()
            ),
            ("copy in memory", _si(m.copy, "B/s")),
            ("disk, write", _si(m.disk_write, "B/s")),
            ("disk, read", _si(m.disk_read, "B/s")),
            ("network per object", f"{n.flops / 1e6:.1f} MFLOP, {n.bytes_moved / 1e6:.2f} MB of operands"),
            *((f"roofline {p}", f"{rate:,.0f} rows/s") for p, rate in n.roofline.items()),
        ]

    def _rates(self) -> list[tuple[str, str]]:
        n, f, p = self.network, self.flow, self.leaves
        rows = [
            *((f"bare network {name}", _spread(s, "rows/s")) for name, s in n.forward.items()),
            *((f"predictor {name}", _spread(s, "rows/s")) for name, s in n.predict.items()),
            *((f"predictor {name}, with bands", _spread(s, "rows/s"))
              for name, s in n.predict_with_bands.items()),
            ("published network, all answers from one pass, fp32", _spread(n.published, "rows/s")),
            ("the same in its authors' way of serving, fp32", _spread(n.reference, "rows/s")),
            (f"Parquet read, {p.rows:,} rows", f"{_spread(p.read, 'rows/s')}; {_si(p.read_bytes, 'B/s')}"),
            (f"Parquet write, {p.rows:,} rows", f"{_spread(p.write, 'rows/s')}; {_si(p.write_bytes, 'B/s')}"),
            (f"flow {f.precision}, {f.workers} workers, {f.rows:,} rows in {f.partitions} partitions",
             _spread(f.rate, "rows/s")),
        ]  # fmt: skip
        if not n.predict_with_bands:
            rows.append(("predictor, with bands", "these weights cannot be asked for bands"))
        return rows

    def _partition(self) -> list[tuple[str, str]]:
        f = self.flow
        return [
            *((f"one partition: {name}", _spread(s, "s")) for name, s in f.stages.items()),
            ("start of the workers", _spread(f.startup, "s")),
            ("a partition without a network", _spread(f.partition_milliseconds, "ms")),
            ("the same, processor time in one process", _spread(f.partition_cpu_milliseconds, "ms")),
            *(
                (f"peak memory of a worker, partition of {rows:,} rows", f"{mib:,} MiB")
                for rows, mib in f.peak_memory.items()
            ),
        ]

    def _spectra(self) -> list[tuple[str, str]]:
        return [
            (
                f"{name} {precision}, {model.flops / 1e9:.2f} GFLOP a spectrum",
                f"{_spread(rate, '/s')}; {rate.median / model.roofline[precision]:.2f} of the matrix rate",
            )
            for name, model in self.spectra.items()
            for precision, rate in model.predict.items()
        ]


def ratios_of(network: Network, machine: Machine, flow: Flow) -> dict[str, float]:
    """Compute ratios to the limits, from medians.

    "bare network" has the precision of the flow.
    """
    bare = network.forward[flow.precision].median
    reference = network.reference.median
    ratios = {
        f"bare network {name} / roofline": rate.median / network.roofline[name]
        for name, rate in network.forward.items()
    }
    ratios |= {
        f"bare network {name} / matrix rate in its own shapes": rate.median
        * network.flops
        / machine.matrix_of_network[name].median
        for name, rate in network.forward.items()
    }
    ratios |= {
        f"predictor {name} without bands / with bands": network.predict[name].median / rate.median
        for name, rate in network.predict_with_bands.items()
    }
    return ratios | {
        "predictor / bare network": network.predict[flow.precision].median / bare,
        "flow / predictor": flow.rate.median / network.predict[flow.precision].median,
        "flow / bare network": flow.rate.median / bare,
        "published network / its authors' way of serving": network.published.median / reference,
        "bare network / published network in its authors' way": bare / reference,
        "flow / published network in its authors' way": flow.rate.median / reference,
    }


def roofline(flops: float, least: float, matrix: float, copy: float) -> float:
    """Limit of a rate [objects/s] by the matrix rate [FLOP/s] and the copy rate [bytes/s]."""
    return min(matrix / flops, copy / least)


def comparison(reports: Sequence[Report]) -> str:
    """Render measurements as Markdown tables with a column for each machine."""
    lines = [line for report in reports for line in report.about()]
    heads = ["measured"] if len(reports) == 1 else [report.device.kind for report in reports]
    every = [{title: dict(rows) for title, rows in report.sections().items()} for report in reports]
    for title in every[0]:
        names = dict.fromkeys(name for of in every for name in of[title])
        lines += ["", f"| {' | '.join([title, *heads])} |", "|---" * (1 + len(heads)) + "|"]
        lines += [f"| {' | '.join([name, *(of[title].get(name, '-') for of in every)])} |" for name in names]
    return "\n".join(lines)


def read_page(page: Path) -> list[Report]:
    """Measurements that `write_page` left beside a Markdown page, none without such a file.

    Raises
    ------
    ValueError
        The page has another ending, or the file beside it does not hold measurements.
    """
    if page.suffix != ".md":
        raise ValueError(f"{page}: tables are written as Markdown; give a name that ends with .md")
    stored = page.with_suffix(".json")
    try:
        return _REPORTS.validate_json(stored.read_bytes()) if stored.exists() else []
    except ValidationError as problem:
        reason = problem.errors()[0]["msg"]
        raise ValueError(
            f"{stored}: not measurements of this version of `ojala bench` ({reason}); move the file away to "
            "begin a new page"
        ) from problem


def write_page(page: Path, before: Sequence[Report], report: Report) -> None:
    """Write tables with a column for each machine, and all values beside them, as ``PAGE.json``.

    Parameters
    ----------
    page : Path
        Name of the page, ending with ``.md``.
    before : sequence of Report
        Measurements of `read_page`; one on a machine of the same kind is replaced.
    report : Report
        Measurements on this machine.
    """
    reports = [*(of for of in before if of.device.kind != report.device.kind), report]
    write_whole(UPath(page.with_suffix(".json")), _REPORTS.dump_json(reports, indent=1) + b"\n")
    write_whole(UPath(page), f"# Measurements of `ojala bench`\n{comparison(reports)}\n".encode())


def _spread(spread: MedianRange, unit: str) -> str:
    """Format the median with the smallest and largest value."""
    digits = 0 if spread.median >= 100 else 1 if spread.median >= 10 else 3
    return f"{spread.median:,.{digits}f} ({spread.least:,.{digits}f} to {spread.largest:,.{digits}f}) {unit}"


def _si(spread: MedianRange, unit: str) -> str:
    """Format in units of 1e9 or 1e6."""
    factor, prefix = (1e9, "G") if spread.median >= 1e9 else (1e6, "M")
    return _spread(MedianRange.from_values([value / factor for value in spread.values]), prefix + unit)


_REPORTS = TypeAdapter(list[Report])
