import subprocess
import sys
from pathlib import Path

from ojala.pipeline.storage.code_version import APART, code_version

ROOT = Path(__file__).parents[3] / "src" / "ojala"

_LIST = """
import sys
import ojala.models.ojala.predictor
import ojala.models.avis.predictor
import ojala.pipeline.inference.products.avis
import ojala.pipeline.inference.process
floors = ("catalogs_schema", "models", "pipeline")
for module in list(sys.modules.values()):
    if module.__name__.startswith("ojala.") and module.__name__.split(".")[1] in floors and module.__file__:
        print(module.__file__)
"""


def test_every_module_that_a_partition_needs_counts_in_the_version_of_the_code():
    done = subprocess.run([sys.executable, "-c", _LIST], capture_output=True, text=True, check=True, cwd=ROOT)
    names = [Path(line).relative_to(ROOT) for line in done.stdout.splitlines()]
    assert Path("pipeline/inference/process.py") in names
    assert {Path("models/ojala/predictor.py"), Path("models/avis/atlas.py")} <= set(names)
    apart = [n for n in names if not APART.isdisjoint([n.as_posix(), *(p.as_posix() for p in n.parents)])]
    assert apart == []


def test_what_does_not_count_is_there():
    assert [name for name in APART if not (ROOT / name).exists()] == []


def test_the_version_names_release_and_sources():
    assert code_version().startswith("0.1.0+")
    assert len(code_version().split("+")[1]) == 12
