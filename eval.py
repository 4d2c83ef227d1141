"""Evaluates a codec on real files and writes a report: see `llic_jax/evaluate.py`."""

import sys

from llic_jax.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
