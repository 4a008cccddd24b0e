"""Execution of partitions on an engine: in this process, or on Dask workers of a machine or a cluster."""

from ojala.pipeline.execution.engines import ENGINES, Engine, RetryPolicy, prepare_engine, run_tasks

__all__ = ["ENGINES", "Engine", "RetryPolicy", "prepare_engine", "run_tasks"]
