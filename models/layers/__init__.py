"""Layers, distributions and redshift PDFs that several networks share."""
