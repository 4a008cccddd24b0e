"""Runs and releases: configuration, plan, record, receipts, quality gates, provenance."""
