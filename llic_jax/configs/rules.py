"""What each field of a config may be: one rule a field, checked before anything is opened.

A rule knows a field alone. Fields that have to go together are checked where they are used
(`training/settings.py`, `models/build.py`, `models/encoder_options.py`).
"""

import difflib
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llic_jax.configs.upgrade import HISTORY, RENAMED
from llic_jax.errors import ConfigError

DISTORTIONS = ("mse", "ms_ssim")
OPTIMIZERS = ("adam", "soap")
SCHEDULES = ("steps", "cosine", "constant", "time")
# What runs and released folders note in a config beside its fields.
_HISTORY = {"started_from", *HISTORY}


class Rule(NamedTuple):
    """The values that a field may have.

    Attributes:
        expected: Completes "FIELD is VALUE; ..." in an error.
        holds: Whether a value is one of them.
    """

    expected: str
    holds: Callable[[Any], bool]


def _integer(least: int, most: int | None = None) -> Rule:
    span = f"{least} or more" if most is None else f"from {least} to {most}"

    def holds(value: Any) -> bool:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return whole and value >= least and (most is None or value <= most)

    return Rule(f"expected an integer, {span}", holds)


def _number(least: float | None = None, most: float = math.inf, above: bool = False) -> Rule:
    """A finite number; with `above`, larger than `least`."""
    if least is None:
        span = "that is finite"
    elif above:
        span = f"above {least:g}"
    else:
        span = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"

    def holds(value: Any) -> bool:
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return False
        small = least is not None and (value <= least if above else value < least)
        return math.isfinite(value) and not small and value <= most

    return Rule(f"expected a number {span}", holds)


def _several(rule: Rule, least: int = 0) -> Rule:
    """A tuple, or a list as JSON has it, of so many values at least."""

    def holds(value: Any) -> bool:
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and len(value) >= least and all(map(rule.holds, value))

    count = "one or more values" if least else "values"
    each = rule.expected.removeprefix("expected ")
    return Rule(f"expected a tuple of {count}, each {each}", holds)


def _choice(*known: str) -> Rule:
    return Rule(f"known are {', '.join(known)}", known.__contains__)


_BOOLEAN = Rule("expected True or False", lambda value: isinstance(value, bool))
_TEXT = Rule("expected text", lambda value: isinstance(value, str))
_NAME = Rule(
    "expected text that is not empty", lambda value: isinstance(value, str) and bool(value)
)
_COUNT = _integer(1)
_SHARE = _number(0.0, 1.0)
_NOT_NEGATIVE = _number(0.0)

