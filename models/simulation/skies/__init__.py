"""Samplers of mock data: photometry, spectra, images, observed spectra."""
