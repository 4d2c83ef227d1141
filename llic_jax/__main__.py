"""`python -m llic_jax` is the command `llic`."""

import sys

from llic_jax.cli.main import main

sys.exit(main())
