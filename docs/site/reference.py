"""Pages of the reference that are made from the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.data_model import CONTRACTS, page
from ojala.catalogs_schema.errors import ExitCode
from ojala.flows.cli.app import app, load
from ojala.flows.cli.commands import COMMANDS
from ojala.flows.cli.errors import Panel
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.gates import GATES, GateLimits
from ojala.pipeline.runs.publication import PublicationInfo

ROOT = Path(__file__).resolve().parents[2]

MADE = {
    "physical-quantities.md#cosmology-and-populations": r"log_mass|log_sfr|log_sfr_halpha",
    "physical-quantities.md#lines": r"(ew|f|cont)_.*|ha_hb_ratio|log_l_halpha_corr",
    "physical-quantities.md#bpt-classes": r"bpt_class",
    "physical-quantities.md#whan-classes": r"whan_class",
    "physical-quantities.md#stars-and-quasars": r"teff|logg|fe_h|alpha_fe|log_mbh",
    "probabilities-and-errors.md#class-probabilities": r"ojala_class|p_(galaxy|star|qso)",
    "probabilities-and-errors.md#redshift-densities": r"z|z_(q\d\d|odds|mode2|mode2_p|(gal|qso)(_pdf.*)?)",
    "probabilities-and-errors.md#flags-and-novelty": r"novelty|ojala_flags",
    "how-ojala-works.md#the-encoder-compares-bands": r"embedding",
    "how-ojala-works.md#the-decoder-answers-requests": r"pred_flux_.*|n?_?chi2_bands|worst_band.*",
}
"""Explanations of how columns of OJALA are made, by a pattern of their names without `_err`."""


def pages() -> Iterator[tuple[str, str]]:
    """Names and texts of the pages."""
    yield "reference/command-line.md", command_line()
    yield "reference/data-model.md", data_model()
    yield "reference/flags.md", flags()
    yield "reference/configuration.md", configuration()
    yield "reference/gates.md", gates()
    yield "reference/errors.md", errors()
    yield "reference/models.md", models()


def command_line() -> str:
    """Every command with its options, in the groups of ``ojala --help``."""
    root = typer.main.get_command(app)
    parts = [f"# Command line\n\n{root.help}\n\n" + _options(root)]
    groups: dict[str, list[Any]] = {panel.value: [] for panel in Panel}
    for name, entry in COMMANDS.items():
        groups[entry.panel.value].append(load(name))
    for name, commands in groups.items():
        parts.append(f"## {name}\n")
        for command in commands:
            parts += _command(command, f"ojala {command.name}")
    return "\n".join(parts)


def _command(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for inner in command.commands.values():
            yield from _command(inner, f"{name} {inner.name}")
        return
    arguments = [one.display_name_raw for one in command.params if one.param_type_name == "argument"]
    needed = [
        f"{one.opts[0]} {_type(one)}"
        for one in command.params
        if one.param_type_name == "option" and one.required
    ]
    usage = " ".join([name, *arguments, *needed, "[OPTIONS]"])
    text = " ".join(line.strip() or "\n\n" for line in (command.help or "").splitlines())
    yield f"### {name}\n\n{text}\n\n```text\n{usage}\n```\n\n{_options(command)}"


def _options(command: Any) -> str:
    rows = []
    for one in command.params:
        argument = one.param_type_name == "argument"
        names = one.display_name_raw if argument else ", ".join([*one.opts, *one.secondary_opts])
        kind = "" if getattr(one, "is_flag", False) or argument else f" {_type(one)}"
        default = one.default
        if one.required:
            shown = "needed"
        elif default in (None, False, "", (), []) or callable(default) or getattr(one, "count", False):
            shown = ""
        else:
            shown = f"`{getattr(default, 'value', default)}`"
        rows.append((f"`{names}{kind}`", (one.help or "") + _choices(one), shown))
    return _table(("option", "meaning", "default"), rows) if rows else ""


def _choices(option: Any) -> str:
    annotation = option.type_descriptor.annotation
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " Choices: " + ", ".join(f"`{one.value}`" for one in annotation) + "."
    return ""


def _type(option: Any) -> str:
    return str(option.metavar or option.opts[0].lstrip("-").replace("-", "_").upper())


def data_model() -> str:
    """Every product with an anchor for each column, as PRODUCT.COLUMN."""
    made = [_contract(contract) for contract in CONTRACTS]
    text = page()
    rest = text[text.index("## Receipt (") :]
    head = (
        "# Data model\n\nEvery column of every product. The address of a column is `#PRODUCT.COLUMN`, as in "
        "[`#ojala.z`](#ojala.z). Versions are semantic: the major number changes when a reader can break. "
        "Null means not observed, not applicable or not predicted. Bits of flag columns are in "
        "[Flags](flags.md); cosmology, initial mass function and definitions in "
        "[Physical quantities](../explanation/physical-quantities.md).\n"
    )
    listing = _table(
        ("product", "content", "columns", "version"),
        (
            (f"[`{one.name}`](#{one.name})", one.title, str(len(one.columns)), one.version)
            for one in CONTRACTS
        ),
    )
    return "\n".join([head, listing, *made, rest])


def _contract(contract: Contract) -> str:
    head = f"## {contract.title} {{ #{contract.name} }}\n\n`{contract.name}` {contract.version}. "
    rows = []
    for column in contract:
        anchor = f'<a id="{contract.name}.{column.name}"></a>'
        rows.append(
            (
                f"{anchor}`{column.name}`",
                column.description + _how_made(contract, column),
                column.unit or "-",
                _range(column),
                f"{column.type}{', null' if column.nullable else ''}",
                f"`{column.ucd}`",
            )
        )
    table = _table(("column", "meaning", "unit", "range", "type", "UCD"), rows)
    return f"{head}{contract.description}\n\n{table}"


def _how_made(contract: Contract, column: Column) -> str:
    if contract.name in ("ojala", "ojala_vectors", "ojala_bands"):
        for place, pattern in MADE.items():
            if re.fullmatch(f"({pattern})(_err)?", column.name):
                return f" ([how](../explanation/{place}))"
    return ""


def _range(column: Column) -> str:
    if column.allowed:
        return ", ".join(column.allowed)
    return "-" if column.minimum is None and column.maximum is None else column.range_text


def flags() -> str:
    """The bits of every flag column."""
    parts = [
        "# Flags\n\nA flag column is a bit mask: the sum of the values of all bits that are set. Zero means "
        "nothing to remark. A row has bit 128 if `ojala_flags & 128` is not zero.\n"
    ]
    for contract in CONTRACTS:
        if contract.flag_meanings:
            rows = [
                (f'<a id="{contract.name}.{flag.name}"></a>`{flag.name}`', str(int(flag)), text)
                for flag, text in contract.flag_meanings.items()
            ]
            parts.append(
                f"## {contract.title} {{ #{contract.name} }}\n\n" + _table(("flag", "value", "meaning"), rows)
            )
    return "\n".join(parts)


def configuration() -> str:
    """The settings of a run, and the limits of the gates."""
    own = _fields(RunConfig, skip=("gates", "publication"))
    limits, citation = _fields(GateLimits), _fields(PublicationInfo)
    return f"""# Configuration

