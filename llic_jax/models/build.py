"""Models from configurations, and their initial parameters."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from llic_jax.configs.config import Config, as_dict
from llic_jax.configs.rules import RULES
from llic_jax.entropy import elic, stf, tcm
from llic_jax.entropy.factorized import FactorizedPrior
from llic_jax.entropy.gaussian import mixture_of
from llic_jax.entropy.walk import EntropyParts
from llic_jax.errors import ConfigError
from llic_jax.layers.initializers import init_params
from llic_jax.layers.quality import Gain
from llic_jax.models.llic import LLIC
from llic_jax.ops.sizes import HYPER_STRIDE, LATENT_STRIDE
from llic_jax.transforms.blocks import BlockStyle
from llic_jax.transforms.transforms import AnalysisTransform, SynthesisTransform

# Values of a config's `model.entropy_model`. Each makes its parts from the `model` section and the
# type of the computation. Further ones can be added here, also from outside.
ENTROPY_MODELS: dict[str, Callable[[Mapping[str, Any], DTypeLike], EntropyParts]] = {
    "stf": stf.build,
    "elic": elic.build,
    "tcm": tcm.build,
}


def build_model(config: Config) -> LLIC:
    """The module that a config describes.

    Args:
        config: The `model` section, with every field that `configs/default.py` has. Those of an
            older config come from `configs.upgrade.upgrade`.

    Returns:
        The module, without parameters.

    Raises:
        ConfigError: A field is missing, the entropy model is unknown, or sizes do not go together.
    """
    config = as_dict(config)
    _check_complete(config)
    name = config["entropy_model"]
    if name not in ENTROPY_MODELS:
        raise ConfigError(
            f"model.entropy_model is {name!r}; known are {', '.join(sorted(ENTROPY_MODELS))}."
        )
    _check_stages(config)
    latent, levels = config["channels"][-1], config["levels"]
    branch_gains = levels > 1 and config["branch_gains"]
    dtype = jnp.dtype(config["dtype"])
    transform = dict(
        channels=tuple(config["channels"]),
        kernel_sizes=tuple(config["kernel_sizes"]),
        depths=tuple(config["depths"]),
        strides=tuple(config["strides"]),
        style=BlockStyle(
            **config["style"],
            activation_limit=config["activation_limit"],
            generator_width=config["generator_width"],
        ),
        levels=levels if branch_gains else 1,
        remat=config["remat"],
        dtype=dtype,
    )
    parts = ENTROPY_MODELS[name](config, dtype)
    return LLIC(
        g_a=AnalysisTransform(**transform),
        g_s=SynthesisTransform(**transform),
        h_a=parts.h_a,
        h_s=parts.h_s,
        entropy_model=parts.entropy_model,
        prior=FactorizedPrior(parts.hyper_channels),
        latent_channels=latent,
        mixture=mixture_of(config["mixture"]),
        gain_y=Gain(levels, latent) if levels > 1 else None,
        gain_z=Gain(levels, parts.hyper_channels) if levels > 1 else None,
        takes_quality=branch_gains,
        on_canvas=parts.on_canvas,
    )


def _check_complete(config: Config) -> None:
    """Raises ConfigError unless the `model` section has all fields that built-in models need."""
    for name in RULES:
        section, field = name.split(".")[:2] if "." in name else ("", name)
        if section == "model" and field not in config:
            raise ConfigError(
                f"The config has no model.{field}. llic_jax.configs.upgrade.upgrade(config) adds "
                "the fields that an older config lacks."
            )


def _check_stages(config: Mapping[str, Any]) -> None:
    """Raises ConfigError unless the transforms' fields describe the same stages, down to 1/16."""
    fields = ("channels", "kernel_sizes", "depths", "strides")
    stages = {f"model.{key}": len(config[key]) for key in fields}
    if len(set(stages.values())) != 1 or not config["strides"]:
        raise ConfigError(
            "The transforms need one entry a stage in each of "
            f"{', '.join(f'{name} (has {count})' for name, count in stages.items())}; "
            "make their lengths equal (the paper has four stages)."
        )
    strides = tuple(config["strides"])
    if min(strides) < 2 or math.prod(strides) != LATENT_STRIDE:
        raise ConfigError(
            f"model.strides is {strides}; the latent is at 1/{LATENT_STRIDE} of the image's size, "
            f"so they must be 2 or more and their product {LATENT_STRIDE}, as (2, 2, 2, 2) or "
            "(8, 2)."
        )


def parameter_shapes(model: LLIC) -> Any:
    """The shapes of a model's parameters; traced, nothing is computed.

    Args:
        model: The module.

    Returns:
        A tree of `jax.ShapeDtypeStruct`s.
    """
    key = jax.random.key(0)
    return jax.eval_shape(lambda *x: model.init(key, *x)["params"], *_example_input(model))


def initialize(model: LLIC, seed: int = 0) -> dict[str, Any]:
    """Fresh parameters; shapes are traced, nothing is computed.

    Args:
        model: The module.
        seed: That they are drawn from.

    Returns:
        A tree of float32 arrays.
    """
    return init_params(model, seed, *_example_input(model))


def _example_input(model: LLIC) -> tuple[jax.ShapeDtypeStruct | None, ...]:
    image = jax.ShapeDtypeStruct((1, HYPER_STRIDE, HYPER_STRIDE, 3), jnp.float32)
    quality = jax.ShapeDtypeStruct((1,), jnp.float32) if model.levels > 1 else None
    return image, quality
