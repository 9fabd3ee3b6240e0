# SPDX-License-Identifier: BSD-3-Clause
#
# `make test` and `make bench` need python3 (3.10 or newer) and a C++20 compiler; the rest goes into
# .venv. Steps leave stamps there and run again only when what they read has changed.
PYTHON ?= python3
JOBS ?= 2
TORCH_CUDA_ARCH_LIST ?= native
VENV := .venv
BIN := $(VENV)/bin
CPP_SOURCES = $(shell find csrc cmake tests \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \))
BUILD_INPUTS = CMakeLists.txt setup.py racnn_ops/_version.py $(wildcard cmake/*) $(shell find csrc -type f)

export PATH := $(CURDIR)/$(BIN):$(PATH)
export RACNN_WERROR ?= ON

.PHONY: all test lint pytest attack bench demo docs wheel hub format clean FORCE
all: $(VENV)/built

test: lint pytest

lint: $(VENV)/built
	ruff check .
	ruff format --check .
	mypy
	clang-format --dry-run --Werror $(CPP_SOURCES)

# Files in the order of tests/conftest.py, the slow ones first; pytest-xdist would put those with few tests last.
pytest: $(VENV)/built
	pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Hostile and random input, other than the last time; what fails says how to have it again. Within ten minutes in all.
attack: $(VENV)/built
	python tests/attacks/direct_calls.py --seconds 60
	RACNN_CPU_CAPABILITY=baseline python tests/attacks/direct_calls.py --seconds 30
	python tests/attacks/random_calls.py --seconds 60
	python tests/attacks/kill_runs.py --seconds 130
	python tests/attacks/hostile_files.py --seconds 100

bench: $(VENV)/built
	python benchmarks/bench_crop.py $(BENCH_ARGS)
	python benchmarks/demo.py

# Goes on where it was stopped; what is finished is kept in build/demo.
demo: $(VENV)/built build/demo/digits/bounding_boxes.txt
	python benchmarks/ablation.py --config benchmarks/configs/digits.yaml --root build/demo/digits \
	  --runs build/demo/runs --name digits --seeds 0 --variants difference "larger input" $(DEMO_ARGS)
	python -m racnn visualize --checkpoint build/demo/runs/difference-0/best.pt --root build/demo/digits \
	  --history true --count 4 --output build/demo/pictures

# Written into a folder of another name first: a data set is there as a whole or not at all.
build/demo/digits/bounding_boxes.txt: | $(VENV)/built
	rm -rf build/demo/digits build/demo/unfinished
	python benchmarks/digits.py --output build/demo/unfinished
	mv build/demo/unfinished build/demo/digits

# What Hugging Face's package `kernels` loads, see tools/hub.py.
hub: wheel
	rm -rf build/hub
	python tools/hub.py dist/audited/*.whl --output build/hub

# For every Linux of glibc 2.28 and later, every Python and every GPU: minutes, for its many architectures.
wheel: $(VENV)/built
	rm -rf dist
	RACNN_GLIBC=2.28 TORCH_CUDA_ARCH_LIST='$(WHEEL_ARCH_LIST)' pip wheel -v --no-build-isolation --no-deps --wheel-dir dist .
	auditwheel repair --plat manylinux_2_28_$$(uname -m) --exclude 'libtorch*' --wheel-dir dist/audited dist/*.whl

# Warnings are errors. The examples that changed run again; what Sphinx knows is forgotten, as docstrings and code may
# have changed.
docs: $(VENV)/built
	python -m sphinx -W --keep-going -E docs build/docs/html
	@echo "Open build/docs/html/index.html"

format: $(VENV)/built
	ruff check --fix .
	ruff format .
	clang-format -i $(CPP_SOURCES)

# Editable and without isolation, so that CMake's build folder keeps its objects between runs; -v shows the compiler.
$(VENV)/built: $(VENV)/torch $(VENV)/settings pyproject.toml $(BUILD_INPUTS)
	@echo "== Installing what tests and benchmarks need, and compiling the kernels: a few minutes =="
	TORCH_CUDA_ARCH_LIST='$(TORCH_CUDA_ARCH_LIST)' \
	  pip install -v --no-build-isolation --editable '.[bench,docs,racnn,test]'
	touch $@

# What the environment asks of the build, and the GPUs that are native: written only when it has changed.
$(VENV)/settings: FORCE | $(VENV)/bin/python
	@{ env | grep -E '^(CUDA_HOME|CUDA_PATH|FORCE_CUDA|RACNN_CUDA|RACNN_GLIBC|RACNN_WERROR|DEBUG)=' | sort; \
	  echo 'TORCH_CUDA_ARCH_LIST=$(TORCH_CUDA_ARCH_LIST)'; \
	  nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>&1 || true; } > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(VENV)/torch: $(VENV)/bin/python
	@echo "== Installing torch and torchvision into $(VENV): several gigabytes, a few minutes =="
	pip install torch torchvision 'setuptools>=77' 'cmake>=3.25' ninja
	touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) has no complete venv module: install the package python3-venv, or set PYTHON." >&2; exit 1; }

clean:
	rm -rf build dist docs/gallery $(VENV)/built racnn_ops/*.so
