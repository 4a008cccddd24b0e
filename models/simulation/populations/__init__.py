"""Populations of galaxies, stars and quasars: spectra, labels and priors."""
