"""Commands that the documentation names exist."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from ojala.flows.cli.app import app

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "models/weights/*.md",
        "tests/benchmarks/*.md",
        "flows/bench/*.md",
    )
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
]


def named(pattern: str) -> dict[str, set[str]]:
    """What the pages name by a pattern, with the pages."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for name in re.findall(pattern, page.read_text()):
            found.setdefault(name, set()).add(str(page.relative_to(ROOT)))
    return found


def test_modules_that_pages_run_exist():
    modules = named(r"python -m ((?:ojala|tests)\.[\w.]+)")
    assert len(modules) > 15
    paths = {name: ROOT / name.removeprefix("ojala.").replace(".", "/") for name in modules}
    missing = {
        name for name, path in paths.items() if not (path.is_dir() or path.with_suffix(".py").exists())
    }
    assert {name: modules[name] for name in missing} == {}


def test_files_and_folders_of_tests_that_pages_name_exist():
    places = named(r"`[^`\n]*?(tests/[\w/.]+)[^`\n]*`")
    assert len(places) > 10
    assert {name: pages for name, pages in places.items() if not (ROOT / name).exists()} == {}


def test_commands_that_pages_name_exist():
    commands = get_command(app).commands
    names = named(r"`ojala ([a-z][a-z-]*)")
    assert len(names) > 20
    assert {name: pages for name, pages in names.items() if name not in commands} == {}
