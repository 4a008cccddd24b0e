"""Mock data sets on disk: libraries of spectra, photometry, spectra and pairs drawn from them."""
