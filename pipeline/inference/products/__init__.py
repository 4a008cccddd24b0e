"""Products: rows of each contract from a model's predictions."""
