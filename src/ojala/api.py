"""Functions for scripts and notebooks; each imports its dependencies when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow as pa

    from ojala.pipeline.ingest.photometry import IngestSummary
    from ojala.pipeline.quality.validation.result import Validation
    from ojala.pipeline.runs.config import RunConfig
    from ojala.pipeline.runs.plan import Plan
    from ojala.pipeline.runs.record import RunRecord

Location = str | os.PathLike[str]
"""Path on this machine, or URL of an object store (``s3://BUCKET/...``)."""


def open_catalog(
    path: Location, product: str | None = None, *, engine: Literal["lsdb", "pyarrow"] | None = None
) -> Any:  # noqa: ANN401 - a catalogue of lsdb, which may not be installed, or a dataset
    """Open the published run of a collection.

    Parameters
    ----------
    path : str or path
        Collection, as given to `run`.
    product : str, optional
        Product to open, such as ``ojala`` or ``ojala_vectors``; default: the main product of the published
        run, where the collection has only one.
    engine : str, optional
        ``lsdb`` or ``pyarrow``; default: lsdb where it is installed.

    Returns
    -------
    lsdb.catalog.Catalog or pyarrow.dataset.Dataset
        With lsdb the product joined with its input catalogue, row by row; with pyarrow the rows of the
        product alone.

    Raises
    ------
    ojala.pipeline.runs.releases.ReleaseError
        If nothing is published, there is no such product, or the collection has several main products.

    Examples
    --------
    >>> ojala.open_catalog("catalogue").query("z > 2").compute()
    >>> ojala.open_catalog("catalogue", engine="pyarrow").to_table(columns=["object_id", "z"])
    """
    from importlib.util import find_spec

    from upath import UPath

    from ojala.pipeline.runs.record import read_record, run_folder
    from ojala.pipeline.runs.releases import ReleaseError, pointers

    out = UPath(path)
    published = pointers(out)
    if not published:
        raise ReleaseError(f"{out} has no published run: `ojala publish RUN --out {out}` publishes one")
    if product is None:
        mains = sorted({read_record(run_folder(out, run_id)).main for run_id in published.values()})
        if len(mains) > 1:
            raise ReleaseError(f"{out} has several products: give one of {', '.join(mains)}")
        product = mains[0]
    if product not in published:
        raise ReleaseError(f"{out} has no product {product!r}: choose from {', '.join(sorted(published))}")
    if engine == "lsdb" or (engine is None and find_spec("lsdb")):
        from lsdb.loaders.hats.read_hats import open_catalog as open_hats

        return open_hats(str(out)).load_extension(product, columns="all")
    import pyarrow.dataset as ds

    leaves = run_folder(out, published[product]) / product / "dataset"
    # pyarrow skips files with a leading underscore, which are metadata.
    return ds.dataset(leaves.path, format="parquet", filesystem=leaves.fs)


def ingest(
    files: Location | Sequence[Location],
    out: Location,
    *,
    tile_rows: int | None = None,
    aperture: str | None = None,
    units: Literal["fnu", "flambda"] | None = None,
    ignore: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    engine: str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    scratch: Location | None = None,
) -> IngestSummary:
    """Make a photometry catalogue (HATS) from the files of a survey.

    Parameters
    ----------
    files : path or sequence of paths
        Parquet, CSV (also ECSV and other tables of text), FITS or VOTable.
    out : path
        Folder of the catalogue; new or empty.
    tile_rows : int, optional
        Most rows of a partition; default: 100,000.
    aperture : str, optional
        Aperture of the archive's tables to read; default: ``APER_COR_3_0``.
    units : str, optional
        Kind of flux density in the files, where they do not state it.
    ignore : sequence of str, optional
        Columns of the files to leave out.
    columns : mapping of str to str, optional
        The files' name of a column by the name under which it is read, such as ``{"ra": "RA_J2000"}``.
    engine : str, optional
        Where files are read and partitions written: ``serial``, ``local``, ``address``, ``slurm`` or
        ``jobqueue``; default: in this process, with several workers in processes of this machine.
    workers : int
        Number of worker processes or jobs.
    scheduler : str, optional
        Dask scheduler of the engine ``address``.
    scratch : path, optional
        Folder for sorted rows, which all workers see; default: beside the catalogue.

    Returns
    -------
    IngestSummary
        Rows, partitions, bands and inputs.

    Raises
    ------
    ojala.pipeline.ingest.errors.IngestError
        If a file cannot be understood; names file, row and column. Nothing is written then.

    Examples
    --------
    >>> ojala.ingest(["tile_1.csv", "tile_2.csv"], "photometry").rows
    """
    from upath import UPath

    from ojala.flows.terminal import progress_bars
    from ojala.pipeline.execution.functions import open_runner
    from ojala.pipeline.ingest import photometry

    sources = [files] if isinstance(files, str | os.PathLike) else files
    given: dict[str, Any] = {
        "tile_rows": tile_rows,
        "aperture": aperture,
        "units": units,
        "ignore": ignore,
        "columns": columns,
        "scratch": UPath(scratch) if scratch else None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    with progress_bars(), open_runner(engine, workers, photometry.CODE, scheduler) as run:
        return photometry.ingest_photometry([UPath(file) for file in sources], UPath(out), run=run, **given)


def plan(
    out: Location,
    *,
    config: Location | None = None,
    region: str | None = None,
    check: bool = False,
    **settings: object,
) -> Plan:
    """Compare a collection with what a run would make, and write nothing.

    Parameters
    ----------
    out : path
        Collection.
    config : path, optional
        TOML file of settings.
    region : str, optional
        Region to reprocess, such as ``cone:245.5,43.9,0.2``; default: the whole sky.
    check : bool
        Read all existing leaves and compare their SHA-256, instead of their size and time of change.
    **settings
        Fields of `ojala.pipeline.runs.config.RunConfig`, such as ``photometry``, ``model``, ``workers``; they
        override the file.

    Returns
    -------
    Plan
        Partitions with their states and actions.

    Raises
    ------
    ojala.catalogs_schema.errors.OjalaError
        If a setting is wrong or a catalogue cannot be read.

    Examples
    --------
    >>> ojala.plan("catalogue", photometry="photometry").states()
    {'missing': 13}
    """
    from ojala.pipeline.runs.plan import make_plan
    from ojala.pipeline.runs.region import parse_region
    from ojala.pipeline.runs.resolved import resolve_run

    resolved = resolve_run(_run_config(out, config, settings))
    chosen = parse_region(region, resolved.adapter.flags) if region else None
    return make_plan(resolved, chosen, check=check)


def run(
    out: Location,
    *,
    config: Location | None = None,
    region: str | None = None,
    publish: bool = True,
    check: bool = False,
    **settings: object,
) -> RunRecord:
    """Run a model over a catalogue and publish the result; resume a run that was interrupted.

    The same as ``ojala run`` and, with a region, ``ojala reprocess --yes``, without Prefect. Worker processes
    do not import the calling script, so it needs no ``if __name__ == "__main__"``; a running event loop is no
    obstacle.

    Parameters
    ----------
    out : path
        Collection for the results; created if it does not exist.
    config, region, check, **settings
        As for `plan`.
    publish : bool
        Publish the run when it is complete and its quality gates allow it.

    Returns
    -------
    RunRecord
        Status, rows, failed partitions.

    Raises
    ------
    ojala.catalogs_schema.errors.OjalaError
        If a setting is wrong, a catalogue cannot be read, another process works on the product, or a quality
        gate prevents the publication.

    Examples
    --------
    >>> ojala.run("catalogue", photometry="photometry", workers=4).status
    <Status.COMPLETE: 'complete'>
    """
    from ojala.pipeline.run import make_release
    from ojala.pipeline.runs.resolved import resolve_run

    resolved = resolve_run(_run_config(out, config, settings))
    with _hidden_main_module():
        return make_release(resolved, region, publish=publish, check=check)


def validate(
    catalogue: Location, truth: Location, *, photometry: Location | None = None, out: Location | None = None
) -> Validation:
    """Compare a catalogue with labelled objects.

    Parameters
    ----------
    catalogue : path
        Collection, folder of a run, or value-added catalogue.
    truth : path
        Parquet or CSV with ``tile_id`` and ``number`` (or ``object_id``), ``class``, ``z``, and any
        quantities of the catalogue under their names.
    photometry : path, optional
        Photometry catalogue for magnitudes; default: that of the run.
    out : path, optional
        Folder for a page (``index.html``), the measures and the objects; default: nothing is written.

    Returns
    -------
    Validation
        Measures with bootstrap errors.

    Raises
    ------
    ojala.pipeline.quality.validation.truth.TruthError
        If the truth cannot be used; names row and column.
    ojala.pipeline.storage.hats.CatalogueError
        If there is no finished catalogue, or it has none of the objects.

    Examples
    --------
    >>> ojala.validate("catalogue", "truth.parquet", out="validation").matched
    """
    from upath import UPath

    from ojala.pipeline.quality.validation.locate import expected, locate, match
    from ojala.pipeline.quality.validation.scores import validate as measure
    from ojala.pipeline.quality.validation.truth import read_truth
    from ojala.pipeline.report.validation_page import write_validation

    labels = read_truth(UPath(truth))
    location = locate(UPath(catalogue))
    source = UPath(photometry) if photometry else None
    matched = match(labels, location, source)
    result = measure(labels, matched, str(location.product), expected(location, source, matched))
    if out is not None:
        write_validation(UPath(out), matched, result)
    return result


class Predictor:
    """A model with trained weights, for tables and arrays in memory.

    Attributes
    ----------
    name : str
        Name of the model.
    version, weights_sha256 : str
        Version and SHA-256 of the weights.

    Examples
    --------
    >>> predictor = ojala.Predictor.load("ojala")
    >>> predictor.predict(pyarrow.parquet.read_table("leaf.parquet"))["z"]
    >>> predictor.predict(flux, error, ebv)["z"]  # flux, error: (N, 63) in uJy; ebv: (N,) in mag
    """

    def __init__(self, adapter: Any, model: Any) -> None:  # noqa: ANN401 - types of lazily imported modules
        self._adapter, self._model = adapter, model
        self.name: str = adapter.name
        self.version: str = model.version
        self.weights_sha256: str = model.weights_sha256

    @classmethod
    def load(
        cls,
        name_or_path: Location,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
        batch_size: int | None = None,
        weights: Location | None = None,
    ) -> Predictor:
        """Load a model by its name, with the bundled weights, or from a file of weights.

        Parameters
        ----------
        name_or_path : str or path
            Name of a model (``ojala``, ``specpt``, ...), or a file of weights (safetensors), whose header
            determines the model.
        device : str
            ``cpu`` or ``cuda``.
        precision : str
            Arithmetic of matrix products, ``fp32`` or ``bf16``.
        batch_size : int, optional
            Rows per forward pass; default: that of the model for the device.
        weights : str or path, optional
            File of weights for a model by its name, such as ``weights.pt`` for ``ojala-published``.

        Raises
        ------
        ojala.models.checkpoint.WeightsError
            If the file does not exist, is damaged, or holds weights of an unknown model.
        """
        from ojala.pipeline.inference.adapters.registry import ADAPTERS
        from ojala.pipeline.inference.model_spec import ModelSpec

        name = os.fspath(name_or_path)
        adapter = ADAPTERS.get(name) or ADAPTERS[_model_of(name)]
        spec = ModelSpec(
            name=adapter.name,
            weights=os.fspath(weights) if weights else adapter.weights if name in ADAPTERS else name,
            device=device,
            precision=precision,
            batch_size=batch_size or adapter.device_defaults(device)["batch_size"],
        )
        return cls(adapter, spec.load())

    @overload
    def predict(self, inputs: pa.Table, /) -> pa.Table: ...

    @overload
    def predict(self, *inputs: np.ndarray) -> dict[str, np.ndarray]: ...

    def predict(self, *inputs: Any) -> Any:
        """Predict N rows.

        Parameters
        ----------
        *inputs : pyarrow.Table, or ndarray
            Either a table with the columns of the model's input catalogue (see the data model), or the
            arguments of the model's own ``predict``: for OJALA flux and error (N, 63) [uJy] and E(B-V) (N,)
            [mag], for models of spectra one `ojala.models.data.Spectra`.

        Returns
        -------
        pyarrow.Table or dict of str to ndarray
            For a table the rows of the main product, in the same order, with flags and nulls; for arrays the
            predictions by name.

        Raises
        ------
        ojala.catalogs_schema.errors.InputError
            If columns of the table are missing or of another type.
        """
        import pyarrow as pa

        if len(inputs) != 1 or not isinstance(inputs[0], pa.Table):
            return self._model.predict(*inputs)
        from ojala.catalogs_schema.errors import InputError
        from ojala.catalogs_schema.photometry import LATER_COLUMNS

        contract = self._adapter.reads
        present = [name for name in contract.names if name in inputs[0].column_names]
        table = inputs[0].select(present)
        faults = [
            fault
            for fault in contract.violations(table)
            if fault.problem != "missing" or fault.column not in LATER_COLUMNS
        ]
        if faults:
            shown = "; ".join(map(str, faults[:5]))
            raise InputError(
                f"the table is no {contract.name} for {self.name}, as rows of an ingested catalogue are: "
                f"{shown}"
            )
        read, main = self._adapter.read_inputs(table), self._adapter.main.name
        predictions = self._adapter.predict(self._model, read)
        return self._adapter.build_products(self._model, table, read, predictions, [main])[main]


def _run_config(out: Location, config: Location | None, settings: Mapping[str, object]) -> RunConfig:
    from pathlib import Path

    from ojala.pipeline.runs.config import read_config

    given = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in settings.items()
    }
    return read_config(Path(config) if config is not None else None, {"out": os.fspath(out), **given})


def _model_of(path: str) -> str:
    """Name of the model whose bundled weights have the same format as a file."""
    from pathlib import Path

    from ojala.models.header import WeightsError
    from ojala.pipeline.inference.adapters.registry import ADAPTERS

    form = _format_of(Path(path))
    for name, adapter in ADAPTERS.items():
        if adapter.weights and _format_of(Path(adapter.weights)) == form:
            return name
    raise WeightsError(
        f"{path}: weights of format {form!r} belong to no model; models by name: {', '.join(ADAPTERS)}"
    )


def _format_of(path: Path) -> str | None:
    """Entry ``format`` in the header of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    from ojala.models.header import WeightsError

    if not path.is_file():
        raise WeightsError(f"{path}: neither the name of a model nor a file of weights")
    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("format")
    except SafetensorError as problem:
        raise WeightsError(f"{path}: no safetensors file, or damaged ({problem})") from problem


@contextmanager
def _hidden_main_module() -> Iterator[None]:
    """Keep processes started in the block from importing the running script.

    `multiprocessing` imports the file of ``__main__`` in each process that it spawns; a script without
    ``if __name__ == "__main__"`` would run again there. Tasks do not need the script.
    """
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {
        name: main.__dict__[name] for name in ("__file__", "__spec__") if name in main.__dict__
    }
    vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(kept)
