# Everything is run inside .venv, which any target makes when it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help

.PHONY: help
help:  ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.complete  ## make the environment .venv with the pinned packages

$(VENV)/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "phasescope needs Python 3.11 or newer; name one with: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirements requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.PHONY: repro
repro: setup  ## run the whole pipeline: train, store, measure, draw
	dvc repro
	@phasescope show

.PHONY: report
report: setup  ## write report.html, a page with all runs, phases and figures, and what it needs
	dvc repro report
	@echo "the page: file://$(CURDIR)/report.html"

.PHONY: test
test: setup  ## run the tests
	pytest -n auto --dist worksteal -q

.PHONY: faults
faults: setup  ## kill and fail every file operation of a small run: nothing half-written may be left
	pytest --slow -q -s tests/test_faults.py

.PHONY: bench
bench: setup  ## run every benchmark, beside what it is compared with (on an otherwise quiet machine)
	@for each in $(filter-out benchmarks/side_by_side.py,$(sort $(wildcard benchmarks/*.py))); do \
	    echo "== $$each"; python $$each || exit 1; \
	done

.PHONY: lint
lint: setup  ## check style, types and the order of the modules
	ruff check
	ruff format --check
	mypy
	lint-imports --no-cache

.PHONY: lock
lock: setup  ## pin the newest versions that pyproject.toml allows, in requirements.lock
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links pyproject.toml --output-file requirements.lock

.PHONY: clean
clean:  ## remove what the pipeline made (DVC's cache keeps it), and the caches of the tools
	rm -rf datasets runs results theory figures report.html metrics provenance code build dist .pytest_cache .mypy_cache .ruff_cache
