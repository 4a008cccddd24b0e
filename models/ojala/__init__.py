"""OJALA: classes, redshifts and properties from photometry in 63 bands."""
