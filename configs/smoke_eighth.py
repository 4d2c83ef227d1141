"""The config of `llic_jax/configs/smoke_eighth.py`, for the command line."""

from llic_jax.configs.smoke_eighth import get_config

__all__ = ["get_config"]
