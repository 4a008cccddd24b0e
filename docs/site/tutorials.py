"""Tutorials: Markdown files whose Python blocks are executed as notebooks when the site is built.

All share one kernel, so that modules are imported once; its variables are cleared between them. The folder in
which they run holds ``demo-output``, as ``make demo`` writes it, with part of the bundled patch of sky.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import jupytext
import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "tutorials"
FOLDER = "tutorials/"
ALSO = ("how-to/choose-cuts.md",)
"""Pages elsewhere whose code is executed, too."""

SECONDS = 300
"""Longest that a cell may take [s]."""

log = logging.getLogger("mkdocs.tutorials")

DEMO = """
import os, shutil
import pandas as pd, pyarrow.parquet as pq
import ojala
from ojala.flows.demo.run import PATCH

os.makedirs("demo-output", exist_ok=True)
mock = pd.read_parquet(PATCH / "mock_sky_truth.parquet")
mock = mock.iloc[::3]
table = pq.read_table(PATCH / "mock_sky.parquet").take(mock.index.to_numpy())
pq.write_table(table, "demo-output/mock_sky.parquet")
real = pd.read_csv(PATCH / "real_objects_truth.csv").assign(sample="real objects")
pd.concat([real, mock.assign(sample="mock sky")]).to_parquet("demo-output/truth.parquet", index=False)
shutil.copy(PATCH / "real_objects.csv", "demo-output")
ojala.ingest(
    ["demo-output/real_objects.csv", "demo-output/mock_sky.parquet"], "demo-output/photometry", tile_rows=500
)
ojala.run("demo-output/catalogue", photometry="demo-output/photometry", engine="serial", vectors=True)
"""
"""Makes the catalogue that tutorials read: the 300 real objects and every third mock object."""

CLEAR = "%reset -f\nimport matplotlib.pyplot as plt; plt.close('all')"


def is_tutorial(uri: str) -> bool:
    """Whether the code of a page is executed."""
    return uri in ALSO or (uri.startswith(FOLDER) and uri.endswith(".md") and not uri.endswith("index.md"))


def execute(uris: Sequence[str]) -> Iterator[tuple[str, str | bytes]]:
    """Execute tutorials and return their pages, pictures and notebooks by their names in the site.

    A tutorial that ran before with the same text and the same code is not executed again.

    Raises
    ------
    RuntimeError
        If a cell fails; names tutorial and cell.
    """
    code = _hash_of_code()
    kernel: KernelManager | None = None
    try:
        for uri in uris:
            source = (ROOT / "docs" / uri).read_text()
            notebook = jupytext.reads(source, fmt="md")
            key = hashlib.sha256((code + source).encode()).hexdigest()
            kept = WORK / "executed" / f"{Path(uri).stem}-{key[:16]}.ipynb"
            if kept.exists():
                notebook = nbformat.read(kept, as_version=4)
            else:
                kernel = kernel or _start(code)
                log.info("Executing %s", uri)
                _run(notebook, kernel, uri)
                kept.parent.mkdir(parents=True, exist_ok=True)
                nbformat.write(notebook, kept)
            yield from _page(notebook, uri)
    finally:
        if kernel is not None:
            kernel.shutdown_kernel(now=True)


def _hash_of_code() -> str:
    files = sorted(
        path
        for folder in ("catalogs_schema", "models", "pipeline", "flows", "src/ojala")
        for path in (ROOT / folder).rglob("*.py")
    )
    return hashlib.sha256(DEMO.encode() + b"".join(path.read_bytes() for path in files)).hexdigest()


def _start(code: str) -> KernelManager:
    """A kernel in a folder with the demo's catalogue, which is made where the code has changed."""
    work = WORK / f"work-{code[:16]}"
    for old in set(WORK.glob("work-*")) - {work}:
        shutil.rmtree(old)
    work.mkdir(parents=True, exist_ok=True)
    kernel = KernelManager(
        kernel_name="python3", transport="ipc", connection_file=str(Path(mkdtemp()) / "kernel.json")
    )
    kernel.start_kernel(cwd=str(work))
    if not (work / "demo-output/catalogue/published.json").exists():
        log.info("Making the catalogue of the tutorials")
        cell = nbformat.v4.new_code_cell(DEMO)
        _run(nbformat.v4.new_notebook(cells=[cell]), kernel, "the catalogue of the tutorials")
    return kernel


def _run(notebook: Any, kernel: KernelManager, name: str) -> None:
    first = nbformat.v4.new_code_cell(CLEAR)
    cells = notebook.cells
    notebook.cells = [first, *cells]
    try:
        NotebookClient(notebook, timeout=SECONDS, startup_timeout=SECONDS, km=kernel).execute(reset_kc=True)
    except CellExecutionError as problem:
        raise RuntimeError(f"{name}: {problem}") from problem
    finally:
        notebook.cells = cells
    for cell in cells:  # without progress bars, and warnings with paths of this machine
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]


def _page(notebook: Any, uri: str) -> Iterator[tuple[str, str | bytes]]:
    """The page of an executed notebook, its pictures, and the notebook."""
    stem, folder = Path(uri).stem, uri.rpartition("/")[0]
    title, *cells = notebook.cells
    head, _, rest = title.source.partition("\n")
    parts = [
        head,
        f"*A notebook: [{stem}.ipynb]({stem}.ipynb). Its output was made when this page was built, from the "
        "300 real and 2,000 of the 6,000 mock objects of the demo.*",
        rest,
    ]
    pictures = 0
    for cell in cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                pictures += 1
                name = f"{stem}-{pictures}.png"
                yield f"{folder}/{name}", base64.b64decode(data["image/png"])
                parts.append(f"![Figure {pictures}]({name}){{ .figure }}")
            elif "text/html" in data:
                parts.append(f'<div class="output" markdown="0">{_compact(data["text/html"])}</div>')
            else:
                text = output.get("text") or data.get("text/plain", "")
                parts.append(f"```{{ .text .output }}\n{text.rstrip()}\n```")
    yield uri, "\n\n".join(parts)
    yield f"{folder}/{stem}.ipynb", nbformat.writes(notebook)


def _compact(html: str) -> str:
    """HTML without the style sheet that pandas puts before each table and without blank lines."""
    html = html.replace("\n", " ")
    start, end = html.find("<style"), html.find("</style>")
    return html if start < 0 else html[:start] + html[end + len("</style>") :]
