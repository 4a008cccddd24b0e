"""Atlas of embeddings: page, rows, thumbnails, sample to fit."""
