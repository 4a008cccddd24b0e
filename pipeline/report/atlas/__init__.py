"""The page of the atlas: rows, thumbnails, sample."""
