"""The config of `llic_jax/configs/default.py`, for the command line."""

from llic_jax.configs.default import get_config

__all__ = ["get_config"]
