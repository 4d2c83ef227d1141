"""The config of `llic_jax/configs/llic_stf.py`, for the command line."""

from llic_jax.configs.llic_stf import get_config

__all__ = ["get_config"]
