"""A published release as its readers see it: input catalogue, products, contracts, records of their runs."""

from __future__ import annotations

import os
from dataclasses import dataclass

from upath import UPath

from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.data_model import CONTRACTS
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import CLASSES
from ojala.pipeline.runs.record import RECORD, RunRecord, read_record
from ojala.pipeline.storage.files import is_local
from ojala.pipeline.storage.hats import read_schema
from ojala.pipeline.storage.properties import COLLECTION, JOINED, PRIMARY, read_extensions, read_properties


@dataclass(frozen=True, slots=True)
class Product:
    """A catalogue of a release.

    Attributes
    ----------
    name : str
        Name of the product.
    root : UPath
        Root of its catalogue.
    contract : Contract
        Its contract.
    record : RunRecord or None
        Run that made it; None for the input, and where the record did not travel with the catalogue.
    """

    name: str
    root: UPath
    contract: Contract
    record: RunRecord | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """What a collection publishes.

    Attributes
    ----------
    root : UPath
        Root of the collection.
    source : Product
        The input catalogue: photometry or spectra.
    products : tuple of Product
        Published products; those of one run follow each other, the main one first.
    """

    root: UPath
    source: Product
    products: tuple[Product, ...]

    @property
    def main(self) -> Product:
        """The product whose columns describe an object best: the first with a class, else the first."""
        return next((one for one in self.products if class_column(one.contract)), self.products[0])

    @property
    def embedded(self) -> Product:
        """The first product with embeddings.

        Raises
        ------
        InputError
            If none has.
        """
        for one in self.products:
            if any("embedding" in column.name for column in one.contract):
                return one
        raise InputError(
            f"{self.root} publishes no embeddings: `ojala run --vectors` keeps those of OJALA, and "
            "the models spectral_tokenizer and avis always do"
        )

    @property
    def cutouts(self) -> UPath | None:
        """Cut-outs that a run read beside the input; None where there are none."""
        paths = (one.record.auxiliary for one in self.products if one.record)
        found = next((UPath(path) for path in paths if path), None)
        return found if found is not None and (found / "hats.properties").exists() else None

    def product(self, name: str) -> Product:
        """A published product.

        Raises
        ------
        InputError
            If the release has none of that name; names those that it has.
        """
        for one in self.products:
            if one.name == name:
                return one
        there = ", ".join(one.name for one in self.products)
        raise InputError(f"{self.root} publishes no {name}: it has {there}")


def read_release(root: UPath) -> Release:
    """Read what a collection publishes.

    Parameters
    ----------
    root : UPath
        Root of a HATS collection: the ``OUT`` of ``ojala run``, or an exported release.

    Raises
    ------
    InputError
        If it is no collection, publishes nothing, or its input catalogue is not there.
    """
    path = root / COLLECTION
    if not path.exists():
        raise InputError(
            f"{root} is no HATS collection: it has no {COLLECTION}. Name the folder that `ojala run --out` "
            "or `ojala export release --to` wrote"
        )
    named = read_extensions(path)
    if not named:
        raise InputError(f"{root} publishes nothing: `ojala publish RUN --out {root}` publishes a run")
    products = [_product(name, _extension(root, file)) for name, file in named.items()]
    products = [one for one in products if one is not None]
    source = _catalogue(root, read_properties(path, PRIMARY)[PRIMARY])
    if not (source / "hats.properties").exists():
        raise InputError(
            f"{source}, the input catalogue of {root}, is not there: copy it beside the collection, or "
            "export the release with its input"
        )
    order = {name: i for one in products if one and one.record for i, name in enumerate(one.record.products)}
    ranked = sorted((one for one in products if one), key=lambda one: (order.get(one.name, 99), one.name))
    return Release(root, Product(source.name, source, _source_contract(source)), tuple(ranked))


def class_column(contract: Contract) -> Column | None:
    """Column of the most probable class; None where a contract has none."""
    return next((column for column in contract if set(CLASSES) <= set(column.allowed)), None)


def flags_column(contract: Contract) -> Column | None:
    """Column of the flags whose bits the contract explains; None where it explains none."""
    if not contract.flag_meanings:
        return None
    return next(
        (column for column in contract if column.ucd == "meta.code.qual" and not column.nullable), None
    )


def _extension(root: UPath, file: str) -> UPath:
    return _catalogue((root / file).parent, read_properties(root / file, JOINED)[JOINED])


def _catalogue(folder: UPath, reference: str) -> UPath:
    """Catalogue that a reference names; where that is a collection, its primary catalogue."""
    path = UPath(reference)
    if "://" not in reference and not path.is_absolute():
        path = UPath(os.path.normpath((folder / reference).path)) if is_local(folder) else folder / reference
    if (path / COLLECTION).exists() and not (path / "hats.properties").exists():
        return _catalogue(path, read_properties(path / COLLECTION, PRIMARY)[PRIMARY])
    return path


def _product(name: str, root: UPath) -> Product | None:
    folder = root.parent
    if (folder / RECORD).exists():
        record = read_record(folder)
        return Product(name, root, record.contract(name), record)
    contract = next((one for one in CONTRACTS if one.name == name), None)
    return None if contract is None else Product(name, root, contract)


def _source_contract(root: UPath) -> Contract:
    names = set(read_schema(root).names)
    for contract in CONTRACTS:
        if contract.name in ("photometry", "spectra"):
            required = {column.name for column in contract if not column.nullable}
            if required <= names:
                return contract
    raise InputError(f"{root} is no catalogue of photometry or spectra: it lacks their columns")
