"""A small LLIC-ELIC for every rate, made for a CPU: the model whose weights are released.

    python train.py --config configs/llic_elic_small.py --workdir runs/small \
        --config.data.source FOLDER

About 0.1 s for a 128-pixel crop in a training step on two cores. Its figures: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model.channels = (32, 48, 96, 192)
    config.model.depths = (1, 1, 1, 1)
    config.model.hyper_channels = 48
    config.model.groups = (8, 8, 16, 32, 64, 64)
    config.model.context_widths = (72, 48)
    config.model.levels = 6
    config.train.lmbdas = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483)
    config.data.crops, config.data.crop_boundaries = (128,), ()
    config.train.batch_size = 8
    config.train.steps = 40_000
    config.train.start = "pca"
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 50
    config.train.transforms_from = 1000
    # Adam's averages of the transforms' gradients are empty when the transforms join in.
    config.train.schedule_boundaries = (1000, 1100, 1400, 28_000, 34_000, 38_000)
    config.train.schedule_factors = (0.03, 0.1, 0.3, 0.1, 0.03, 0.01)
    config.train.log_every = 50
    config.train.eval_every = 500
    config.train.checkpoint_every = 250
    return config
