"""Programs: command line, Prefect flows, trainings, mock data, evaluations, benchmark."""

import os

# Prefect reads its settings on import; those of the user's environment have precedence.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
