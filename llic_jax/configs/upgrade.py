"""Configs of older runs and released folders, brought to today's fields.

The only place that knows what a field that a config lacks stands for. A released folder's
fingerprint is taken from the config as it is stored, never from what is made of it here.
"""

from typing import Any

from llic_jax.configs.config import Config, as_dict

# Fields of the `model` section that came later, with the value that models had until then.
_LATER_MODEL_FIELDS: dict[str, Any] = {
    "branch_gains": False,
    "strides": (2, 2, 2, 2),
    "generator_width": 0,
}


def upgrade_model(section: Config) -> dict[str, Any]:
    """A config's `model` section with every field that `llic_jax/configs/default.py` has.

    Args:
        section: As it was written, by this version or an older one. It is left as it is.

    Returns:
        Plain dictionaries; fields that are there keep their values.
    """
    return {**_LATER_MODEL_FIELDS, **as_dict(section)}
