"""Trains a codec: `python train.py --config configs/llic_elic.py --workdir RUN`."""

import logging

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config, e.g. configs/llic_elic.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs; goes on from it.")
_MAX_MINUTES = flags.DEFINE_float("max_minutes", None, "Save and end after so many minutes.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    logging.getLogger().setLevel(logging.INFO)
    from llic_jax import compilation_cache, training

    compilation_cache.enable()
    training.train(_CONFIG.value, str(_WORKDIR.value), _MAX_MINUTES.value)


if __name__ == "__main__":
    app.run(main)
