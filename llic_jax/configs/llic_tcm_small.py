r"""A small LLIC-TCM for every rate, made for a CPU.

    python train.py --config configs/llic_tcm_small.py --config.data.source FOLDER \
        --workdir runs/tcm_small

Its transforms are smaller than those of llic_elic_small.py. It aims at no published figure and no
weights of it are released; the paper's size is llic_tcm.py.
"""

from ml_collections import ConfigDict

from llic_jax.configs import llic_elic_small


def get_config() -> ConfigDict:
    """The config."""
    config = llic_elic_small.get_config()
    config.model.entropy_model = "tcm"
    config.model.channels, config.model.depths = (32, 48, 128, 192), (1, 1, 2, 0)
    config.model.hyper_channels = 64  # (M + N) / 4 is attended to, in heads of 16
    config.model.slices = 4
    config.model.context_widths = (64, 48)
    config.model.attention_channels = 32
    config.model.head_dims = (16, 16)
    return config
