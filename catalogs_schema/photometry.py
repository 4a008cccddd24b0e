"""Contract of the photometric catalogue, the input of a survey."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from ojala.catalogs_schema.bands import BANDS, KRON_BAND, Band, System
from ojala.catalogs_schema.contract import NONE, Column, Contract

MORPH_TYPES: tuple[str, ...] = (NONE, "PSF", "REX", "EXP", "DEV", "SER", "COMP", "SIMP", "DUP")
"""Tractor's morphological types."""

KEY_SHIFT = 32
"""``object_id = tile_id << 32 | number``: one integer for the survey's two-part key."""

_EM_WORD = {System.JPAS: "em.opt", System.LEGACY: "em.opt", System.WISE: "em.IR"}

KEY_COLUMNS: tuple[Column, ...] = (
    Column(
        "_healpix_29",
        pa.int64(),
        "",
        "pos.healpix",
        "HEALPix pixel (nested) of order 29; rows are sorted by it",
        nullable=False,
        minimum=0,
    ),
    Column(
        "object_id",
        pa.int64(),
        "",
        "meta.id;meta.main",
        "key of the object in one number: tile_id * 2**32 + number",
        nullable=False,
        minimum=0,
    ),
    Column(
        "tile_id", pa.int32(), "", "meta.id;meta.dataset", "tile of the survey", nullable=False, minimum=0
    ),
    Column("number", pa.int32(), "", "meta.number", "object's number in its tile", nullable=False, minimum=0),
    Column(
        "ra",
        pa.float64(),
        "deg",
        "pos.eq.ra;meta.main",
        "right ascension (ICRS)",
        nullable=False,
        minimum=0.0,
        maximum=360.0,
    ),
    Column(
        "dec",
        pa.float64(),
        "deg",
        "pos.eq.dec;meta.main",
        "declination (ICRS)",
        nullable=False,
        minimum=-90.0,
        maximum=90.0,
    ),
)
"""Key and position, shared by the photometry and all products made from it."""


def _flux_columns(band: Band) -> tuple[Column, Column]:
    em = _EM_WORD[band.system]
    return (
        Column(
            band.flux_column,
            pa.float32(),
            "uJy",
            f"phot.flux.density;{em}",
            f"flux density f_nu (AB) in {band.system} {band.name}; null where not observed",
        ),
        Column(
            band.error_column,
            pa.float32(),
            "uJy",
            f"stat.error;phot.flux.density;{em}",
            f"standard error of {band.flux_column}",
        ),
    )


_KRON, _KRON_ERROR = _flux_columns(KRON_BAND)

PHOTOMETRY = Contract(
    name="photometry",
    version="1.1.0",
    title="Photometry",
    description=(
        "One row is one object of the survey's dual-mode catalogue with its flux densities, not corrected "
        "for Galactic extinction. Values are kept as they were measured, also where they are absurd; a "
        "reader decides what is usable."
    ),
    columns=(
        *KEY_COLUMNS,
        Column("ebv", pa.float32(), "mag", "phot.color.excess", "Galactic colour excess E(B-V), SFD98 scale"),
        Column(
            "morph_type",
            pa.string(),
            "",
            "src.morph.type",
            "morphological type of Tractor (Legacy Survey); NONE where not known",
            nullable=False,
            allowed=MORPH_TYPES,
        ),
        Column("flags", pa.int32(), "", "meta.code.qual", "SExtractor flags of the detection band"),
        Column("mask_flags", pa.int32(), "", "meta.code.qual", "mask flags of the survey; 0 is unmasked"),
        *(column for band in BANDS for column in _flux_columns(band)),
        replace(
            _KRON,
            description="flux density f_nu (AB) in J-PAS iSDSS within the Kron aperture (AUTO), which "
            "scales line fluxes; null where not measured",
        ),
        _KRON_ERROR,
    ),
)
"""Photometry of a survey, one scalar column per band."""

LATER_COLUMNS: tuple[str, ...] = (_KRON.name, _KRON_ERROR.name)
"""Columns that catalogues of the contract 1.0 do not have; they are nullable, and nothing else needs them."""
