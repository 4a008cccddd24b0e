"""The report of a run: one page for people and the same numbers for machines."""

from pipeline.report.page import RunFacts, write_report
from pipeline.validation.truth import read_truth

__all__ = ["RunFacts", "read_truth", "write_report"]
