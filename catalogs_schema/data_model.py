"""The data-model page, made from the contracts: ``python -m ojala.catalogs_schema.data_model > FILE``."""

from __future__ import annotations

from collections.abc import Iterable

from ojala.catalogs_schema.avis import AVIS
from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.cutouts import CUTOUTS
from ojala.catalogs_schema.ojala import OJALA, OJALA_BANDS, OJALA_VECTORS, PUBLISHED_NAMES
from ojala.catalogs_schema.ojala_published import OJALA_PUBLISHED
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.catalogs_schema.receipt import RECEIPT_VERSION, Receipt
from ojala.catalogs_schema.specpt import SPECPT, SPECPT_SPECTRA
from ojala.catalogs_schema.spectra import SPECTRA
from ojala.catalogs_schema.spectral_tokenizer import SPECTRAL_TOKENIZER

CONTRACTS: tuple[Contract, ...] = (
    PHOTOMETRY,
    OJALA,
    OJALA_VECTORS,
    OJALA_BANDS,
    OJALA_PUBLISHED,
    SPECTRA,
    SPECPT,
    SPECPT_SPECTRA,
    SPECTRAL_TOKENIZER,
    CUTOUTS,
    AVIS,
)
"""Every contract, in the order of the page."""


def page() -> str:
    """The data-model page as Markdown."""
    parts = [
        "# Data model\n\nMade from the contracts in `catalogs_schema` by `make data-model`; do not edit by "
        "hand. Versions are semantic: the major number changes when a reader can break.\n"
    ]
    parts += [_section(contract) for contract in CONTRACTS]
    parts += [_flags(contract) for contract in CONTRACTS if contract.flag_meanings]
    parts.append(_renamed())
    parts.append(_receipt())
    parts.append(_published())
    return "\n".join(parts)


def _section(contract: Contract) -> str:
    head = f"## {contract.title} (`{contract.name}` {contract.version})\n\n{contract.description}\n"
    rows = [
        (
            f"`{c.name}`",
            str(c.type),
            c.unit or "-",
            f"`{c.ucd}`",
            _range(c),
            "yes" if c.nullable else "no",
            c.description,
        )
        for c in contract
    ]
    return head + "\n" + _table(("column", "type", "unit", "UCD", "range", "null", "meaning"), rows)


def _range(column: Column) -> str:
    if column.allowed:
        return ", ".join(column.allowed)
    if column.minimum is None and column.maximum is None:
        return "-"
    return column.range_text


def _flags(contract: Contract) -> str:
    rows = [(f"{int(flag)}", f"`{flag.name}`", text) for flag, text in contract.flag_meanings.items()]
    head = f"## Flags of {contract.name}\n\nA bit mask; zero means nothing to remark.\n"
    return head + "\n" + _table(("value", "name", "meaning"), rows)


def _receipt() -> str:
    head = (
        f"## Receipt ({RECEIPT_VERSION})\n\n"
        "One JSON file per partition under `receipts/` of a run; `provenance/partitions.parquet` holds "
        "them folded together.\n"
    )
    rows = [(f"`{name}`", field.description or "") for name, field in Receipt.model_fields.items()]
    return head + "\n" + _table(("field", "meaning"), rows)


def _renamed() -> str:
    head = (
        "## Names of contract 1\n\nContract 2.0 gave those columns of the products new names that a reader "
        "could trip over: names that the photometry, the spectra or another product also has (`flags`, `z`, "
        "`snr`), and attributes of data frames or words of a language (`flags`, `class`). Catalogues of "
        "contract 1 keep their names; they still open, verify and export.\n"
    )
    rows = [
        (f"`{contract.name}`", f"`{old}`", f"`{new}`")
        for contract in CONTRACTS
        if contract is not OJALA_PUBLISHED
        for old, new in contract.column_names.items()
    ]
    rows.append((f"`{OJALA_PUBLISHED.name}`", "`flags`", f"`{OJALA_PUBLISHED.name_of('flags')}`"))
    return head + "\n" + _table(("product", "contract 1", "contract 2"), rows)


def _published() -> str:
    head = (
        "## Names in the published OJALÁ catalogue\n\nThe catalogue published with arXiv:2604.00661 uses "
        "other names. Its `_ERR` of quantities other than redshift is the scale of a Student-t "
        "distribution with three degrees of freedom; ours is 1.197 times the scale, the half-width of "
        "the central 68.3 % interval. Its `L_HALPHA_CORR` is in erg/s, ours the logarithm; its quantities "
        "are given for every object, ours where the probability of their class is at least 0.01. The product "
        "`ojala_published` has the published columns under their names; `ojala export csv --published` "
        "writes the published file.\n"
    )
    rows = [(f"`{theirs}`", f"`{ours}`") for theirs, ours in PUBLISHED_NAMES.items()]
    return head + "\n" + _table(("published", "here"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
