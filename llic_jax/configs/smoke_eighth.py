"""llic_elic_eighth.py at the size of smoke.py: shows that training at 1/8 runs, nothing else.

python train.py --config configs/smoke_eighth.py --config.data.source FOLDER --workdir runs/smoke
"""

from ml_collections import ConfigDict

from llic_jax.configs import llic_elic_eighth, smoke


def get_config() -> ConfigDict:
    """The config."""
    config = smoke.get_config()
    eighth = llic_elic_eighth.get_config()
    config.model.strides = eighth.model.strides
    config.model.channels = (48, 32)
    config.model.kernel_sizes = (5, 5)
    config.model.depths = (2, 0)
    config.model.generator_width = 8
    return config
