"""Trains a codec: `python train.py --config configs/llic_elic.py --workdir RUN`."""

import logging
import sys

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config, e.g. configs/llic_elic.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs; goes on from it.")
_MAX_MINUTES = flags.DEFINE_float("max_minutes", None, "Save and end after so many minutes.")
_FROM_STEP = flags.DEFINE_integer("from_step", None, "Go on from this checkpoint, not the last.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, for several hosts."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes train together.")
_PROCESS = flags.DEFINE_integer("process", None, "Number of this one, from 0.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Several hosts that find each other (TPU).")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    for talkative in ("absl", "jax"):  # orbax tells every file that it opens
        logging.getLogger(talkative).setLevel(logging.WARNING)
    from llic_jax import allocation

    allocation.keep_freed_memory()
    import jax

    from llic_jax import compilation_cache, training
    from llic_jax.errors import LlicError

    if _DISTRIBUTED.value or _COORDINATOR.value:
        jax.distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    compilation_cache.enable()
    try:
        training.train(_CONFIG.value, str(_WORKDIR.value), _MAX_MINUTES.value, _FROM_STEP.value)
    except LlicError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    app.run(main)
