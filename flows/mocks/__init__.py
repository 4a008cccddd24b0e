"""Mock data sets on disk: libraries of spectra, and photometry, spectra and pairs drawn from them."""

from ojala.flows.mocks.library import build_library, load_sky

__all__ = ["build_library", "load_sky"]
