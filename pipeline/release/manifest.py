"""Manifest of an exported release: its parts and their folders."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from ojala.catalogs_schema.errors import InputError

RELEASE = "release.json"
"""Name of the file in the root of an exported release."""

PROVENANCE = "provenance"
"""Folder with the record, the receipts and the provenance of each run."""


class ReleasedProduct(BaseModel):
    """A product of an exported release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(description="run that made it")
    contract: str = Field(description="version of its contract")
    catalogue: str = Field(description="path of its catalogue")
    rows: int = Field(description="rows")


class ReleaseManifest(BaseModel):
    """Content of an exported release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="name of the release; that of the run where it has none")
    made: str = Field(description="UTC time of the export")
    reads: str = Field(description="kind of the input catalogue: photometry or spectra")
    source: str = Field(description="path of the input catalogue, or the address that it is referred to by")
    included: bool = Field(description="whether the input catalogue is part of the release")
    products: dict[str, ReleasedProduct] = Field(description="products by name")
    samples: dict[str, int] = Field(default={}, description="rows of the clean samples, by their folder")


def read_manifest(root: UPath) -> ReleaseManifest:
    """The manifest of an exported release.

    Raises
    ------
    InputError
        If it cannot be read; says where.
    """
    try:
        return ReleaseManifest.model_validate_json((root / RELEASE).read_bytes())
    except ValidationError as problem:
        raise InputError(
            f"{root / RELEASE} cannot be read: {problem.errors()[0]['msg']}; export the release again"
        ) from problem
