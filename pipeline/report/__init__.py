"""The report of a run: one page for people and the same numbers for machines."""

from ojala.pipeline.quality.validation.truth import read_truth
from ojala.pipeline.report.page import RunFacts, write_report

__all__ = ["RunFacts", "read_truth", "write_report"]
