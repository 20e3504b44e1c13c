# make install | ray | quickstart | test | test-fast | faults | fuzz | mutants | bench | real-tokenizer | style | quality | audit | reference | notebooks | lock
# Everything runs in .venv of this checkout; it need not be activated.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: install ray quickstart test test-fast faults fuzz mutants bench real-tokenizer style quality audit reference notebooks lock

install: .venv/.installed

# Where pip finds torch's CPU build, that one is installed. PyPI's torch for Linux needs CUDA's libraries.
.venv/.installed: requirements.lock requirements-cpu.lock requirements-cuda.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.12 install"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --no-deps --require-hashes -r requirements-cpu.lock 2> /dev/null || echo "PyPI's torch is installed"
	$(PIP) install --no-deps --require-hashes -r requirements.lock
	$(PIP) check > /dev/null || $(PIP) install --no-deps --require-hashes -r requirements-cuda.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# For `--engine ray`: 250 MB more.
ray: install
	$(PIP) install --no-deps --require-hashes -r requirements-ray.lock
	$(PIP) check

quickstart: install
	$(BIN)/python -m quickstart

# For two cores: some tests wait for servers and processes, and the third worker uses that time.
test: install
	$(BIN)/pytest -n 3 --dist worksteal

# Before a commit: all tests that take less than a second each.
test-fast: install
	$(BIN)/pytest -n 2 -m 'not slow and not faults'

# Kills, full disks, bad servers and damaged files at thousands of points: under an hour; `make faults PART=2/4` runs a
# quarter of them. SEED chooses other points.
PART ?= 1/1
SEED ?= 0
faults: install
	$(BIN)/python -m tests.faults --part $(PART) --seed $(SEED) --jobs 2
	$(if $(filter 1/%,$(PART)),$(BIN)/pytest -m faults --timeout 1800)

# Two million cases of what strangers may write, on two cores: half an hour. `python -m tests.fuzz --help` for parts.
fuzz: install
	$(BIN)/python -m tests.fuzz

# Does a test fail wherever a module that decides is changed? Two hours; `make mutants MODULE=quantity.py`: minutes.
mutants: install
	$(BIN)/python -m tests.mutants $(MODULE)

# Does training teach anything, and what? Half an hour. Does an adapter's card work on its own? Three minutes. Does
# PaliGemma 3B, with random weights, train and predict? Fifteen minutes, 12 GB of memory.
# Speed: benchmarks.build, .scale, .train, .predict, .predict_scale, .serve, .ensemble, and .gpu on a GPU.
bench: install
	$(BIN)/python -m benchmarks.ablation --seeds 0 1 2
	$(BIN)/python -m benchmarks.model_card
	$(BIN)/python -m benchmarks.real_shape

# Gemma's tokenizers, 256,000 pieces, in a folder of the user's cache (REAL_TOKENIZER names another). Benchmarks use them,
# and tests that are otherwise skipped: some of `make test`, more of `make faults` (pytest -m faults -k real).
real-tokenizer: install
	$(BIN)/python -m benchmarks.real_tokenizer

style: install
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

quality: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python -m tests.vocabulary
	$(BIN)/python -m tests.scan

# Known vulnerabilities of the pinned packages. Asks a database on the internet, and fails where it does not answer.
audit: install
	$(BIN)/python -m tests.audit

reference: install
	$(BIN)/python docs/reference.py

notebooks: install
	$(BIN)/python notebooks/make_notebooks.py

# Pins what is installed and tested together, with the hashes of the files, for Python 3.11 and later. Pins that still
# fit stay as they are; `make lock UPGRADE=--upgrade` takes the newest releases. Each pin has a marker, so that a script
# that reads `name==version` up to the `;` needs to know nothing of the hashes below it. What only the extra `ray` needs
# is in requirements-ray.lock.
COMPILE = .lock-venv/bin/uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --fork-strategy fewest \
  --no-emit-package pip --generate-hashes --no-header --no-annotate
lock:
	$(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install --quiet uv
	cat requirements.lock requirements-cuda.lock requirements-ray.lock > .lock-venv/all.lock
	$(COMPILE) --all-extras pyproject.toml --output-file .lock-venv/all.lock
	cp .lock-venv/all.lock .lock-venv/without-ray.lock
	$(COMPILE) --extra all --extra ocr --extra hub --extra serve --extra trackers --extra demo --extra dev pyproject.toml --output-file .lock-venv/without-ray.lock
	awk 'FNR == NR { if (/^[a-z]/) needed[substr($$1, 1, index($$1, "=") - 1)]; next } \
	  /^[a-z]/ && !/;/ { sub(/ \\$$/, " ; python_version >= \"3.11\" \\") } \
	  /^[a-z]/ { file = /^(cuda-|nvidia-|triton=)/ ? "requirements-cuda.lock" : "requirements.lock" } \
	  /^[a-z]/ && !(substr($$1, 1, index($$1, "=") - 1) in needed) { file = "requirements-ray.lock" } \
	  !seen[file]++ { print "# Written by `make lock` from pyproject.toml." > file } \
	  { print > file }' .lock-venv/without-ray.lock .lock-venv/all.lock
	rm -rf .lock-venv
