# Every target does its own set-up: a virtual environment in .venv, made once and remade when what it installs changes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo studio docs test test-slow mutants lint types check clean

demo: $(READY)  ## train on scikit-learn's digits, draw, evaluate; about five minutes on two cores
	rm -rf runs/demo
	$(BIN)/ornstein train digits --out runs/demo
	$(BIN)/ornstein sample runs/demo -n 100 --seed 0 --film --out runs/demo/samples/digits.png
	$(BIN)/ornstein evaluate runs/demo
	@echo
	@echo "Look at: runs/demo/samples/digits.png (samples), runs/demo/samples/digits.gif (denoising),"
	@echo "         runs/demo/evaluation.png (samples beside their nearest training digits),"
	@echo "         runs/demo/loss.png and runs/demo/loss-by-noise.png (training)."

studio: $(READY)  ## open the studio in the browser's address that it prints; Ctrl-C ends it
	$(BIN)/ornstein studio runs

docs: $(VENV)/.docs  ## the docs as a site, to be opened from the disk: site/index.html; about a minute
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "Open site/index.html"

# where bytecode is not kept, each of the hundred processes that tests start compiles the sources anew
test: $(READY)  ## the whole default suite
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(READY)  ## what trains for longer
	$(BIN)/python -m pytest -m slow --timeout 5400

mutants: $(READY)  ## change the program in hundreds of places, one at a time: does the suite notice? An hour or more
	$(BIN)/python tests/mutants.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: test lint types

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ornstein needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,studio]'
	touch $@

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@
