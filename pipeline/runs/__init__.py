"""Runs and releases: configuration, plan, record, receipts, workspace, provenance."""
