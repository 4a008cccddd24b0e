"""The report of a run: one page for people and the same numbers for machines."""

from pipeline.report.page import RunFacts, write_report

__all__ = ["RunFacts", "write_report"]
