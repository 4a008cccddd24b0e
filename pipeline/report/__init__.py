"""Report of a run: one page for people and the same numbers for programs."""

from ojala.pipeline.quality.validation.truth import read_truth
from ojala.pipeline.report.page import write_report

__all__ = ["read_truth", "write_report"]
