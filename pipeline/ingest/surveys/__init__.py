"""Spectra from the files of the surveys, the Multimodal Universe and templates, one module for each.

A module is found by its place; see `reader`. All wavelengths are in vacuum. The flux scale of LAMOST is
relative, and its calibration from blue to red is rough (of order ten per cent): its fluxes are shapes only.
"""
