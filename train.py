"""Trains a codec: `python train.py --config configs/llic_elic.py --workdir RUN`."""

from absl import app, flags

from llic_jax import train

flags.adopt_module_key_flags(train)  # so that --help shows them

if __name__ == "__main__":
    app.run(train.main, flags_parser=train.parse_flags)
