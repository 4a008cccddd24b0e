"""Clean samples of a release: galaxies, stars and quasars by the cuts of arXiv:2604.00661."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.bands import BY_NAME, NARROW_BANDS, REFERENCE_BAND, Band
from ojala.catalogs_schema.contract import Contract
from ojala.pipeline.storage.hats import SKYMAP_ORDER, finalise_catalogue, read_leaves
from ojala.pipeline.storage.healpix import Partition, pixel_at
from ojala.pipeline.storage.parquet import LeafRecord, write_leaf
from ojala.pipeline.storage.progress import counted

AB_ZERO = 23.9
"""AB magnitude of a flux density of 1 uJy."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Cuts of a sample.

    Attributes
    ----------
    name : str
        Name of its catalogue.
    probability : str
        Column of the probability of the class.
    least : float
        Least probability.
    faintest : float
        The iSDSS magnitude (AB, as observed) is below this.
    all_narrow : bool
        Whether all 54 narrow bands must be measured.
    """

    name: str
    probability: str
    least: float
    faintest: float
    all_narrow: bool

    @property
    def description(self) -> str:
        """The cuts in words."""
        narrow = ", all 54 narrow bands measured" if self.all_narrow else ""
        return f"i < {self.faintest:g}, {self.probability} >= {self.least:g}{narrow}"


SAMPLES: tuple[Sample, ...] = (
    Sample("clean_galaxies", "p_galaxy", 0.9, 21.0, True),
    Sample("clean_stars", "p_star", 0.9, 21.0, False),
    Sample("clean_qsos", "p_qso", 0.95, 23.0, False),
)
"""The published samples."""


def write_samples(product: UPath, source: UPath, contract: Contract, to: UPath) -> dict[str, int]:
    """Write each sample as a HATS catalogue with the product's columns, and return their rows by name.

    Parameters
    ----------
    product, source : UPath
        Roots of the product and of the photometry that it was made from.
    contract : Contract
        Contract of the product.
    to : UPath
        Folder for the catalogues.
    """
    leaves: dict[str, dict[Partition, LeafRecord]] = {sample.name: {} for sample in SAMPLES}
    maps = {sample.name: np.zeros(12 * 4**SKYMAP_ORDER, np.int64) for sample in SAMPLES}
    reference = BY_NAME[REFERENCE_BAND]
    columns = [name for band in (*NARROW_BANDS, reference) for name in (band.flux_column, band.error_column)]
    for partition in counted(read_leaves(product), "partitions searched for the samples"):
        with (product / partition.leaf).open("rb") as file:
            rows = pq.ParquetFile(file).read()
        with (source / partition.leaf).open("rb") as file:
            measured = pq.read_table(file, columns=columns)
        magnitude = _magnitude(measured[reference.flux_column])
        narrow = np.all([_is_measured(measured, band) for band in NARROW_BANDS], axis=0)
        for sample in SAMPLES:
            p = rows[sample.probability].to_numpy(zero_copy_only=False)
            with np.errstate(invalid="ignore"):
                chosen = (p >= np.float32(sample.least)) & (magnitude < sample.faintest)
            chosen &= narrow if sample.all_narrow else True
            if not chosen.any():
                continue
            table = rows.filter(pa.array(chosen))
            path = to / sample.name / partition.leaf
            written = write_leaf(path, table, contract, {"ojala.sample": sample.description})
            leaves[sample.name][partition] = LeafRecord(
                partition.leaf, written.rows, written.bytes, written.sha256
            )
            pixel = pixel_at(table["_healpix_29"].to_numpy(), SKYMAP_ORDER)
            maps[sample.name] += np.bincount(pixel, minlength=len(maps[sample.name]))
    for sample in SAMPLES:
        finalise_catalogue(
            to / sample.name,
            contract,
            leaves[sample.name],
            name=sample.name,
            skymap=maps[sample.name],
            extra={"obs_description": f"{contract.title}: {sample.description}"},
        )
    return {name: sum(leaf.rows for leaf in found.values()) for name, found in leaves.items()}


def _magnitude(flux: pa.ChunkedArray) -> np.ndarray:
    """AB magnitudes, NaN where the flux is missing or not positive."""
    values = flux.to_numpy(zero_copy_only=False).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(values > 0, AB_ZERO - 2.5 * np.log10(values), np.nan))


def _is_measured(table: pa.Table, band: Band) -> np.ndarray:
    """Whether a band has a finite flux and a positive, finite error."""
    flux, error = (
        table[name].to_numpy(zero_copy_only=False) for name in (band.flux_column, band.error_column)
    )
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(flux) & np.isfinite(error) & (error > 0))
