"""The contract of AVIS' catalogue: embeddings of spectra with images, and where they lie in the atlas."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import pyarrow as pa

from ojala.catalogs_schema.columns import flags, number, vector, without_prefix
from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.ojala import Z_MAX
from ojala.catalogs_schema.spectra import SPECTRA_KEYS

EMBEDDING_SIZE = 128
"""Length of an embedding."""

UNCLUSTERED = -1
"""In the place of a cluster's number: in none, or not known."""

SCATTERED = 0.05
"""Scatter of the neighbours' redshifts, over (1 + z), above which a row is flagged."""

NOVEL = 0.99
"""Novelty above which a row is flagged."""


class AvisFlag(enum.IntFlag):
    """Flags of a row. Bits are never reused for another meaning."""

    NO_SPECTRUM = 1 << 0
    NO_IMAGE = 1 << 1
    NO_CUTOUT = 1 << 2
    BAND_MISSING = 1 << 3
    IMAGE_DOUBTFUL = 1 << 4
    LOW_SIGNAL = 1 << 5
    NOT_EMBEDDED = 1 << 6
    FEW_REDSHIFTS = 1 << 7
    Z_SCATTERED = 1 << 8
    NOVEL = 1 << 9
    OUT_OF_RANGE = 1 << 10
    NOT_PLACED = 1 << 11


FLAG_MEANINGS: Mapping[enum.IntFlag, str] = {
    AvisFlag.NO_SPECTRUM: "the network can use nothing of the spectrum: avis_embedding_spectrum is NaN",
    AvisFlag.NO_IMAGE: "the network can use nothing of the image: avis_embedding_image is NaN",
    AvisFlag.NO_CUTOUT: "the cut-out catalogue has no row for the object, or none was given",
    AvisFlag.BAND_MISSING: "there is an image, but not in all of g, r and z",
    AvisFlag.IMAGE_DOUBTFUL: "the image is saturated near the object, or not measured at its place",
    AvisFlag.LOW_SIGNAL: "median signal-to-noise ratio of the spectrum's usable pixels below 1",
    AvisFlag.NOT_EMBEDDED: "there is no joint embedding: all of the atlas' columns are null",
    AvisFlag.FEW_REDSHIFTS: "the atlas knows the redshifts of too few objects: z_nn is null",
    AvisFlag.Z_SCATTERED: f"z_nn_err above {SCATTERED} (1 + z_nn): the neighbours disagree",
    AvisFlag.NOVEL: f"avis_novelty above {NOVEL}",
    AvisFlag.OUT_OF_RANGE: "a value fell outside its column's range and was set to null",
    AvisFlag.NOT_PLACED: "the atlas is of objects of which other sides were seen, such as spectrum and image "
    "where this one has a spectrum alone: all of its columns are null",
}
"""One sentence per bit."""


def _embedding(name: str, of: str) -> Column:
    what = f"embedding of {of}, a vector of length 1; NaN where there is none"
    return vector(name, pa.float32(), EMBEDDING_SIZE, "", "stat.fit.param", what)


def _place(name: str, axis: str, dimensions: int) -> Column:
    return number(name, "", f"pos.cartesian.{axis}", f"place on the {dimensions}-D map along {axis}")


_COLUMNS: tuple[Column, ...] = (
    _embedding("avis_embedding", "spectrum and image together"),
    _embedding("avis_embedding_image", "the image"),
    _embedding("avis_embedding_spectrum", "the spectrum"),
    Column(
        "cluster",
        pa.int32(),
        "",
        "meta.id",
        f"number of the cluster in the atlas; {UNCLUSTERED} for none",
        nullable=False,
        minimum=UNCLUSTERED,
    ),
    number(
        "cluster_prob",
        "",
        "stat.probability",
        "strength of the membership: share of the cluster among the neighbours in the atlas, each "
        "counted with its own membership; 0 for none",
        0.0,
        1.0,
    ),
    number(
        "z_nn",
        "",
        "src.redshift",
        "median redshift of the nearest neighbours in the atlas, the object itself not among them; that "
        "of stars is near 0",
        -0.1,
        2 * Z_MAX,
    ),
    number(
        "z_nn_err",
        "",
        "stat.error;src.redshift",
        "scatter of these redshifts: half of their central 68.3 %",
        0.0,
    ),
    number(
        "avis_novelty",
        "",
        "stat.rank",
        "share of the atlas' objects that are nearer to their neighbours in the atlas",
        0.0,
        1.0,
    ),
    *(_place(f"map_{axis}", axis, 2) for axis in "xy"),
    *(_place(f"map3_{axis}", axis, 3) for axis in "xyz"),
    flags("avis"),
)

AVIS = Contract(
    name="avis",
    version="2.0.0",
    title="AVIS",
    description=(
        "One row per row of the spectra catalogue, in a partition of the same name, whatever is wrong with "
        "spectrum or image; `avis_flags` says what is. Embeddings were learned without labels. Cluster, "
        "redshift of the nearest neighbours, novelty and places on the maps come from one atlas, which was "
        "fitted once on a sample, so that they do not depend on which other rows there are; they are null "
        f"(cluster {UNCLUSTERED}) where there is no joint embedding, where an object lacks the image or the "
        "spectrum that the atlas' objects have, and everywhere in a run without an atlas."
    ),
    columns=(
        *SPECTRA_KEYS,
        *_COLUMNS,
    ),
    flag_meanings=FLAG_MEANINGS,
    column_names=without_prefix("avis_", _COLUMNS),
)
"""The catalogue of joint embeddings and their places in the atlas."""
