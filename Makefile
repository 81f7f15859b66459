# A fresh clone needs python3 with venv, and make. Variables can be set on the command line:
#   make test PYTHON=python3.12 PYTEST_ARGS="-m 'not slow'"
#   make demo PIP_ARGS=--no-cache-dir
#   make bench BENCH_ARGS="--only fit row --before ../earlier"
PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
VENV ?= .venv

BIN = $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt

.PHONY: install test test-cuda test-oldest extras demo bench docs site package lint clean
.NOTPARALLEL: # one environment, one pip at a time

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e ".[plot,test]"
	touch $@

$(VENV)/.installed-demo: pyproject.toml constraints.txt
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -q -e ".[plot]" pandas
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP_INSTALL) -e ".[plot,test,docs]"
	touch $@

test: $(VENV)/.installed
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

# On a machine with a GPU, which the suite leaves alone.
test-cuda: $(VENV)/.installed
	CUDA_VISIBLE_DEVICES=$(or $(CUDA_VISIBLE_DEVICES),0) $(BIN)/python -m pytest -rs tests/test_cuda.py

demo: $(VENV)/.installed-demo
	$(BIN)/python examples/demo.py

# What needs packages beside: snippets for them, rows on clusters and disks, exports.
extras: $(VENV)/.installed
	$(PIP_INSTALL) -q -e ".[interoperability,distributed,onnx]"
	$(BIN)/python -m pytest -q -rs -n auto tests/test_dask.py tests/test_export.py tests/test_sources.py
	$(BIN)/python -m pytest -q -rs -n auto tests/test_pages.py -k "other_packages or want_a_table or large_tables"

bench: $(VENV)/.installed
	$(BIN)/python examples/benchmarks/cost/run.py $(BENCH_ARGS)

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -b html -W --keep-going docs docs/_build/html

# The pages as built: names, links, sizes; in a Chromium too where there is one.
site: docs
	SKEBM_SITE=docs/_build/html $(BIN)/python -m pytest -q -rs tests/test_site.py

# What is given away: a wheel and a source archive, the wheel tried in an environment of its own.
package: $(VENV)/.installed
	rm -rf dist build/fresh
	$(BIN)/python -m pip install $(PIP_ARGS) -q -c constraints.txt build
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv build/fresh
	build/fresh/bin/python -m pip install $(PIP_ARGS) -q -c constraints.txt dist/*.whl
	cd build && fresh/bin/python ../.ci/smoke.py

# The suite with the oldest versions that are declared.
test-oldest:
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install $(PIP_ARGS) -c constraints-oldest.txt -e ".[plot,test]"
	$(VENV)-oldest/bin/python -m pytest -n auto $(PYTEST_ARGS)

lint: $(VENV)/.installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:
	rm -rf $(VENV) $(VENV)-oldest build dist docs/_build docs/generated docs/gallery docs/reference output
	rm -rf examples/output
	rm -rf skebm.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find skebm tests docs examples -type d -name __pycache__ -prune -exec rm -rf {} +
