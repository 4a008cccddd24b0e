"""How a survey is processed: sources, sky, plan, partition, engine, catalogue, provenance, quality."""
