"""Foundation models: networks, training, weights. Arrays in, arrays out; no files, Dask or Prefect."""
