"""Evaluates a codec on real files and writes a report: see `llic_jax/evaluate.py`."""

import sys

from llic_jax.system import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()
    from llic_jax.evaluate import main

    sys.exit(main())
