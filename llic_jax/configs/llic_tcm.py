"""LLIC-TCM as in the paper, whose figure is -10.94 % BD-rate over VTM-17.0 on Kodak (PSNR).

    python train.py --config configs/llic_tcm.py --config.data.source FOLDER --workdir runs/tcm

That is lambda 0.0130 for MSE. Every other point of the curve is one field,
`--config.train.lmbdas '(0.0483,)'`, one of 0.0018 0.0035 0.0067 0.0130 0.0250 0.0483. For MS-SSIM,
`--config.train.distortion ms_ssim` and one of 2.4 4.58 8.73 16.64 31.73 60.5.

Two stages (paper): crops of 256 pixels for 1.2 M steps, then 512 up to step 2 M, in one run.

Hardware: an accelerator. 77.6 M parameters and 723 kMACs a pixel come to 2.0e19 floating-point
operations for both stages: 5 days at a sustained 50 TFLOP/s (reckoned, not measured).
"""

from ml_collections import ConfigDict

from llic_jax.configs import default


def get_config() -> ConfigDict:
    """The config."""
    config = default.get_config()
    config.model.entropy_model = "tcm"
    config.model.slices = 5
    config.model.max_support = 5
    config.model.context_widths = (224, 128)
    return config
