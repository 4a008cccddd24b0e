"""Programs: command line, Prefect flows, trainings, mock data, evaluations, benchmark."""
