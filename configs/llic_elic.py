"""The config of `llic_jax/configs/llic_elic.py`, for the command line."""

from llic_jax.configs.llic_elic import get_config

__all__ = ["get_config"]
