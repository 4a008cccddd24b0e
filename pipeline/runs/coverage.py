"""Loss of rows and of sky between the published release and its successor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from upath import UPath

from ojala.pipeline.runs.record import read_record
from ojala.pipeline.storage.healpix import Partition


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows and sky of a published release that a catalogue does not have.

    Rows are counted in pixels of 14 arcmin: rows gained in one do not make up for rows lost in another.

    Attributes
    ----------
    release : str
        Run that is published.
    source : str
        Input catalogue of that run.
    rows_before, rows : int
        Rows of the release, and those of them that are lost.
    area : float
        Area of the pixels that have lost all their rows [deg2].
    partitions_before, partitions : int
        Partitions of the release, and those of them that have lost all their rows.
    withdrawn : int
        Rows of tiles that were withdrawn on purpose since.
    """

    release: str
    source: str
    rows_before: int
    rows: int
    area: float
    partitions_before: int
    partitions: int
    withdrawn: int = 0

    @property
    def share(self) -> float:
        """Rows that are lost and were not withdrawn, as a share of the release's."""
        return max(self.rows - self.withdrawn, 0) / max(self.rows_before, 1)

    @property
    def text(self) -> str:
        """One sentence."""
        if not self.rows:
            return f"all {self.rows_before:,} rows of release {self.release} have successors"
        return (
            f"{self.rows:,} of {self.rows_before:,} rows of release {self.release} (made from {self.source}) "
            f"are lost, {self.area:,.2f} deg2 of its sky and {self.partitions:,} of its "
            f"{self.partitions_before:,} partitions have none left"
            + (f"; {self.withdrawn:,} rows were withdrawn on purpose" if self.withdrawn else "")
        )

    def numbers(self) -> dict[str, float]:
        """The measured numbers by name."""
        return {
            "rows_before": float(self.rows_before),
            "rows_lost": float(self.rows),
            "rows_withdrawn": float(self.withdrawn),
            "area_lost": self.area,
            "partitions_before": float(self.partitions_before),
            "partitions_lost": float(self.partitions),
        }


def find_loss(release: UPath, catalogue: UPath) -> Loss:
    """Compare a catalogue with the main product of a published run.

    Parameters
    ----------
    release : UPath
        Folder of the published run.
    catalogue : UPath
        Root of the input of the run that is to replace it.

    Raises
    ------
    CatalogueError
        If one of them is no finished catalogue.
    OSError, ValueError
        If their maps of row counts cannot be read.
    """
    # Late: every command imports the gates for their limits, and hats takes a second.
    from ojala.pipeline.ingest.lineage import withdrawn_rows
    from ojala.pipeline.storage.hats import SKYMAP_ORDER, read_counts, read_leaves

    record = read_record(release)
    before, now = read_counts(release / record.main), read_counts(catalogue)
    emptied = (before > 0) & (now == 0)
    kept = (before > 0) & (now > 0)
    partitions = list(read_leaves(release / record.main))
    return Loss(
        release=release.name,
        source=record.source,
        rows_before=int(before.sum()),
        rows=int((before - now).clip(0).sum()),
        area=float(emptied.sum() * Partition(SKYMAP_ORDER, 0).area),
        partitions_before=len(partitions),
        partitions=sum(not _cells(partition, kept, SKYMAP_ORDER).any() for partition in partitions),
        withdrawn=withdrawn_rows(catalogue, UPath(record.source)),
    )


def _cells(partition: Partition, pixels: np.ndarray, order: int) -> np.ndarray:
    """Those of all pixels of an order that a partition covers, or the one that holds it."""
    shift = 2 * (order - partition.order)
    if shift < 0:
        return pixels[partition.pixel >> -shift :][:1]
    return pixels[partition.pixel << shift : (partition.pixel + 1) << shift]
