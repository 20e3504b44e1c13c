# make install | quickstart | test | faults | bench | style | quality | lock
# Everything runs in .venv of this checkout; it need not be activated.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: install quickstart test faults bench style quality lock

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.12 install"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

quickstart: install
	$(BIN)/python -m quickstart

test: install
	$(BIN)/pytest -n 2

# Kills and restarts at many moments: minutes.
faults: install
	$(BIN)/pytest -m faults --timeout 1800

# Does training teach anything, and what? Half an hour. Does an adapter's card stand alone? Three minutes.
# Speed: benchmarks.build, .scale, .train, .predict and .predict_scale.
bench: install
	$(BIN)/python -m benchmarks.ablation --seeds 0 1 2
	$(BIN)/python -m benchmarks.model_card

style: install
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

quality: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# What was installed and tested together, for `make install`: run it after a change of the dependencies.
lock:
	$(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install --quiet 'torch==2.13.0' --editable '.[hub,demo,trackers,dev]'
	.lock-venv/bin/pip freeze --exclude-editable | sed -e 's/^\(torch==[0-9.]*\)+cpu$$/\1/' > requirements.lock
	rm -rf .lock-venv
