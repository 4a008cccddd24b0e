"""Hooks of MkDocs: pages from the code, executed tutorials, figures, and linked files of the repository."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import figures
import reference
import repository
import tutorials

GUIDES = "How-to guides"

DRAFT = "DOCS_DRAFT"
"""Variable of the environment that leaves tutorials as they are written, to look at pages in seconds."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not in the folder of the documentation."""
    _list_guides(files, config)
    for uri, content in (*reference.pages(), *figures.pictures()):
        files.append(File.generated(config, uri, content=content))
    names = [file.src_uri for file in files.documentation_pages() if tutorials.is_tutorial(file.src_uri)]
    for uri, content in () if os.environ.get(DRAFT) else tutorials.execute(names):
        known = files.get_file_from_path(uri)
        if known is not None:
            files.remove(known)
        files.append(File.generated(config, uri, content=content))
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for uri, path in repository.linked_files(pages).items():
        if uri not in files.src_uris:
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files of the repository at their pages."""
    return repository.rewrite_links(markdown, page.file.src_uri)


def _list_guides(files: Files, config: MkDocsConfig) -> None:
    """List pages of the top folder and of ``how-to`` that the navigation does not name among the guides."""
    guides = next(section[GUIDES] for section in config.nav or [] if GUIDES in section)
    named = str(config.nav)
    for file in files.documentation_pages():
        folder, _, _ = file.src_uri.rpartition("/")
        if folder in ("", "how-to") and file.src_uri not in named:
            guides.append(file.src_uri)
