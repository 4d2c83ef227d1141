r"""A LLIC-ELIC that works at 1/8 and 1/16 of the image's size, to be trained on accelerators.

    python train.py --config configs/llic_elic_eighth.py --config.data.source FOLDER \
        --workdir runs/eighth --config.model.dtype bfloat16

Our choice, beside the paper's layout: the blocks are LLIC's, and their 11x11 kernels span 88
pixels. Nothing is computed at 1/2 and 1/4, whose activations are most of what a training step of
the paper's layout moves. Entropy model and rates are those of llic_elic_small.py, and so is about
the work: 168 kMACs a pixel, 27.4 M parameters. No weights of it are released.
"""

from ml_collections import ConfigDict

from llic_jax.configs import llic_elic_small


def get_config() -> ConfigDict:
    """The config."""
    config = llic_elic_small.get_config()
    config.model.strides = (8, 2)
    config.model.channels = (256, 320)
    config.model.kernel_sizes = (11, 9)
    config.model.depths = (4, 0)
    # A quarter of the channels would put half of all parameters into the generators.
    config.model.generator_width = 32
    return config
