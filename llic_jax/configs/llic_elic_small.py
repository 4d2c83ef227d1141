"""A small LLIC-ELIC for every rate, quick on a CPU: the model of the released weights.

    python train.py --config configs/llic_elic_small.py --workdir runs/small \
        --config.data.source FOLDER

How far the released weights have come, with which overrides, and their figures: docs/results.md.
"""

from ml_collections import ConfigDict

from llic_jax.configs import default


def get_config() -> ConfigDict:
    """The config."""
    config = default.get_config()
    # At first (32, 48, 128, 320) and (1, 1, 2, 0); grown for an accelerator (docs/results.md).
    config.model.channels = (64, 96, 160, 320)
    config.model.depths = (1, 1, 3, 0)
    config.model.activation_limit = 16.0  # photographs stay below 7; drawings explode without it
    config.model.hyper_channels = 64
    config.model.groups = (16, 16, 32, 64, 64, 128)
    config.model.context_widths = (96, 64)
    # The paper's six rates are levels 3 to 8.
    config.model.levels = 8
    config.model.branch_gains = True
    # Chosen on held-back photographs (docs/experiments.md).
    config.coding.shift_resolution = 1000
    config.model.mixture = ((0.52, 0.76), (0.48, 1.19))  # found on photographs of training
    config.coding.rdoq_weight = 24.0
    config.coding.back_projection = (0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    config.train.lmbdas = (0.0004, 0.0009, 0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483)
    # With 0.5 high rates were left behind (docs/experiments.md).
    config.train.rate_weighting = 0.1
    # Half the gradient's variance (docs/experiments.md).
    config.train.rate_sampling = 0.5
    # With 128 alone, whole images took up to 40 % more bits than their parts (docs/experiments.md).
    config.data.crops, config.data.crop_boundaries = (128, 384), (30_000,)
    config.train.batch_size = 8
    config.train.steps = 40_000
    config.train.start = "pca"
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 50
    config.train.transforms_from = 600
    config.train.transforms_rate = 0.5
    config.train.decoder_steps = 2_000
    config.train.decoder_learning_rate = 2e-4
    # Adam's averages of the transforms' gradients are empty when the transforms join in.
    config.train.schedule_boundaries = (400, 600, 700, 28_000, 33_000)
    config.train.schedule_factors = (0.3, 0.03, 0.15, 0.05, 0.015)
    config.train.log_every = 25
    config.train.eval_every = 200
    config.train.checkpoint_every = 100
    return config
