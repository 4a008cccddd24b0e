"""What the house keeps to: data is never executed, no secret is in the repository, servers stay at home."""

import ast
import subprocess

import psutil
import pytest
import yaml

from ojala.pipeline.execution import run_tasks
from ojala.pipeline.inference.model_spec import ModelSpec
from tests.deploy.processes import ROOT
from tests.helpers.survey import orders

pytestmark = pytest.mark.integration

PACKAGES = ("catalogs_schema", "models", "pipeline", "flows", "deploy", "src/ojala")
EXECUTING_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNPACKING_MODULES = {"tarfile", "zipfile"}
"""Paths inside of archives can lead anywhere; none is ever unpacked (gzip holds one stream and no paths)."""
HARMLESS = {"zipfile.BadZipFile", "pickle.UnpicklingError"}
"""Exceptions, by which damaged files of arrays and of tensors are recognised."""
EXECUTING_CALLS = {
    "eval", "exec", "__import__", "os.system", "os.popen", "torch.load", "yaml.load", "yaml.load_all",
    "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "pandas.read_pickle", "runpy.run_path",
    "shutil.unpack_archive",
}  # fmt: skip


def names_in(tree):
    """Modules that are imported and functions that are called, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = {f"{module}.{alias.name}" for alias in node.names} - HARMLESS
            yield from ((name, node.lineno) for name in sorted(names))
            if names:
                yield module.split(".")[0], node.lineno
        elif isinstance(node, ast.Call):
            safe = any(ast.unparse(keyword) == "weights_only=True" for keyword in node.keywords)
            if not (safe and ast.unparse(node.func) == "torch.load"):
                yield ast.unparse(node.func), node.lineno
            for argument in node.keywords:
                if argument.arg in ("shell", "allow_pickle") and ast.unparse(argument.value) != "False":
                    yield argument.arg, node.lineno


def faults_of(source, name):
    forbidden = EXECUTING_MODULES | UNPACKING_MODULES | EXECUTING_CALLS | {"shell", "allow_pickle"}
    return [f"{name}:{line}: {found}" for found, line in names_in(ast.parse(source)) if found in forbidden]


def test_nothing_that_is_read_is_ever_executed_or_unpacked():
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(sources) > 50
    faults = [fault for path in sources for fault in faults_of(path.read_text(), path.relative_to(ROOT))]
    assert faults == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import zipfile",
        "from zipfile import BadZipFile, ZipFile",
        "from torch import load",
        "eval(text)",
        "yaml.load(file)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run(words, shell=True)",
    ],
)
def test_the_search_finds_what_it_searches_for(source):
    assert faults_of(source, "example.py")


def test_no_private_key_or_password_is_in_the_repository():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of what belongs to the repository")
    files = [ROOT / name for name in listed.stdout.splitlines()]
    marks = [b"-----BEGIN " + kind for kind in (b"PRIVATE KEY", b"EC PRIVATE KEY", b"RSA PRIVATE KEY")]
    with_keys = [f for f in files if f.is_file() and any(mark in f.read_bytes() for mark in marks)]
    assert with_keys == []
    assert not [file for file in files if file.suffix == ".pem" or file.parent.name == "secrets"]


def test_the_engine_on_this_machine_listens_on_the_loopback_interface_alone(photometry, tmp_path):
    receipts = run_tasks(orders(photometry, tmp_path), ModelSpec("empty", ""), engine="local", workers=1)
    before = listening()
    next(receipts)
    opened = listening() - before
    receipts.close()
    assert {address.ip for address in opened} == {"127.0.0.1"}


def listening():
    """Addresses that this process and its children listen on."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {c.laddr for one in family for c in one.net_connections("tcp") if c.status == "LISTEN"}


def test_every_port_of_the_compose_file_is_bound_to_the_loopback_interface():
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)
