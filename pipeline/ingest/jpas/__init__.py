"""Photometry tables of J-PAS: columns, units, conversion."""
