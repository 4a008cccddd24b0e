"""Similar objects: an index of the embeddings of a release, and the nearest of an object."""

from ojala.pipeline.similarity.index import EmbeddingIndex, Similar, open_index
from ojala.pipeline.similarity.search import Query, find_similar

__all__ = ["EmbeddingIndex", "Query", "Similar", "find_similar", "open_index"]
