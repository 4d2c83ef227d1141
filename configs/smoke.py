"""The config of `llic_jax/configs/smoke.py`, for the command line."""

from llic_jax.configs.smoke import get_config

__all__ = ["get_config"]
