"""The config of `llic_jax/configs/llic_elic_eighth.py`, for the command line."""

from llic_jax.configs.llic_elic_eighth import get_config

__all__ = ["get_config"]
