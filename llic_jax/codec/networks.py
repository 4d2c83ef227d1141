"""What a codec computes: the model's functions, each compiled once per size of canvas."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from llic_jax.entropy.gaussian import choose_symbols, coded_bits, scale_level
from llic_jax.execution.bands import Banded
from llic_jax.execution.canvas import Canvas
from llic_jax.execution.program_cache import jit
from llic_jax.execution.stopwatch import Clock
from llic_jax.models.encoder_options import as_shown, back_project
from llic_jax.models.llic import LLIC, Latents
from llic_jax.ops import shapes


class Programs:
    """The model's functions, compiled once per size of canvas. What they take and return is on the
    canvas, and zero beyond the image. Highest precision: an accelerator's default rounds products
    to fewer bits, which is no way to compute probabilities.

    memory_gb: see `Banded`, which the transforms go through.
    """

    def __init__(self, model: LLIC, memory_gb: float):
        # Own modules may compute what their `repr` does not tell.
        identity = repr(model) if model.on_canvas else None

        def method(name: str, static: tuple[int, ...] = ()) -> Callable:
            def call(params, canvas, *args):
                with jax.default_matmul_precision("highest"):
                    return canvas.apply(lambda: model.apply({"params": params}, *args, method=name))

            return jit(call, f"{name} {identity}" if identity else None, static)

        self.steps = model.steps
        self.hyper_synthesize = method("hyper_synthesize")
        self.entropy_params = method("entropy_params", static=(2,))
        self.refine = method("refine", static=(2,))

        apply: Any = model.apply
        g_a, g_s = (Banded(part, memory_gb, model.on_canvas) for part in (model.g_a, model.g_s))
        to_uint8, corrected = jit(shapes.to_uint8), jit(back_project)
        shown = jit(as_shown)

        @partial(jit, identity=identity)
        def scaled(params, y, quality):
            return apply({"params": params}, y, quality, method="scale_latent")

        @partial(jit, identity=identity)
        def latents(params, canvas, y, quality):
            z = canvas.apply(lambda: apply({"params": params}, y, quality, method="hyper_analyze"))
            return Latents(y, z)

        @partial(jit, identity=identity)
        def round_hyper(params, canvas, z):
            z_hat = jnp.round(z)
            bits = apply({"params": params}, z_hat, method="prior_bits")
            return z_hat, jnp.sum(canvas.keep(bits), axis=(1, 2, 3))

        @partial(jit, identity=identity)
        def unscaled(params, y_hat, quality):
            return apply({"params": params}, y_hat, quality, True, method="scale_latent")

        def latent_of(params, canvas, x, quality):
            y = g_a(params["g_a"], canvas, x, *model.quality_argument(quality))
            return scaled(params, y, quality)

        def image_of(params, canvas, y_hat, quality):
            y_hat = unscaled(params, y_hat, quality)
            return g_s(params["g_s"], canvas, y_hat, *model.quality_argument(quality))

        def analyze(params, canvas, x, quality, factors=None):
            y = latent_of(params, canvas, x, quality)
            if factors is not None and np.any(factors):
                image = shown(image_of(params, canvas, y, quality))
                y = corrected(y, latent_of(params, canvas, image, quality), factors)
            return latents(params, canvas, y, quality)

        def synthesize(params, canvas, y_hat, quality):
            return to_uint8(image_of(params, canvas, y_hat, quality))

        @partial(jit, static_argnums=(1, 2, 3))
        def quantize(canvas, step, rdoq_weight, mixture, y, mean, scale):
            symbols = choose_symbols(step.gather(y) - mean, scale, rdoq_weight)
            bits = jnp.sum(canvas.keep(coded_bits(symbols, scale, mixture)), axis=(1, 2, 3))
            return symbols.astype(jnp.int32), symbols + mean, bits

        def add(symbols, mean):
            return symbols.astype(jnp.float32) + mean

        self.analyze, self.round_hyper = analyze, round_hyper
        self.synthesize, self.quantize = synthesize, quantize
        self.levels = jit(scale_level)
        self.add = jit(add)


class CompiledSteps:
    """The entropy model as the walk sees it, each call one compiled program."""

    def __init__(self, programs: Programs, params: Any, canvas: Canvas, clock: Clock):
        self.programs, self.params, self.canvas, self.clock = programs, params, canvas, clock
        self.steps = programs.steps

    def entropy_params(self, k: int, hyper: Any, y_hat: Array, carry: Any):
        call = self.programs.entropy_params
        return self.clock.network(call(self.params, self.canvas, k, hyper, y_hat, carry))

    def refine(self, k: int, hyper: Any, y_hat: Array, carry: Any):
        return self.programs.refine(self.params, self.canvas, k, hyper, y_hat, carry)
