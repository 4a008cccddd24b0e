# The project's commands. Only Python 3.11 or 3.12 and make are needed.
#
#   make demo    run everything on the bundled patch of sky
#   make check   style, types, layers and unit tests, in a minute and a half
#   make test    run every check
#   make help    all commands

PYTHON ?= python3
# PyPI's torch for Linux brings several GB of CUDA. For the CPU build name PyTorch's index for it here,
# for example make demo TORCH_INDEX="--index-url URL" (see "Get started" on PyTorch's pages).
TORCH_INDEX ?=
DEMO ?= demo-output

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Processes of the tests read the compiled modules that others have written.
unexport PYTHONDONTWRITEBYTECODE
# A file's tests run in one process, as they share what they made; tests/conftest.py sorts the files.
# Three processes for two cores: one waits for servers and processes of its own most of the time, but not in
# unit tests.
PROCESSES = 3
PYTEST = $(BIN)/pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
# OpenBLAS reads it when NumPy is imported, before tests/conftest.py can set it.
check test test-processor soak: export OMP_NUM_THREADS = 1

.PHONY: help demo docs check test test-processor soak lint audit data-model clean
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(VENV)/.base: pyproject.toml deploy/constraints.txt
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13), "Python 3.11 or 3.12 is needed"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 $(TORCH_INDEX)
	$(PIP) --constraint deploy/constraints.txt --editable .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) --constraint deploy/constraints.txt --editable '.[test]'
	touch $@

demo: $(VENV)/.base  ## run everything on the bundled patch of sky, into $(DEMO)
	rm -rf $(DEMO)
	$(BIN)/ojala demo --out $(DEMO)

$(VENV)/.docs: $(VENV)/.base
	$(PIP) --constraint deploy/constraints.txt --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs  ## the documentation, into build/site; runs its tutorials, whose output it keeps in build
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/mkdocs build --quiet

lint: $(VENV)/.test  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: PROCESSES = 2
check: lint  ## style, types, layers and unit tests
	$(PYTEST) -m unit

test: lint  ## every check
	$(PYTEST)

# Tests whose outcome can depend on the processor, on one without AVX-512 and bfloat16.
test-processor: $(VENV)/.test  ## the tests of networks as a processor without AVX-512 runs them
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) -m processor

soak: $(VENV)/.test  ## the long forms of the tests of faults; writes tests/fault_injection/RESULTS.md
	rm -f tests/fault_injection/RESULTS.md
	$(PYTEST) --soak --timeout 7200 tests/fault_injection
	$(BIN)/pytest --soak --timeout 7200 -s tests/flows/demo tests/flows/fetch/test_dachs.py \
		tests/flows/cli/test_tap_service.py tests/deploy/test_new_tiles.py \
		tests/deploy/test_real_slurm.py \
		tests/deploy/test_scheduled_runs.py tests/pipeline/explore

audit: $(VENV)/.base  ## known vulnerabilities of the pinned packages, by pip-audit
	$(BIN)/python .ci/audit $(VENV)/audit

data-model: $(VENV)/.base  ## make catalogs_schema/DATA_MODEL.md anew
	$(BIN)/python -m ojala.catalogs_schema.data_model > catalogs_schema/DATA_MODEL.md

clean:  ## remove what the commands made
	rm -rf $(VENV) $(DEMO) build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
