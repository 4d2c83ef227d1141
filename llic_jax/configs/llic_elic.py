"""LLIC-ELIC as in the paper, whose figure is -9.47 % BD-rate over VTM-17.0 on Kodak (PSNR).

    python train.py --config configs/llic_elic.py --config.data.source FOLDER --workdir runs/elic

That is lambda 0.0130 for MSE. Every other point of the curve is one field,
`--config.train.lmbdas '(0.0483,)'`, one of 0.0018 0.0035 0.0067 0.0130 0.0250 0.0483. For MS-SSIM,
`--config.train.distortion ms_ssim` and one of 2.4 4.58 8.73 16.64 31.73 60.5.

Two stages (paper): crops of 256 pixels for 1.2 M steps, then 512 up to step 2 M, in one run.

Hardware: an accelerator. 47.1 M parameters and 653 kMACs a pixel come to 1.8e19 floating-point
operations for both stages: 4 days at a sustained 50 TFLOP/s (reckoned, not measured).
"""

from ml_collections import ConfigDict

from llic_jax.configs import default


def get_config() -> ConfigDict:
    """The config."""
    return default.get_config()
