"""Quality of a run: gates, verification, validation against a truth."""
