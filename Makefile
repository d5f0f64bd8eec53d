# `make demo` and `make test` bootstrap .venv themselves. Python 3.11 or newer; PYTHON chooses which.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow test-browser chaos check format bench features clean

demo: $(STAMP)
	$(BIN)/nst demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not browser"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# A whole job, killed at every file-system call: some ten minutes.
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos

test-browser: $(STAMP)
	command -v chromium >/dev/null || (apt-get update -q && apt-get install -y -q --no-install-recommends chromium)
	$(BIN)/python -m pytest -m browser

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python -m benchmarks.style_transfer_step
	$(BIN)/python -m benchmarks.runner_overhead
	$(BIN)/python -m benchmarks.feature_quality

# Trains the embedded network anew: about half an hour on two cores. What comes out differs from the shipped file
# in its bytes on other machines: EMBEDDED_SHA256 in nst/features/weights.py has to follow.
features: $(STAMP)
	$(BIN)/python -m jobs.train_features nst/features/embedded/embedded.safetensors

clean:
	rm -rf $(VENV) demo-out

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nst needs Python 3.11 or newer, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[demo,dev]'
	touch $(STAMP)
