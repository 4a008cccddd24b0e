"""Comparison of OJALA with photometric redshifts from template fitting."""
