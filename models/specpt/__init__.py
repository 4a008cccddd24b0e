"""SpecPT: redshifts and reconstructions from spectra."""
