"""Trains a codec: `python train.py --config configs/llic_elic.py --workdir RUN`."""

from llic_jax.system import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()
    from absl import app, flags

    from llic_jax import train

    flags.adopt_module_key_flags(train)  # so that --help shows them
    app.run(train.main, flags_parser=train.parse_flags)
