"""LLIC-ELIC as in the paper: -9.47 % BD-rate over VTM-17.0 on Kodak (PSNR) is the figure aimed at.

    python train.py --config configs/llic_elic.py --config.data.source FOLDER --workdir runs/elic

That is lambda 0.0130 for MSE. Every other point of the curve is one field:
`--config.train.lmbdas '(0.0483,)'`, one of 0.0018 0.0035 0.0067 0.0130 0.0250 0.0483. For MS-SSIM:
`--config.train.distortion ms_ssim` with one of 2.4 4.58 8.73 16.64 31.73 60.5.

The paper's second stage, from step 1.2 M on, goes on in the same workdir with larger crops:
`--config.data.crop 512`; let the first end with `--config.train.steps 1200000`.

Hardware: 47 M parameters, about 2.3 T MACs a training step at batch 16 of 256 x 256 pixels (three
times the forward pass); an estimate, not a measurement: some ten days on one current accelerator.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    return default.get_config()
