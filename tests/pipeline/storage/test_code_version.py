"""The version of the code changes with what a worker of a model can run, and with nothing else."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest

from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.storage import code_version as module
from ojala.pipeline.storage.code_version import code_version, import_closure
from tests.helpers.published import stand_in, write_checkpoint

pytestmark = pytest.mark.integration

WORKER = '''
"""A worker."""
from toy.numbers import SCALE

if TYPE_CHECKING:
    from toy.records import Record

def process(x):
    """Process."""
    from toy import late
    return SCALE * late.shift(x)  # a comment
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A package of a worker with what it imports, and of what it does not; returns its folder."""
    files = {
        "__init__": "",
        "worker": WORKER,
        "numbers": "SCALE = 2.0\n",
        "late": "def shift(x):\n    return x + 1\n",
        "records": "class Record: ...\n",
        "other": "from toy.numbers import SCALE\n",
    }
    folder = tmp_path / "toy"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def version() -> str:
    for cached in (code_version, module._source, module._parse):
        cached.cache_clear()
    return code_version("toy.worker")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("worker", '"""A worker."""', '"""Another text."""'),
        ("worker", "# a comment", "# another"),
        ("worker", '    """Process."""\n', ""),
        ("numbers", "SCALE = 2.0", "SCALE = 2.0\n\n'Scale of the result.'"),
        ("records", "...", "x: int"),
        ("other", "SCALE", "SCALE as FACTOR"),
    ],
)
def test_comments_docstrings_layout_and_other_modules_leave_the_version(toy, name, old, new):
    before, text = version(), (toy / f"{name}.py").read_text()
    assert old in text
    (toy / f"{name}.py").write_text(text.replace(old, new))
    assert version() == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("numbers", "2.0", "2.5"), ("worker", "SCALE *", "SCALE /"), ("late", "x + 1", "x + 2")],
)
def test_a_changed_number_changes_the_version_also_in_a_module_that_a_function_imports(toy, name, old, new):
    before, text = version(), (toy / f"{name}.py").read_text()
    (toy / f"{name}.py").write_text(text.replace(old, new))
    assert version() != before


def test_the_closure_of_a_model_leaves_out_other_models_trainings_and_the_pipeline_around_the_worker():
    names = {name: set(import_closure(*adapter.code_modules)) for name, adapter in ADAPTERS.items()}
    assert "ojala.models.ojala.network" in names["ojala"]
    assert "ojala.models.specpt.network" in names["specpt"] - names["ojala"]
    for closure in names.values():
        apart = ("execution", "ingest", "quality", "report", "runs", "run", "inference.adapters.registry")
        assert not [name for name in closure if name.startswith(tuple(f"ojala.pipeline.{a}" for a in apart))]
        assert not [name for name in closure if name.endswith((".card", ".training", ".simulation"))]
    modules = {adapter.code_modules for adapter in ADAPTERS.values()}
    assert len({adapter.code_version for adapter in ADAPTERS.values()}) == len(modules)


_LOADED = """
import json
import os
import sys
import torch  # once; what each model imports of this package is loaded in a process of its own

def loaded(name, weights):
    from ojala.pipeline.inference.adapters.registry import ADAPTERS
    from ojala.pipeline.inference.model_spec import ModelSpec
    from ojala.pipeline.inference.process import _predict
    adapter = ADAPTERS[name]
    _predict(adapter, ModelSpec(adapter.name, weights, batch_size=2).load(), adapter.example(2))
    print(json.dumps([name, [module for module in sys.modules if module.startswith("ojala.")]]), flush=True)

assert not [module for module in sys.modules if module.startswith("ojala")]
for name, weights in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        loaded(name, weights)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


def test_all_that_a_worker_imports_is_in_the_closure(tmp_path):
    """But the look-up of a model by its name, the public face, and the code of packages themselves."""
    weights = {name: adapter.weights for name, adapter in ADAPTERS.items()}
    published = str(write_checkpoint(tmp_path, stand_in()))
    weights |= {name: published for name in weights if name.startswith("ojala-published")}
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, json.dumps(weights)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    lookup = {
        f"ojala.{name}"
        for name in ("api", "pipeline.inference.model_spec", "pipeline.inference.adapters.registry")
    }
    found = dict(map(json.loads, done.stdout.splitlines()))
    assert set(found) == set(ADAPTERS)
    for name, loaded in found.items():
        packages = {module_name for module_name in loaded if module._source(module_name)[1]}
        closure = set(import_closure(*ADAPTERS[name].code_modules))
        assert set(loaded) - packages - lookup - closure == set(), name


def test_the_version_names_release_and_sources():
    release, _, digest = ADAPTERS["ojala"].code_version.partition("+")
    assert release == metadata.version("ojala")
    assert len(digest) == 12
