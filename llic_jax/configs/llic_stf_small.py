r"""A small LLIC-STF for every rate, made for a CPU.

    python train.py --config configs/llic_stf_small.py --config.data.source FOLDER \
        --workdir runs/stf_small

Its transforms are smaller than those of llic_elic_small.py. It aims at no published figure and no
weights of it are released; the paper's size is llic_stf.py.
"""

from ml_collections import ConfigDict

from llic_jax.configs import llic_elic_small


def get_config() -> ConfigDict:
    """The config."""
    config = llic_elic_small.get_config()
    config.model.entropy_model = "stf"
    config.model.channels, config.model.depths = (32, 48, 128, 192), (1, 1, 2, 0)
    config.model.slices = 8
    config.model.max_support = 4
    config.model.context_widths = (64, 48, 32)
    return config
