"""Results of a benchmark, their tables, and ratios to the limits."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ojala.flows.bench.machine import Device


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
        Rate of the bare network, from tokens to raw outputs [objects/s], by precision and ``eager`` or
        ``compiled``.
    predict : dict of str to MedianRange
        Rate of the predictor, from photometry to the columns of the catalogue [objects/s], by precision.
    predict_with_bands : dict of str to MedianRange
        The same with all bands requested; empty for weights without band requests.
    published : MedianRange
        Rate of the published network, all answers from one pass, in single precision.
    reference : MedianRange
        Rate of the same network, weights and rows in its authors' way: 64 objects, one request at a time.
    compile_seconds, compile_again_seconds : float or None
        Duration of the first call of the compiled network without and with a cache; None if not compiled.
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
    compile_seconds: float | None
    compile_again_seconds: float | None


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
    """Measurements of a benchmark, and ratios of their medians."""

    device: Device
    machine: Machine
    network: Network
    leaves: Leaves
    flow: Flow
    spectra: dict[str, Spectral]
    ratios: dict[str, float]

    def table(self) -> str:
        """Render the measurements as Markdown tables."""
        return "\n".join(
            [
                *self._about(),
                *self._limits(),
                *self._rates(),
                *self._partition(),
                *self._spectra(),
                *self._shares(),
            ]
        )

    def _about(self) -> list[str]:
        d = self.device
        return [
            f"{d.processor}, {d.cores} cores, {d.memory / 2**30:.0f} GiB, "
            f"bf16 {'yes' if d.bf16 else 'no (emulated, so not measured)'}; "
            f"torch {d.torch}, Python {d.python}, {d.system}; {d.date}, load before {d.load:.1f}"
        ]

    def _limits(self) -> list[str]:
        m, n = self.machine, self.network
        rows = [
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
        return _table("limit", rows)

    def _rates(self) -> list[str]:
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
        if n.compile_seconds is not None and n.compile_again_seconds is not None:
            rows.append(("compilation, first / from its cache",
                         f"{n.compile_seconds:.0f} s / {n.compile_again_seconds:.0f} s"))  # fmt: skip
        return _table("rate", rows)

    def _partition(self) -> list[str]:
        f = self.flow
        rows = [
            *((f"one partition: {name}", _spread(s, "s")) for name, s in f.stages.items()),
            ("start of the workers", _spread(f.startup, "s")),
            ("a partition without a network", _spread(f.partition_milliseconds, "ms")),
            ("the same, processor time in one process", _spread(f.partition_cpu_milliseconds, "ms")),
            *(
                (f"peak memory of a worker, partition of {rows:,} rows", f"{mib:,} MiB")
                for rows, mib in f.peak_memory.items()
            ),
        ]
        return _table("partition", rows)

    def _spectra(self) -> list[str]:
        rows = [
            (
                f"{name} {precision}, {model.flops / 1e9:.2f} GFLOP a spectrum",
                f"{_spread(rate, '/s')}; {rate.median / model.roofline[precision]:.2f} of the matrix rate",
            )
            for name, model in self.spectra.items()
            for precision, rate in model.predict.items()
        ]
        return _table("spectra", rows)

    def _shares(self) -> list[str]:
        return _table("ratio", [(name, f"{value:.2f}") for name, value in self.ratios.items()])


def ratios_of(network: Network, machine: Machine, flow: Flow) -> dict[str, float]:
    """Compute ratios to the limits, from medians.

    "bare network" has the precision of the flow, eager.
    """
    bare = network.forward[f"{flow.precision} eager"].median
    reference = network.reference.median
    ratios = {
        f"bare network {name} / roofline": rate.median / network.roofline[name.split()[0]]
        for name, rate in network.forward.items()
    }
    ratios |= {
        f"bare network {name} / matrix rate in its own shapes": rate.median
        * network.flops
        / machine.matrix_of_network[name.split()[0]].median
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


def _table(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["", f"| {title} | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _spread(spread: MedianRange, unit: str) -> str:
    """Format the median with the smallest and largest value."""
    digits = 0 if spread.median >= 100 else 1 if spread.median >= 10 else 3
    return f"{spread.median:,.{digits}f} ({spread.least:,.{digits}f} to {spread.largest:,.{digits}f}) {unit}"


def _si(spread: MedianRange, unit: str) -> str:
    """Format in units of 1e9 or 1e6."""
    factor, prefix = (1e9, "G") if spread.median >= 1e9 else (1e6, "M")
    return _spread(MedianRange.from_values([value / factor for value in spread.values]), prefix + unit)
