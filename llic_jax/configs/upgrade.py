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
    "model.style.limit": "model.activation_limit",
    "coding.mixture": "model.mixture",
    "coding.units": "coding.shift_resolution",
    "train.level_balance": "train.rate_weighting",
    "train.level_density": "train.rate_sampling",
}

# What a released folder's config notes of its training, with the value for "not known".
HISTORY: dict[str, Any] = {
    "trained_steps": 0,
    "trained_hours": None,
    "trained_crops": None,
    "trained_sizes": None,
    "mean_with": (),
}

# Fields that came later, with the value that runs had until then.
_LATER: dict[str, dict[str, Any]] = {
    "model": {
        "branch_gains": False,
        "strides": (2, 2, 2, 2),
        "generator_width": 0,
        "activation_limit": 0.0,
        "mixture": (),
    },
    "coding": {"shift_resolution": 400, "rdoq_weight": 0.0, "back_projection": ()},
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
        Plain dictionaries. Fields that are there keep their values. A field whose name has changed
        has its new name, unless that is there, too.
    """
    upgraded: dict[str, Any] = copy.deepcopy(as_dict(config))
    for section in _LATER:
        if not isinstance(upgraded.get(section), Mapping):
            upgraded[section] = {}
    for old, new in RENAMED.items():
        (before, name), (after, new_name) = _place(upgraded, old), _place(upgraded, new)
        if before is not None and name in before and after is not None and new_name not in after:
            after[new_name] = before.pop(name)
    for section, later in _LATER.items():
        upgraded[section] = later | upgraded[section]
    return upgraded


def history(config: Config) -> dict[str, Any]:
    """What a config notes of a model's training: every field of `HISTORY`.

    Args:
        config: Of a released folder.

    Returns:
        Steps, hours and crops of the training, the crops' sizes in pixels, and the names of the
        folders whose weights were averaged with it. None where the config does not say.
    """
    return HISTORY | {name: value for name, value in config.items() if name in HISTORY}


def _place(config: dict[str, Any], field: str) -> tuple[dict[str, Any] | None, str]:
    """The section that a dotted name is in, None if it is none, and its own name there."""
    *sections, name = field.split(".")
    place: Any = config
    for section in sections:
        place = place.get(section) if isinstance(place, dict) else None
    return (place if isinstance(place, dict) else None), name
