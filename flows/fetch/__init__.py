"""Fetching of a survey's tables from an archive, into files that `ojala ingest` reads.

`fetch_tables` asks a TAP service for tables, a tile of the survey at a time: `tables` has the archive's
names, `service` the protocol, `jobs` the list of jobs on disk, `download` the work.
"""

from ojala.flows.fetch.download import FetchSummary, fetch_tables
from ojala.flows.fetch.service import Limits

__all__ = ["FetchSummary", "Limits", "fetch_tables"]
