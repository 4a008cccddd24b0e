"""Spectra from the files of SDSS/BOSS, DESI and LAMOST and from templates, one reader for each.

All wavelengths are in vacuum. The flux scale of LAMOST is relative, and its calibration from blue to red is
rough (of order ten per cent): fluxes from it serve as shapes only.
"""