`ojala run --config FILE` and `ojala plan --config FILE` read a TOML file with these names; the option of the
same name overrides it, and an unknown name is refused. From Python they are the arguments of `ojala.run`.

```toml
photometry = "photometry"
out = "catalogue"
vectors = true

[gates]
flags_fail = 0.5
```

## Settings

{own}
## Limits of the quality gates

In the section `[gates]`. A gate warns above its `_warn` and fails above its `_fail`; a gate that fails keeps
the run from being published. What each gate checks is in [Quality gates](gates.md).

{limits}

## Citation and licence

In the section `[publication]`; how they are used is in [Releases for other people](../releases.md).

{citation}"""


def _fields(model: type[BaseModel], skip: Iterable[str] = ()) -> str:
    rows = []
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        value = field.default
        if field.default_factory is not None:
            default = "number of cores" if name == "workers" else ""
        elif value is PydanticUndefined:
            default = "needed"
        else:
            shown = "false" if value is False else value
            default = "" if value in (None, "", ()) else f"`{shown}`"
        text = field.description or ""
        if "default: " in text:
            default = ""
        rows.append((f'<a id="{name}"></a>`{name}`', text, default))
    return _table(("setting", "meaning", "default"), rows)


def gates() -> str:
    """The quality gates with what they check and their default limits."""
    rows = []
    for name, gate in GATES.items():
        check = (gate.check.__doc__ or "").splitlines()[0]
        limits = f"{gate.warn:g}, {gate.fail:g}" if gate.measure else "-"
        rows.append(
            (
                f'<a id="{name}"></a>`{name}`',
                check,
                gate.measure or "-",
                limits,
                "yes" if gate.compares else "no",
            )
        )
    table = _table(("gate", "passes if", "measured", "warns above, fails above", "against the release"), rows)
    return f"""# Quality gates

