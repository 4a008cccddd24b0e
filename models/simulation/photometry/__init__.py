"""Synthetic photometry: bands, depths, exposures, noise."""
