"""What a codec computes: the model's functions, each compiled once per shape."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from llic_jax import metrics
from llic_jax.bands import Banded
from llic_jax.coding.checked import Clock
from llic_jax.entropy.gaussian import coded_bits, scale_level
from llic_jax.model import LLIC


class Latents(NamedTuple):
    """The latents of one image, before they are rounded."""

    y: Float[Array, "1 h16 w16 m"]
    z: Float[Array, "1 h64 w64 n"]


class Programs:
    """The model's functions, compiled once per shape. Highest precision: an accelerator's default
    rounds products to fewer bits, which is no way to compute probabilities.

    memory_gb: see `Banded`, which the transforms go through.
    """

    def __init__(self, model: LLIC, memory_gb: float):
        def method(name: str, static: tuple[int, ...] = ()) -> Callable:
            def call(params, *args):
                with jax.default_matmul_precision("highest"):
                    return model.apply({"params": params}, *args, method=name)

            return jax.jit(call, static_argnums=static)

        self.steps = model.steps
        self.hyper_synthesize = method("hyper_synthesize")
        self.entropy_params = method("entropy_params", static=(1,))
        self.refine = method("refine", static=(1,))

        apply: Any = model.apply
        g_a, g_s = Banded(model.g_a, memory_gb), Banded(model.g_s, memory_gb)
        to_uint8 = jax.jit(metrics.to_uint8)

        @jax.jit
        def latents(params, y, quality):
            y = apply({"params": params}, y, quality, method="scale_latent")
            return Latents(y, apply({"params": params}, y, quality, method="hyper_analyze"))

        @jax.jit
        def round_hyper(params, z):
            z_hat = jnp.round(z)
            return z_hat, jnp.sum(apply({"params": params}, z_hat, method="prior_bits"))

        @jax.jit
        def unscaled(params, y_hat, quality):
            return apply({"params": params}, y_hat, quality, True, method="scale_latent")

        def analyze(params, x, quality):
            return latents(params, g_a(params["g_a"], x), quality)

        def synthesize(params, y_hat, quality):
            return to_uint8(g_s(params["g_s"], unscaled(params, y_hat, quality)))

        @partial(jax.jit, static_argnums=0)
        def quantize(step, y, mean, scale):
            symbols = jnp.round(step.gather(y) - mean)
            bits = jnp.sum(coded_bits(symbols, scale))
            return symbols.astype(jnp.int32), symbols + mean, bits

        self.analyze, self.round_hyper = analyze, round_hyper
        self.synthesize, self.quantize = synthesize, quantize
        self.levels = jax.jit(scale_level)
        self.add = jax.jit(lambda symbols, mean: symbols.astype(jnp.float32) + mean)


class CompiledSteps:
    """The entropy model as the walk sees it, each call one compiled program."""

    def __init__(self, programs: Programs, params: Any, clock: Clock):
        self.programs, self.params, self.clock, self.steps = programs, params, clock, programs.steps

    def entropy_params(self, k: int, hyper: Any, y_hat: Array, carry: Any):
        return self.clock.network(self.programs.entropy_params(self.params, k, hyper, y_hat, carry))

    def refine(self, k: int, hyper: Any, y_hat: Array, carry: Any):
        return self.programs.refine(self.params, k, hyper, y_hat, carry)
