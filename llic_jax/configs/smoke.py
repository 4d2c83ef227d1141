"""One minute on a laptop: shows that training runs, nothing else.

python train.py --config configs/smoke.py --config.data.source FOLDER --workdir runs/smoke
"""

from ml_collections import ConfigDict

from llic_jax.configs import llic_elic_small


def get_config() -> ConfigDict:
    """The config."""
    config = llic_elic_small.get_config()
    config.model.channels = (16, 16, 24, 32)
    config.model.kernel_sizes = (5, 5, 5, 5)
    config.model.depths = (1, 1, 1, 1)
    config.model.hyper_channels = 16
    config.model.groups = (8, 8, 16)
    config.model.context_widths = (16, 16)
    config.data.crops, config.data.crop_boundaries = (64,), ()
    config.data.crop_fractions = ()
    config.data.held_back = 4
    config.train.steps = 200
    config.train.transforms_from = config.train.decoder_steps = 0
    config.train.learning_rate = 3e-4
    config.train.schedule = "constant"
    config.train.log_every = 20
    config.train.eval_every = 100
    config.train.checkpoint_every = 100
    return config
