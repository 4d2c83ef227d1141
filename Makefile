# Every target does its own set-up, in a virtual environment of its own.
PYTHON ?= python3.11
VENV := .venv
LATEST := .venv-latest
DOCS := .venv-docs
# Apache Beam does not join the complete stack (docs/many_machines.md).
BEAM := .venv-beam
# Compiling for a GPU that is absent (docs/ahead_of_time.md). The version of the GPU machine's JAX.
AOT := .venv-aot
AOT_PYTHON ?= python3.12
AOT_JAX ?= 0.11.2

# The newest Python that runs here. pyenv's shims exist for versions that do not run, so each is tried.
PYENV_VERSIONS = $${PYENV_ROOT:-$$HOME/.pyenv}/versions
LATEST_PYTHON ?= $(shell for python in python3.13 $(PYENV_VERSIONS)/3.13*/bin/python3.13 \
	python3.12 $(PYENV_VERSIONS)/3.12*/bin/python3.12; do \
	"$$python" -c "import ensurepip" 2>/dev/null && echo "$$python" && break; done)

# What the newest stack must pass in continuous integration: old files decode, every entropy model
# walks alike. `make test-latest` runs everything.
GOLDEN := tests/codec/test_golden.py tests/entropy/test_conformance.py tests/coding/range_coders

.PHONY: eval test test-slow test-all test-latest test-beam golden-latest newest-python conformance check format docs \
	dist installs aot clean

eval: $(VENV)/ready
	$(VENV)/bin/python eval.py $(ARGS)

test: $(VENV)/ready
	$(VENV)/bin/python .ci/versions.py
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

# Training to the end, every variant of the training step, several processes.
test-slow: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m slow $(ARGS)

test-all: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

test-latest: $(LATEST)/ready
	$(LATEST)/bin/python .ci/versions.py --newest
	$(LATEST)/bin/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-beam: $(BEAM)/ready
	$(BEAM)/bin/python -m pytest tests/pipelines tests/benchmarks/test_beam_kill.py $(ARGS)

golden-latest:
	$(MAKE) test-latest ARGS="$(GOLDEN)"

newest-python:
	@echo $(LATEST_PYTHON)

conformance: $(VENV)/ready
	$(VENV)/bin/python -m llic_jax.conformance $(ARGS)

check: $(VENV)/ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(VENV)/ready
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# The pages in site/. A broken link, a missing page or an unknown name is an error.
docs: $(DOCS)/ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

# Source distribution and wheel in dist/, with their contents checked.
dist: $(VENV)/ready
	rm -rf build dist
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python .ci/build_dist.py dist
	$(VENV)/bin/python .ci/check_dist.py dist

# What `make dist` made, in empty environments of every Python that is here.
installs: dist
	$(VENV)/bin/python .ci/clean_installs.py dist

aot: $(AOT)/ready
	$(AOT)/bin/python benchmarks/aot.py $(ARGS)

# The complete stack: TensorFlow Compression, and the newest JAX that it allows.
$(VENV)/ready: constraints.txt setup.cfg pyproject.toml setup.py $(wildcard llic_jax/native/*.cc llic_jax/native/*.inc)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[tfc,data,train,eval,dev]"
	touch $@

# The newest JAX, without TensorFlow.
$(LATEST)/ready: setup.cfg pyproject.toml setup.py $(wildcard llic_jax/native/*.cc llic_jax/native/*.inc)
	@test -n "$(LATEST_PYTHON)" || { echo "The newest JAX needs Python 3.12 or later and none was" \
		"found. Install one, or name it: make $(MAKECMDGOALS) LATEST_PYTHON=/path/to/python"; exit 1; }
	$(LATEST_PYTHON) -m venv --clear $(LATEST)
	$(LATEST)/bin/python -m pip install -q --disable-pip-version-check -e ".[train,eval,dev]"
	touch $@

$(BEAM)/ready: setup.cfg pyproject.toml setup.py $(wildcard llic_jax/native/*.cc llic_jax/native/*.inc)
	$(PYTHON) -m venv $(BEAM)
	$(BEAM)/bin/python -m pip install -q --disable-pip-version-check -e ".[eval,beam]" pytest beartype
	touch $@

# The site's builder reads the sources and imports nothing, so neither JAX nor llic_jax is installed.
$(DOCS)/ready: docs/requirements.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install -q --disable-pip-version-check -r docs/requirements.txt
	touch $@

# JAX and its plugin for CUDA, without NVIDIA's libraries: they are needed to run, not to compile.
$(AOT)/ready: setup.cfg pyproject.toml setup.py
	$(AOT_PYTHON) -m venv $(AOT)
	$(AOT)/bin/python -m pip install -q --disable-pip-version-check -e . jax==$(AOT_JAX) jaxlib==$(AOT_JAX)
	$(AOT)/bin/python -m pip install -q --disable-pip-version-check --no-deps \
		jax-cuda13-pjrt==$(AOT_JAX) jax-cuda13-plugin==$(AOT_JAX)
	touch $@

clean:
	rm -rf $(VENV) $(LATEST) $(DOCS) $(AOT) $(BEAM) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .cache
	rm -f llic_jax/native/*.so
