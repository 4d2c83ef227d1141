"""The settings of a run, typed: made and checked once from a config."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
from flax.traverse_util import flatten_dict

from llic_jax.configs.config import Config
from llic_jax.configs.rules import check_fields
from llic_jax.configs.upgrade import upgrade
from llic_jax.errors import ConfigError
from llic_jax.metrics.distortion import MS_SSIM_MIN_SIDE
from llic_jax.models.build import ENTROPY_MODELS
from llic_jax.models.encoder_options import EncoderOptions

_BUILT_IN = {"stf", "elic", "tcm"}


_Section = TypeVar("_Section", bound="DataSettings | TrainSettings")


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """A config's `data` section; every field is explained in `configs/default.py`."""

    source: str
    validation: str
    crops: tuple[int, ...]
    crop_boundaries: tuple[int, ...]
    crop_fractions: tuple[float, ...]
    flip: bool
    downsample: bool
    symmetries: bool
    channel_gain: float
    channel_exchange: float
    pasted: float
    drawings: float
    held_back: int
    gap_images: int
    cache_gb: float
    threads: int
    on_device: bool
    device_gb: float


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """A config's `train` section; every field is explained in `configs/default.py`."""

    distortion: str
    lmbdas: tuple[float, ...]
    rate_weighting: float
    rate_sampling: float
    batch_size: int
    accumulate: int
    steps: int
    optimizer: str
    learning_rate: float
    schedule: str
    schedule_boundaries: tuple[int, ...]
    schedule_factors: tuple[float, ...]
    warmup_steps: int
    minutes: float
    warmup_fraction: float
    decay_fraction: float
    transforms_from_fraction: float
    decoder_fraction: float
    start: str
    transforms_from: int
    transforms_rate: float
    frozen: tuple[str, ...]
    final_factor: float
    decoder_steps: int
    decoder_learning_rate: float
    loss_knee: float
    clip_norm: float
    ema_decay: float
    log_every: int
    eval_every: int
    checkpoint_every: int
    eval_minutes: float
    checkpoint_minutes: float
    keep_checkpoints: int
    tensorboard: bool

    @classmethod
    def of(cls, config: Config) -> "TrainSettings":
        """Those of a whole config, also an older one, whose fields are checked one by one.

        Raises:
            ConfigError: See `check_fields`.
        """
        return _typed(cls, _checked(config)["train"])

    @property
    def by_time(self) -> bool:
        """Whether the clock decides, and the step takes its learning rate as an argument."""
        return self.schedule == "time"


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The settings of a whole run.

    Attributes:
        seed: Of the initialization, the noise and the order of the data.
        model: The `model` section, for `build_model`.
        options: How the encoder chooses symbols.
        data, train: The sections of these names.
    """

    seed: int
    model: Mapping[str, Any]
    options: EncoderOptions
    data: DataSettings
    train: TrainSettings

    @classmethod
    def of(cls, config: Config) -> "RunSettings":
        """Those of a whole config, also an older one, on the devices that are there.

        Raises:
            ConfigError: A field that cannot be, or fields that do not go together. The message is
                one line.
        """
        config = _checked(config)
        settings = cls(
            seed=config["seed"],
            model=config["model"],
            options=EncoderOptions.of(config["coding"], config["model"]["levels"]),
            data=_typed(DataSettings, config["data"]),
            train=_typed(TrainSettings, config["train"]),
        )
        settings._check()
        return settings

    def _check(self) -> None:
        """Raises ConfigError where fields do not go together."""
        train, data = self.train, self.data
        if len(train.lmbdas) != self.model["levels"]:
            raise ConfigError(
                f"train.lmbdas has {len(train.lmbdas)} entries and model.levels is "
                f"{self.model['levels']}; a level needs one lambda."
            )
        parts = jax.device_count() * train.accumulate
        if train.batch_size % parts:
            raise ConfigError(
                f"train.batch_size {train.batch_size} does not divide among {jax.device_count()} "
                f"devices with {train.accumulate} parts each; use a multiple of {parts}."
            )
        if train.by_time:
            self._check_fractions()
        else:
            self._check_steps()
        if train.distortion == "ms_ssim" and min(data.crops) < MS_SSIM_MIN_SIDE:
            raise ConfigError(
                f"data.crops is {data.crops}; with train.distortion 'ms_ssim' each needs "
                f"{MS_SSIM_MIN_SIDE} pixels or more, and multiples of 64: 192 is the least."
            )
        if bad := [crop for crop in data.crops if crop % 64]:
            raise ConfigError(f"data.crops: {bad} are not multiples of 64.")

    def _check_fractions(self) -> None:
        train, data = self.train, self.data
        if not train.minutes > 0:
            raise ConfigError(
                f"train.minutes is {train.minutes}; with train.schedule 'time' it is how long the "
                "run lasts."
            )
        if train.transforms_from_fraction + train.decoder_fraction >= 1:
            raise ConfigError(
                "train.transforms_from_fraction and train.decoder_fraction leave no time in which "
                "everything learns; their sum has to be less than 1."
            )
        _check_ascending("data.crop_fractions", data.crop_fractions)
        if len(data.crops) != len(data.crop_fractions) + 1:
            raise ConfigError(
                f"data.crops {data.crops} needs {len(data.crops) - 1} ascending fractions between "
                f"its stages; data.crop_fractions is {data.crop_fractions}."
            )

    def _check_steps(self) -> None:
        train, data = self.train, self.data
        last = train.decoder_steps
        if last and train.transforms_from + last > train.steps:
            raise ConfigError(
                f"train.steps {train.steps} is less than train.transforms_from and "
                f"train.decoder_steps together, {train.transforms_from} and {last}; take fewer of "
                "these, or more in all."
            )
        if len(data.crops) != len(data.crop_boundaries) + 1:
            raise ConfigError(
                f"data.crops {data.crops} needs {len(data.crops) - 1} boundaries between its "
                f"stages; data.crop_boundaries is {data.crop_boundaries}."
            )
        _check_ascending("data.crop_boundaries", data.crop_boundaries)
        if train.schedule == "steps":
            _check_ascending("train.schedule_boundaries", train.schedule_boundaries)
            if len(train.schedule_boundaries) != len(train.schedule_factors):
                raise ConfigError(
                    f"train.schedule_boundaries has {len(train.schedule_boundaries)} entries and "
                    f"train.schedule_factors {len(train.schedule_factors)}; from each boundary on "
                    "one factor holds."
                )


def check_frozen(params: Any, frozen: Sequence[str]) -> None:
    """Checks that `train.frozen` names parts or layers of a model.

    Args:
        params: The model's parameters, a tree.
        frozen: Names.

    Raises:
        ConfigError: A name that the model does not have.
    """
    names = {name for path in flatten_dict(params) for name in path}
    if odd := [name for name in frozen if name not in names]:
        raise ConfigError(
            f"train.frozen: {', '.join(odd)} is no part or layer of this model; it has "
            f"{', '.join(sorted(names))}."
        )


def _checked(config: Config) -> dict[str, Any]:
    upgraded = upgrade(config)
    own = ENTROPY_MODELS.keys() - _BUILT_IN  # an entropy model of one's own has its own fields
    check_fields(upgraded, own_model_fields=upgraded["model"].get("entropy_model") in own)
    return upgraded


def _typed(kind: type[_Section], section: Mapping[str, Any]) -> _Section:
    """A section with JSON's lists as tuples, and whole numbers as floats where these may stand."""
    values = {}
    for field in dataclasses.fields(kind):
        value: Any = section[field.name]
        if isinstance(value, list):
            value = tuple(value)
        if field.type is float:
            value = float(value)
        elif field.type == tuple[float, ...]:
            value = tuple(map(float, value))
        values[field.name] = value
    return kind(**values)


def _check_ascending(name: str, values: Sequence[int] | Sequence[float]) -> None:
    if any(before >= after for before, after in itertools.pairwise(values)):
        raise ConfigError(f"{name} is {values}; its entries have to ascend.")
