"""Value-added catalogues of photometric sky surveys, made with foundation models.

The functions below are those of the command ``ojala``, for scripts and notebooks. Nothing is loaded before
its first use.

Examples
--------
>>> import ojala
>>> ojala.ingest("objects.parquet", "photometry")
>>> ojala.plan("catalogue", photometry="photometry").states()
>>> record = ojala.run("catalogue", photometry="photometry", workers=4)
>>> quasars = ojala.open_catalog("catalogue").query("p_qso > 0.95 and z > 2").compute()
>>> ojala.validate("catalogue", "truth.parquet").all.redshifts
>>> predictions = ojala.Predictor.load("ojala").predict(photometry_table)
"""

from ojala.api import Predictor, ingest, open_catalog, plan, run, validate

__all__ = ["Predictor", "__version__", "ingest", "open_catalog", "plan", "run", "validate"]


def __getattr__(name: str) -> str:
    """The version, read from the metadata of the installed package when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("ojala")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
