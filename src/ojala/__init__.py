"""OJALA pipeline: a photometric sky survey turned into value-added catalogues with foundation models."""

from importlib.metadata import version

__version__ = version("ojala")
