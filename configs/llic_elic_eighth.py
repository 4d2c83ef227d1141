"""LLIC-ELIC whose transforms work at 1/8 and 1/16 of the image's size, for training on accelerators.

    python train.py --config configs/llic_elic_eighth.py --config.data.source FOLDER \
        --workdir runs/eighth --config.model.dtype bfloat16

Our choice, beside the paper's layout: LLIC's blocks are its own, their 11x11 kernels reach 88 pixels,
and nothing is computed at 1/2 and 1/4, whose activations are most of what a step of the paper's
layout moves. Work and entropy model are about those of llic_elic_small.py, and so are its rates.
No weights of it are released yet.
"""

from ml_collections import ConfigDict

from configs import llic_elic_small


def get_config() -> ConfigDict:
    config = llic_elic_small.get_config()
    config.model.strides = (8, 2)
    config.model.channels = (256, 320)
    config.model.kernel_sizes = (11, 9)
    config.model.depths = (4, 0)
    # A quarter of the channels would put half of all parameters into the generators.
    config.model.generator_width = 32
    return config
