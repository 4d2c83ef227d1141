"""LLIC-ELIC as in the paper.

    python train.py --config configs/llic_elic.py --config.data.source FOLDER --workdir runs/elic

Other rates: `--config.train.lmbdas '(0.0483,)'`. Meant for eight accelerators and two weeks; the
paper's figure at its end is -9.47 % BD-rate over VTM-17.0 on Kodak (PSNR).
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    return default.get_config()
