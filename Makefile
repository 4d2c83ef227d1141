# Every target does its own set-up, in a virtual environment of its own.
PYTHON ?= python3.11
VENV := .venv
LATEST := .venv-latest

.PHONY: eval test test-all test-latest check format clean

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

# The complete stack: TensorFlow Compression, and the newest JAX that it allows.
$(VENV)/ready: constraints.txt setup.cfg pyproject.toml setup.py $(wildcard llic_jax/layers/*.cc llic_jax/layers/*.inc)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[tfc,data,train,eval,dev]"
	touch $@

# The newest JAX, without TensorFlow.
$(LATEST)/ready: setup.cfg pyproject.toml setup.py $(wildcard llic_jax/layers/*.cc llic_jax/layers/*.inc)
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install -q --disable-pip-version-check -e ".[train,eval,dev]"
	touch $@

clean:
	rm -rf $(VENV) $(LATEST) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
