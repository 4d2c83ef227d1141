"""A small LLIC-ELIC for every rate, made for a CPU: the model whose weights are released.

    python train.py --config configs/llic_elic_small.py --config.data.source FOLDER --workdir runs/small

About 0.1 s per 128-pixel crop and training step on two cores. Its figures: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model.channels = (32, 48, 96, 160)
    config.model.hyper_channels = 96
    config.model.groups = (8, 8, 16, 32, 96)
    config.model.context_widths = (96, 64)
    config.model.levels = 6
    config.train.lmbdas = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483)
    config.data.crop = 128
    config.train.batch_size = 8
    config.train.steps = 40_000
    config.train.learning_rate = 1e-3
    config.train.schedule = "cosine"
    config.train.warmup_steps = 200
    config.train.final_factor = 0.02
    config.train.eval_every = 1000
    config.train.checkpoint_every = 500
    return config
