"""The config of `llic_jax/configs/llic_stf_small.py`, for the command line."""

from llic_jax.configs.llic_stf_small import get_config

__all__ = ["get_config"]
