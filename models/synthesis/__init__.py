"""Mock photometry with truth: populations of spectra, bands, noise and the sky that mixes them."""
