"""Reference data: filter curves and spectral templates."""
