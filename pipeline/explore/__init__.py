"""Explorer of a release: static pages with sky, table, plot and a page for each object."""

from ojala.pipeline.explore.site import Site, write_site

__all__ = ["Site", "write_site"]
