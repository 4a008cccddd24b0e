"""Releases that leave their collection: self-contained copies, their citation, and tables of a selection."""
