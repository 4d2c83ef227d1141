"""Checks of the `train` section of a configuration, before anything is loaded."""

from collections.abc import Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from llic_jax.configs.config import Config
from llic_jax.errors import ConfigError
from llic_jax.training.time_schedule import TimeSchedule


def check_config(config: Config) -> None:
    settings, section = config["train"], config["data"]
    if len(settings["lmbdas"]) != config["model"]["levels"]:
        raise ConfigError(
            f"train.lmbdas has {len(settings['lmbdas'])} entries and model.levels is "
            f"{config['model']['levels']}; a level needs one lambda."
        )
    parts = jax.device_count() * settings["accumulate"]
    if settings["batch_size"] % parts:
        raise ConfigError(
            f"train.batch_size {settings['batch_size']} does not divide among {jax.device_count()} "
            f"devices with {settings['accumulate']} parts each; use a multiple of {parts}."
        )
    by_time = settings["schedule"] == "time"
    if by_time:
        TimeSchedule.of(config)
    last = 0 if by_time else settings["decoder_steps"]
    if last and settings["transforms_from"] + last > settings["steps"]:
        raise ConfigError(
            f"train.steps {settings['steps']} is less than train.transforms_from and "
            f"train.decoder_steps together, {settings['transforms_from']} and {last}; take fewer "
            "of these, or more in all."
        )
    if not by_time and len(section["crops"]) != len(section["crop_boundaries"]) + 1:
        raise ConfigError(
            f"data.crops {section['crops']} needs {len(section['crops']) - 1} boundaries between "
            f"its stages; data.crop_boundaries is {section['crop_boundaries']}."
        )
    if bad := [crop for crop in section["crops"] if crop % 64 or crop < 64]:
        raise ConfigError(f"data.crops: {bad} are not multiples of 64.")
    for name in ("drawings", "pasted", "channel_exchange"):
        if not 0 <= section[name] <= 1:
            raise ConfigError(f"data.{name} is {section[name]}; a share is from 0 to 1.")
    if section["channel_gain"] < 0 or section["gap_images"] < 0:
        raise ConfigError("data.channel_gain and data.gap_images are not negative.")


def check_frozen(params: Any, frozen: Sequence[str]) -> None:
    names = {name for path in flatten_dict(params) for name in path}
    if odd := [name for name in frozen if name not in names]:
        raise ConfigError(
            f"train.frozen: {', '.join(odd)} is no part or layer of this model; it has "
            f"{', '.join(sorted(names))}."
        )
