# Two commands on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install quickstart test test-slow test-faults audit lint clean

install: $(VENV)/.installed

# torch first and by its pinned version, so that no other package chooses a build for it.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all]'
	$(BIN)/plmray prebuild
	touch $@

# --resume: a second call goes on where the first was stopped, or shows the finished sweep.
quickstart: install
	$(BIN)/plmray run sweeps/quickstart.yaml --yes --resume

# In two lanes: tests that start Ray, one after the other, and the rest.
test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

test-slow: install
	$(BIN)/python -m pytest -m slow

# What can break in a running sweep, broken: processes, disks, servers, hosts. Some need root and are skipped without.
test-faults: install
	$(BIN)/python -m pytest -m faults --numprocesses 2 --dist loadgroup

# Known weaknesses of the pinned versions; without an advisory service to ask, a line says so.
audit: install
	$(BIN)/python -m tests.audit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
