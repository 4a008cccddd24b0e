"""Readers of table formats: CSV, FITS, Parquet, VOTable."""
