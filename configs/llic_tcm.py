"""The config of `llic_jax/configs/llic_tcm.py`, for the command line."""

from llic_jax.configs.llic_tcm import get_config

__all__ = ["get_config"]
