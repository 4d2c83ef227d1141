"""What a codec computes: the model's functions, each compiled once per shape."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from llic_jax import metrics
from llic_jax.coding.checked import Clock
from llic_jax.entropy.gaussian import coded_bits, scale_level
from llic_jax.model import LLIC


class Programs:
    """The model's functions, compiled once per shape. Highest precision: an accelerator's default
    rounds products to fewer bits, which is no way to compute probabilities."""

    def __init__(self, model: LLIC):
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

        @jax.jit
        def analyze(params, x, quality):
            y = apply({"params": params}, x, quality, method="analyze")
            z = apply({"params": params}, y, quality, method="hyper_analyze")
            z_hat = jnp.round(z)
            bits = apply({"params": params}, z_hat, method="prior_bits")
            return y, z_hat, jnp.sum(bits)

        @jax.jit
        def synthesize(params, y_hat, quality):
            x_hat = apply({"params": params}, y_hat, quality, method="synthesize")
            return metrics.to_uint8(x_hat)

        @partial(jax.jit, static_argnums=0)
        def quantize(step, y, mean, scale):
            symbols = jnp.round(step.gather(y) - mean)
            bits = jnp.sum(coded_bits(symbols, scale))
            return symbols.astype(jnp.int32), symbols + mean, bits

        self.analyze, self.synthesize, self.quantize = analyze, synthesize, quantize
        self.levels = jax.jit(scale_level)
        self.add = jax.jit(lambda symbols, mean: symbols.astype(jnp.float32) + mean)


class CompiledSteps:
    """The entropy model as the walk sees it, each call one compiled program."""

    def __init__(self, programs: Programs, params: Any, clock: "Clock"):
        self.programs, self.params, self.clock, self.steps = programs, params, clock, programs.steps

    def entropy_params(self, k: int, hyper: Any, y_hat: Array, carry: Any):
        return self.clock.network(self.programs.entropy_params(self.params, k, hyper, y_hat, carry))

    def refine(self, k: int, hyper: Any, y_hat: Array, carry: Any):
        return self.programs.refine(self.params, k, hyper, y_hat, carry)
