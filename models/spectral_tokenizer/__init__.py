"""The universal spectral tokenizer: one network for spectra of any instrument, on their own wavelengths."""
