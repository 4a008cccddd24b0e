"""Metrics of redshifts and classes, their bootstrap errors, and model cards."""

from ojala.models.evaluation.bootstrap import Estimate, bootstrap_counts, bootstrap_objects
from ojala.models.evaluation.metrics import class_metrics, redshift_metrics, scatter_metrics

__all__ = [
    "Estimate",
    "bootstrap_counts",
    "bootstrap_objects",
    "class_metrics",
    "redshift_metrics",
    "scatter_metrics",
]
