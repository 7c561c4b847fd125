# Needs only Python 3.11 or newer and make; everything else is set up in .venv.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.done

.PHONY: demo test test-all lint types format clean

demo: $(SETUP)
	$(BIN)/domainseg demo --out runs/demo

test: $(SETUP) lint types
	$(BIN)/pytest -n 2 --dist worksteal -m "not long"

test-all: $(SETUP) lint types
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETUP)
	$(BIN)/mypy

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "domainseg needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv runs
