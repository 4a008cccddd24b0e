import subprocess
import sys
from pathlib import Path

from pipeline.versions import APART, code_version

ROOT = Path(__file__).parents[2]

_LIST = """
import sys
import models.predictor
import models.avis.predictor
import pipeline.avis_answers
import pipeline.partition
floors = ("catalogs_schema", "models", "pipeline")
for module in list(sys.modules.values()):
    if module.__name__.split(".")[0] in floors and module.__file__:
        print(module.__file__)
"""


def test_every_module_that_a_partition_needs_counts_in_the_version_of_the_code():
    done = subprocess.run([sys.executable, "-c", _LIST], capture_output=True, text=True, check=True, cwd=ROOT)
    names = [Path(line).relative_to(ROOT) for line in done.stdout.splitlines()]
    assert Path("pipeline/partition.py") in names
    assert {Path("models/predictor.py"), Path("models/avis/atlas.py")} <= set(names)
    apart = [n for n in names if not APART.isdisjoint([n.as_posix(), *(p.as_posix() for p in n.parents)])]
    assert apart == []


def test_what_does_not_count_is_there():
    assert [name for name in APART if not (ROOT / name).exists()] == []


def test_the_version_names_release_and_sources():
    assert code_version().startswith("0.1.0+")
    assert len(code_version().split("+")[1]) == 12
