"""Storage: files, Parquet leaves, HATS catalogues, HEALPix, locks, code version."""
