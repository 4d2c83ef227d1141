"""Configs of older runs and released folders, brought to today's fields.

The only place that knows what a field that a config lacks stands for. A released folder's
fingerprint is taken from the config as it is stored, never from what is made of it here.
"""

import copy
from collections.abc import Mapping
from typing import Any

from llic_jax.configs.config import Config, as_dict

# Fields by the names that they had in older configs.
RENAMED = {
    "train.level_balance": "train.rate_weighting",
    "train.level_density": "train.rate_sampling",
}

# Fields that came later, with the value that runs had until then.
_LATER: dict[str, dict[str, Any]] = {
    "model": {"branch_gains": False, "strides": (2, 2, 2, 2), "generator_width": 0},
    "coding": {"units": 400, "mixture": (), "rdoq_weight": 0.0, "back_projection": ()},
    "data": {
        "validation": "",
        "crop_fractions": (),
        "symmetries": False,
        "channel_gain": 0.0,
        "channel_exchange": 0.0,
        "pasted": 0.0,
        "drawings": 0.0,
        "gap_images": 0,
        "on_device": False,
        "device_gb": 8.0,
    },
    "train": {
        "rate_sampling": 0.0,
        "minutes": 0.0,
        "warmup_fraction": 0.02,
        "decay_fraction": 0.5,
        "transforms_from_fraction": 0.0,
        "decoder_fraction": 0.0,
        "transforms_rate": 1.0,
        "frozen": (),
        "decoder_steps": 0,
        "decoder_learning_rate": 1e-4,
        "loss_knee": 0.0,
        "eval_minutes": 0.0,
        "checkpoint_minutes": 0.0,
    },
}


def upgrade(config: Config) -> dict[str, Any]:
    """A whole config with every field that `llic_jax/configs/default.py` has.

    Args:
        config: As it was written, by this version or an older one. It is left as it is.

    Returns:
        Plain dictionaries. Fields that are there keep their values; a field whose name has changed
        has its new one, unless that is there, too.
    """
    upgraded: dict[str, Any] = copy.deepcopy(as_dict(config))
    for old, new in RENAMED.items():
        section, name = old.split(".")
        fields = upgraded.get(section)
        new_name = new.removeprefix(f"{section}.")
        if isinstance(fields, Mapping) and name in fields and new_name not in fields:
            upgraded[section] = {
                new_name if field == name else field: value for field, value in fields.items()
            }
    for section, later in _LATER.items():
        fields = upgraded.get(section)
        upgraded[section] = later | dict(fields if isinstance(fields, Mapping) else {})
    upgraded["model"] = upgrade_model(upgraded["model"])
    return upgraded


def upgrade_model(section: Config) -> dict[str, Any]:
    """A config's `model` section with every field that `llic_jax/configs/default.py` has.

    Args:
        section: As it was written, by this version or an older one. It is left as it is.

    Returns:
        Plain dictionaries; fields that are there keep their values.
    """
    upgraded = _LATER["model"] | as_dict(section)
    if isinstance(upgraded.get("style"), Mapping):
        upgraded["style"] = {"limit": 0.0} | dict(upgraded["style"])
    return upgraded
