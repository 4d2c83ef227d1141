# Every target does its own set-up, in a virtual environment of its own.
PYTHON ?= python3.11
VENV := .venv
LATEST := .venv-latest
# Compiling for a GPU that is absent (docs/ahead_of_time.md). The version of the GPU machine's JAX.
AOT := .venv-aot
AOT_PYTHON ?= python3.12
AOT_JAX ?= 0.11.2

.PHONY: eval test test-all test-latest check format aot clean

eval: $(VENV)/ready
	$(VENV)/bin/python eval.py $(ARGS)

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n 2 -m "not slow" $(ARGS)

test-all: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n 2 $(ARGS)

test-latest: $(LATEST)/ready
	$(LATEST)/bin/python -m pytest -n 2 -m "not slow" $(ARGS)

check: $(VENV)/ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(VENV)/ready
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

aot: $(AOT)/ready
	$(AOT)/bin/python benchmarks/aot.py $(ARGS)

# The complete stack: TensorFlow Compression, and the newest JAX that it allows.
$(VENV)/ready: constraints.txt setup.cfg pyproject.toml setup.py $(wildcard llic_jax/native/*.cc llic_jax/native/*.inc)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[tfc,data,train,eval,dev]"
	touch $@

# The newest JAX, without TensorFlow.
$(LATEST)/ready: setup.cfg pyproject.toml setup.py $(wildcard llic_jax/native/*.cc llic_jax/native/*.inc)
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install -q --disable-pip-version-check -e ".[train,eval,dev]"
	touch $@

# JAX and its plugin for CUDA, without NVIDIA's libraries: they are needed to run, not to compile.
$(AOT)/ready: setup.cfg pyproject.toml setup.py
	$(AOT_PYTHON) -m venv $(AOT)
	$(AOT)/bin/python -m pip install -q --disable-pip-version-check -e . jax==$(AOT_JAX) jaxlib==$(AOT_JAX)
	$(AOT)/bin/python -m pip install -q --disable-pip-version-check --no-deps \
		jax-cuda13-pjrt==$(AOT_JAX) jax-cuda13-plugin==$(AOT_JAX)
	touch $@

clean:
	rm -rf $(VENV) $(LATEST) $(AOT) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
