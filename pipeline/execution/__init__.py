"""Execution of partitions on an engine: clusters, dispatch, retries."""
