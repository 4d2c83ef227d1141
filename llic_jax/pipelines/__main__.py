"""`python -m llic_jax.pipelines`: prepares, compresses or evaluates many photographs."""

import sys

from llic_jax.system import interrupts


def main() -> int:
    """Runs the command line; Ctrl-C ends it quietly from the first import on."""
    interrupts.end_at_once()
    from llic_jax.pipelines.command_line import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
