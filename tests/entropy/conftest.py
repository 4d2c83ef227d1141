"""A tiny codec around every registered entropy model, and what is compiled of it, once a session.

The transforms are trivial: what is tested here is the entropy model, and compiling is what takes
the time.
"""

import dataclasses
from functools import cached_property
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.codec.codec import Codec
from llic_jax.codec.model import CodecModel
from llic_jax.coding.table_design import build_tables
from llic_jax.configs import default
from llic_jax.entropy.factorized import FactorizedPrior
from llic_jax.entropy.gaussian import coded_bits
from llic_jax.entropy.walk import Walk
from llic_jax.models.build import ENTROPY_MODELS, initialize
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.models.llic import LLIC
from llic_jax.ops.shapes import depth_to_space

# What differs from the common tiny config. A model that is registered needs an entry here.
TINY = {
    "stf": {"slices": 3, "max_support": 1},
    "elic": {"groups": (4, 8)},
    "tcm": {"slices": 2, "attention_channels": 8},
}
LATENT = (1, 8, 12, 12)
BATCH = 8


class Patches(nn.Module):
    """`g_a`: each 16 x 16 patch of the image to M numbers that suit an untrained entropy model."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        patches = x.reshape(b, h // 16, 16, w // 16, 16, c).transpose(0, 1, 3, 2, 4, 5)
        flat = patches.reshape(b, h // 16, w // 16, 256 * c) - 0.5
        return nn.Dense(self.channels, kernel_init=nn.initializers.normal(0.25))(flat)


class Unpatches(nn.Module):
    """`g_s`: the way back."""

    @nn.compact
    def __call__(self, y_hat: jax.Array) -> jax.Array:
        return 0.5 + depth_to_space(nn.Dense(256 * 3)(y_hat), 16)


class Spread(nn.Module):
    """`h_a` with a hyper-latent that says something: an untrained one's is rounded to zero."""

    inner: nn.Module

    def __call__(self, y: jax.Array) -> jax.Array:
        z = self.inner(y)
        return 3 * z / (jnp.std(z) + 1e-3)


def tiny(name: str) -> LLIC:
    """A codec with 12 latent and 8 hyper-latent channels."""
    config = default.get_config().model.to_dict()
    config.update(
        channels=(0, 0, 0, 12),
        hyper_channels=8,
        context_widths=(8,),
        window_sizes=(2, 4),
        head_dims=(5, 4),
    )
    config.update(TINY[name])
    parts = ENTROPY_MODELS[name](config, jnp.float32)
    prior = FactorizedPrior(parts.hyper_channels)
    h_a = Spread(parts.h_a)
    return LLIC(Patches(12), Unpatches(), h_a, parts.h_s, parts.entropy_model, prior, 12)


@dataclasses.dataclass(frozen=True)
class Subject:
    """An entropy model under test, within a tiny codec."""

    name: str
    model: LLIC
    params: Any

    @cached_property
    def codec(self) -> Codec:
        tables = build_tables(self.model.prior, self.params["prior"])
        return Codec(CodecModel(self.model, self.params, tables, b"conforms"))

    def codec_of(self, coder: str) -> Codec:
        """The codec with a range coder."""
        codec = self.codec
        return Codec(codec.model, EncoderOptions(coder=coder), networks=codec.networks)

    @cached_property
    def walk_along(self):
        """Compiled: `(hyper, y)` to the mean and scale of each step, as the walk meets them, when
        the decoded values are those of `y`."""

        def along(hyper, y):
            walk, params = Walk(self.bound, hyper, y.shape), []
            for step, mean, scale in walk:
                params.append((mean, scale))
                walk.fill(step.gather(y))
            return params

        return jax.jit(along)

    @cached_property
    def dream(self) -> tuple[list[jax.Array], list[jax.Array], float]:
        """Symbols drawn from the model's own distribution, step by step: symbols and scales of each
        step, and the estimated bits of all."""
        keys = list(jax.random.split(jax.random.key(6), len(self.model.steps)))

        @jax.jit
        def dream(hyper):
            walk, drawn = Walk(self.bound, hyper, (BATCH, *LATENT[1:])), []
            for key, (_, mean, scale) in zip(keys, walk, strict=True):
                symbols = jnp.round(scale * jax.random.normal(key, scale.shape))
                drawn.append((symbols, scale, jnp.sum(coded_bits(symbols, scale))))
                walk.fill(symbols + mean)
            return drawn

        symbols, scales, bits = zip(*dream(self.hyper(6, BATCH)), strict=True)
        return list(symbols), list(scales), float(sum(bits))

    @property
    def bound(self) -> LLIC:
        return self.model.bind({"params": self.params})

    def hyper(self, seed: int, batch: int = 1) -> Any:
        """What the hyper-synthesis makes of some `z_hat`."""
        _, h, w, _ = LATENT
        rng = np.random.default_rng(seed)
        z_hat = jnp.asarray(rng.integers(-2, 3, (batch, h // 4, w // 4, 8)), jnp.float32)
        return self._hyper_synthesize(z_hat)

    @cached_property
    def _hyper_synthesize(self):
        return jax.jit(lambda z_hat: self.bound.hyper_synthesize(z_hat))


def latent(seed: int, batch: int = 1) -> jax.Array:
    """Some `y`."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(2 * rng.standard_normal((batch, *LATENT[1:])), jnp.float32)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Something smooth with some noise, `(height, width, 3)` uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((-(-height // 16), -(-width // 16), 3))
    smooth = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    image = 128 + 50 * smooth + 8 * rng.standard_normal((height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session", params=sorted(ENTROPY_MODELS))
def subject(request: pytest.FixtureRequest) -> Subject:
    model = tiny(request.param)
    return Subject(request.param, model, initialize(model))