Every run is checked before it is published, in this order. The results are in `gates.json` of the run and in
its report. A gate that fails keeps the run from being published; `ojala publish RUN --out OUT --force-gate
NAME` publishes it nevertheless, and the record says so. The limits are [settings](configuration.md). Gates
that compare look only at partitions that were computed anew, and at changes larger than chance makes them.

{table}"""


def errors() -> str:
    """Exit codes, and the errors of the package that end with them."""
    codes = _table(("exit code", "meaning"), ((str(int(one)), one.meaning) for one in ExitCode))
    rows = _table(("error", "exit code", "meaning"), _error_classes())
    return f"""# Errors and exit codes

A message says what happened, why, and what to do. It goes to stderr. With `--json` stdout holds it too, as
`{{"error": {{"exit_code": 3, "meaning": ..., "kind": "CatalogueError", "message": ...}}}}`.

{codes}
A scheduler can repeat the command after 4, 6, 7 and 130; after 1, 2, 3 and 5 somebody has to look; 70 is a
fault of the program: report it with its traceback.

## Errors in Python

All derive from `ojala.catalogs_schema.errors.OjalaError`, whose attribute `exit_code` is the code above.

{rows}"""


def _error_classes() -> Iterator[tuple[str, str, str]]:
    """Name, exit code and meaning of each error that derives from `OjalaError`, read from the sources."""
    found: dict[str, tuple[list[str], str, str | None]] = {}
    for folder in ("catalogs_schema", "models", "pipeline", "flows"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                    doc = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
                    found[node.name] = (bases, doc, _exit_code(node))
    known = {"OjalaError": found["OjalaError"][2]}
    while more := {
        name: code or next(known[base] for base in bases if base in known)
        for name, (bases, _, code) in found.items()
        if name not in known and any(base in known for base in bases)
    }:
        known |= more
    for name, code in sorted(known.items()):
        yield f"`{name}`", str(int(ExitCode[code or "FAILED"])), found[name][1]


def _exit_code(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        target = getattr(statement, "target", None) or next(iter(getattr(statement, "targets", [])), None)
        value = getattr(statement, "value", None)
        if getattr(target, "id", "") == "exit_code" and isinstance(value, ast.Attribute):
            return value.attr
    return None


def models() -> str:
    """The models with their inputs, products and cards."""
    rows = []
    for name, adapter in ADAPTERS.items():
        card = ROOT / "models" / "weights" / f"{Path(adapter.weights).stem}.md" if adapter.weights else None
        shown = f"[card](../../models/weights/{card.name})" if card and card.is_file() else "-"
        products = ", ".join(map(_product, adapter.product_names))
        rows.append((f"`{name}`", adapter.description, adapter.reads.name, products, shown))
    table = _table(("model", "predicts", "reads", "products", "weights"), rows)
    return f"""# Models

`ojala run --model NAME`. A model card says how the weights were trained, how accurate they are and when not
to trust them.

{table}
The head of black-hole masses has a card of its own: [log_mbh](../../models/weights/ojala-base-log_mbh.md).
The published OJALÁ has [a page](../published-ojala.md).
"""


def _product(name: str) -> str:
    known = any(contract.name == name for contract in CONTRACTS)
    return f"[`{name}`](data-model.md#{name})" if known else f"`{name}`"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines) + "\n"