RULES: dict[str, Rule] = {
    "seed": _integer(0, 2**31 - 1),
    "model.entropy_model": _NAME,  # one's own can be registered: models/build.py knows the names
    "model.channels": _several(_COUNT, 1),
    "model.kernel_sizes": _several(_COUNT, 1),
    "model.depths": _several(_integer(0), 1),
    "model.strides": _several(_integer(2), 1),
    "model.generator_width": _integer(0),
    "model.style.self_conditioned": _BOOLEAN,
    "model.style.channel_transform": _BOOLEAN,
    "model.style.gate": _BOOLEAN,
    "model.style.depth_rb": _BOOLEAN,
    "model.activation_limit": _NOT_NEGATIVE,
    "model.hyper_channels": _COUNT,
    "model.groups": _several(_COUNT, 1),
    "model.slices": _COUNT,
    "model.max_support": _integer(0),
    "model.context_widths": _several(_COUNT, 1),
    "model.attention_channels": _COUNT,
    "model.window_sizes": _several(_COUNT, 1),
    "model.head_dims": _several(_COUNT, 1),
    "model.mixture": _several(_several(_number(0.0, above=True), 1)),
    "model.levels": _COUNT,
    "model.branch_gains": _BOOLEAN,
    "model.dtype": _choice("float32", "bfloat16"),
    "model.remat": _BOOLEAN,
    "coding.shift_resolution": _integer(0),
    "coding.rdoq_weight": _NOT_NEGATIVE,
    "coding.back_projection": _several(_number()),
    "data.source": _TEXT,
    "data.validation": _TEXT,
    "data.crops": _several(_COUNT, 1),
    "data.crop_boundaries": _several(_COUNT),
    "data.crop_fractions": _several(_SHARE),
    "data.flip": _BOOLEAN,
    "data.downsample": _BOOLEAN,
    "data.symmetries": _BOOLEAN,
    "data.channel_gain": _NOT_NEGATIVE,
    "data.channel_exchange": _SHARE,
    "data.pasted": _SHARE,
    "data.drawings": _SHARE,
    "data.held_back": _integer(0),
    "data.gap_images": _integer(0),
    "data.cache_gb": _NOT_NEGATIVE,
    "data.threads": _COUNT,
    "data.on_device": _BOOLEAN,
    "data.device_gb": _number(0.0, above=True),
    "train.distortion": _choice(*DISTORTIONS),
    "train.lmbdas": _several(_number(0.0, above=True), 1),
    "train.rate_weighting": _number(),
    "train.rate_sampling": _number(),
    "train.batch_size": _COUNT,
    "train.accumulate": _COUNT,
    "train.steps": _COUNT,
    "train.optimizer": _choice(*OPTIMIZERS),
    "train.learning_rate": _NOT_NEGATIVE,
    "train.schedule": _choice(*SCHEDULES),
    "train.schedule_boundaries": _several(_COUNT),
    "train.schedule_factors": _several(_number(0.0, above=True)),
    "train.warmup_steps": _integer(0),
    "train.minutes": _NOT_NEGATIVE,
    "train.warmup_fraction": _SHARE,
    "train.decay_fraction": _SHARE,
    "train.transforms_from_fraction": _SHARE,
    "train.decoder_fraction": _SHARE,
    "train.start": _NAME,
    "train.transforms_from": _integer(0),
    "train.transforms_rate": _NOT_NEGATIVE,
    "train.frozen": _several(_NAME),
    "train.final_factor": _SHARE,
    "train.decoder_steps": _integer(0),
    "train.decoder_learning_rate": _NOT_NEGATIVE,
    "train.loss_knee": _NOT_NEGATIVE,
    "train.clip_norm": _number(0.0, above=True),
    "train.ema_decay": _SHARE,
    "train.log_every": _COUNT,
    "train.eval_every": _COUNT,
    "train.checkpoint_every": _COUNT,
    "train.eval_minutes": _NOT_NEGATIVE,
    "train.checkpoint_minutes": _NOT_NEGATIVE,
    "train.keep_checkpoints": _COUNT,
    "train.tensorboard": _BOOLEAN,
}


def check_fields(config: Mapping[str, Any], own_model_fields: bool = False) -> None:
    """Checks every field of a whole config by its rule.

    Args:
        config: Plain dictionaries, as `upgrade` makes them.
        own_model_fields: Allows fields of `model` that `default.py` does not have: those of an
            entropy model of one's own.

    Raises:
        ConfigError: A field is unknown or missing, or its value is not one of those that it may
            have. The message is one line with the field's name.
    """
    fields = dict(_flat(config))
    for name, value in fields.items():
        rule = RULES.get(name)
        if rule is None:
            if name in _HISTORY or (own_model_fields and name.startswith("model.")):
                continue
            raise ConfigError(unknown_field(name))
        if not rule.holds(value):
            raise ConfigError(f"{name} is {value!r}; {rule.expected}.")
    if missing := [name for name in RULES if name not in fields]:
        raise ConfigError(f"The config has no {missing[0]}; llic_jax/configs/default.py has all.")


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of each field."""
    for name, value in config.items():
        if isinstance(value, Mapping) and prefix + name not in _HISTORY:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + str(name), value


def unknown_field(name: str) -> str:
    """What is wrong with a dotted name that no config has."""
    if name in RENAMED:
        return f"{name} is no field of a config: it is {RENAMED[name]} now."
    similar = difflib.get_close_matches(name, RULES, 1)
    hint = f"Did you mean {similar[0]}?" if similar else "llic_jax/configs/default.py has them all."
    return f"{name} is no field of a config. {hint}"
