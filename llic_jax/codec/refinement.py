"""Refinement: gradient descent on the latents of one image, before they are coded.

    image -> analyze -> y, z -> [soft rounding -> rate + lambda distortion -> Adam] -> encode
                                  ^ lambda from the goal: PSNR or bits of the rounded latents

The networks learnt to find good latents for all images; for one image better ones can be searched
for. The decoder notices nothing. Yang, Bamler and Mandt, "Improving Inference for Neural Image
Compression" (NeurIPS 2020): each latent is drawn, softly, from the two integers around it, the
nearer one the likelier, and the draw is sharpened as the search goes on (stochastic Gumbel
annealing). Theirs takes thousands of steps. For tens of them we let only the odds sharpen and leave
the relaxation's own temperature at one, whose gradients are the steadier; and gradients of less
than a few bits move a latent little (our choices, measured on training photographs held back).

At the lambda of the model's training the search ends at another PSNR than the quality has without
it: the plain encoder chooses symbols in another way. So lambda follows a goal: every few steps the
latents are rounded, and lambda rises or falls by the fourth power of how far they are from it. What
is kept is the best of these that meets it (our choice; docs/results.md has the figures).

A gradient keeps all that it needs of the image. Where that is too much, it is computed window by
window (`windows.py`), all windows before a step.
"""

import itertools
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Key, UInt8

from llic_jax.codec.effort import Goal, Refinement
from llic_jax.codec.networks import program_identity
from llic_jax.codec.windows import Window, windows
from llic_jax.entropy.gaussian import gaussian_bits
from llic_jax.entropy.walk import Walk
from llic_jax.errors import ImageSizeError, InputError
from llic_jax.execution.bands import GIB, RESERVED_GIB
from llic_jax.execution.program_cache import cached_jit
from llic_jax.layers.quality import lmbda_of_quality
from llic_jax.models.llic import LLIC, Latents
from llic_jax.ops.shapes import to_float
from llic_jax.ops.sizes import HYPER_STRIDE, LATENT_STRIDE, pad_to_multiple

_WINDOW_BYTES = 2048  # a pixel of what a gradient keeps, released model
_IMAGE_BYTES = 64  # a pixel of what is kept of the whole image: latents, Adam's averages, pixels
# What the reserve of the budget is enough for, whatever is allowed: windows, and images.
_SMALL_WINDOW, _SMALL_IMAGE = 64, 1 << 22  # blocks of 64 pixels; pixels
_LEARNING_RATE = 0.2  # in units of the quantization step; falls to zero as a half cosine
_TEMPERATURES = 0.4, 0.1  # of the odds, first and last; falls geometrically
_ADAM = optax.scale_by_adam(b1=0.8, eps=5.0)  # gradients are in bits
_EVERY = 5  # steps after which lambda is set anew
_POWER = 4.0  # of the distance from the goal that lambda changes by; 1 is too weak for 60 steps
_FURTHEST = 10.0  # that lambda goes from the model's own, up or down
_MARGIN = 10**-0.001  # of the squared error, 0.01 dB better than the goal


class Refiner:
    """Refines latents with one model, whose compiled gradient it owns.

    The cost is bits + lambda 255^2 MSE pixels, the loss of the model's training.

    Args:
        network: The model.
        params: Its parameters.
        lambdas: Of its training, one per quality level; () where there were none.
        memory_gb: GiB that coding may take.
    """

    def __init__(self, network: LLIC, params: Any, lambdas: tuple[float, ...], memory_gb: float):
        self._network, self._params, self._lambdas = network, params, lambdas
        self._memory_gb = memory_gb
        gradient = jax.grad(nn.apply(_cost, network), argnums=1)

        def refine_gradient(params, latents, x, inside, level, lmbda, seeds, temperature):
            key = jax.random.fold_in(jax.random.key(seeds[0]), seeds[1])
            return gradient({"params": params}, latents, x, inside, level, lmbda, key, temperature)

        def refine_measure(params, *args):
            return nn.apply(_rounded, network)({"params": params}, *args)

        identity = program_identity(network, params)
        self._gradient = cached_jit(refine_gradient, identity)
        self._measure = cached_jit(refine_measure, identity)

    def check(self, height: int, width: int) -> None:
        """Refuses images that cannot be refined.

        Args:
            height: Of the image, pixels.
            width: Of the image, pixels.

        Raises:
            ImageSizeError: They take more memory than is allowed.
            InputError: A model whose training had no lambda for the squared error.
        """
        needed = _IMAGE_BYTES * height * width / GIB + RESERVED_GIB
        if height * width > _SMALL_IMAGE and needed > self._memory_gb:
            raise ImageSizeError(
                f"Effort takes about {needed:.1f} GiB of memory for {width} x {height} pixels; "
                f"allowed are {self._memory_gb:g}. A larger memory_gb allows more; or compress "
                "without effort."
            )
        if not self._lambdas:
            raise InputError(
                "Effort descends the model's loss, rate + lambda MSE, and this model names no "
                "lambda: its config has no train.lmbdas, or another distortion. Compress without "
                "effort."
            )

    def lmbda(self, quality: float | None) -> float:
        """The weight of the squared error at a quality; that of the one rate for None."""
        if quality is None:
            return self._lambdas[0]
        return float(lmbda_of_quality(jnp.full(1, quality, jnp.float32), self._lambdas)[0])

    def refine(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        latents: Latents,
        quality: float | None,
        refinement: Refinement,
        goal: Goal,
        visible: Bool[np.ndarray, "h w"] | None = None,
    ) -> Latents | None:
        """The best latents, rounded, that meet a goal.

        Args:
            image: Of them.
            latents: Where the search begins; of the padded image's own size.
            quality: To refine for; None for a model of one rate.
            refinement: How long to search.
            goal: To be met.
            visible: Pixels whose error counts; all by default.

        Returns:
            None if none met it.
        """
        started = time.perf_counter()
        steps, seconds, progress = refinement
        steps = steps or sys.maxsize
        # On the host: a gradient takes windows of them.
        latents = Latents(*map(np.asarray, latents))
        state = _ADAM.init(latents)
        level = None if quality is None else jnp.full(1, quality, jnp.float32)
        x = to_float(pad_to_multiple(image[None], HYPER_STRIDE))
        # Errors count inside the image only; as an array, so that sizes that pad alike share a
        # program.
        inside = np.zeros((*x.shape[:3], 1), np.float32)
        inside[0, : image.shape[0], : image.shape[1], 0] = 1 if visible is None else visible
        most = self._window_blocks(*image.shape[:2])
        area = windows(latents.z.shape[1], latents.z.shape[2], most)
        first, last = _TEMPERATURES
        own = lmbda = self.lmbda(quality)
        best, least, stopped = None, math.inf, False
        for done in itertools.count():
            way = max(done / steps, (time.perf_counter() - started) / seconds)
            ends = way >= 1 or stopped
            if done and (ends or done % _EVERY == 0):
                bits, error = self._measured(area, latents, x, inside, level)
                by_error = math.isfinite(goal.squared_error)
                figure, met = (
                    (bits, error <= goal.squared_error) if by_error else (error, bits <= goal.bits)
                )
                if met and figure < least:
                    best, least = latents, figure
                beyond = error / (_MARGIN * goal.squared_error) if by_error else goal.bits / bits
                lmbda = min(max(lmbda * beyond**_POWER, own / _FURTHEST), own * _FURTHEST)
            if ends:
                return best
            gradients = Latents(*map(np.empty_like, latents))
            temperature = np.float32(first * (last / first) ** way)
            for number, window in enumerate(area):
                of_window = self._gradient(
                    self._params,
                    window.latents(latents),
                    window.pixels(x),
                    window.pixels(inside),
                    level,
                    np.float32(lmbda),
                    np.array([done, number], np.int32),
                    temperature,
                )
                window.write(of_window, gradients)
            rate = np.float32(_LEARNING_RATE * (1 + math.cos(math.pi * way)) / 2)
            moved, state = _descend(latents, state, gradients, rate)
            latents = Latents(*map(np.asarray, moved))
            if progress is not None:
                spent = (time.perf_counter() - started) / seconds
                stopped = bool(progress(min(1.0, max((done + 1) / steps, spent))))
        raise AssertionError("not reached")

    def _window_blocks(self, height: int, width: int) -> int:
        """How many blocks of 64 pixels a window of an image may have."""
        left = (self._memory_gb - RESERVED_GIB) * GIB - _IMAGE_BYTES * height * width
        return max(_SMALL_WINDOW, int(left / (_WINDOW_BYTES * HYPER_STRIDE**2)))

    def _measured(
        self,
        area: list[Window],
        latents: Latents,
        x: Float[np.ndarray, "1 h w 3"],
        inside: Float[np.ndarray, "1 h w 1"],
        level: Float[Array, "1"] | None,
    ) -> tuple[float, float]:
        """Bits and squared error of rounded latents, each window's own."""
        bits = error = 0.0
        for window in area:
            of_window = window.latents(latents), window.pixels(x), window.pixels(inside)
            found = self._measure(self._params, *of_window, window.own_blocks(), level)
            bits, error = bits + float(found[0]), error + float(found[1])
        return bits, error


@cached_jit
def _descend(latents: Latents, state: Any, gradients: Latents, rate: Array) -> tuple[Latents, Any]:
    """One step of Adam."""
    # optax leaves types to JAX (0.2.8: `decay**count`), also where a program forbids that.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = _ADAM.update(gradients, state)
    return jax.tree.map(lambda v, update: v - rate * update, latents, updates), state


def _cost(
    model: LLIC,
    latents: Latents,
    x: Float[Array, "1 h w 3"],
    inside: Float[Array, "1 h w 1"],
    level: Float[Array, "1"] | None,
    lmbda: Float[Array, ""],
    key: Key[Array, ""],
    temperature: Float[Array, ""],
) -> Float[Array, ""]:
    """Bits + lambda 255^2 squared error per channel, of softly rounded latents."""

    def soft_round(x: Array, step: int) -> Array:
        return _soft_round(x, jax.random.fold_in(key, step), temperature)

    bits, decoded = _walked(model, latents, level, soft_round)
    return bits + lmbda * 255**2 / 3 * jnp.sum(jnp.square(inside * (decoded - x)))


def _rounded(
    model: LLIC,
    latents: Latents,
    x: Float[Array, "1 h w 3"],
    inside: Float[Array, "1 h w 1"],
    counted: Float[Array, "1 h64 w64 1"],
    level: Float[Array, "1"] | None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Bits and squared error, 0 to 255, of latents as they are coded and decoded.

    Of the blocks that are `counted`.
    """
    bits, decoded = _walked(model, latents, level, lambda x, _: jnp.round(x), counted)
    error = inside * (jnp.round(255 * decoded) - 255 * x)
    return bits, jnp.sum(_spread(counted, HYPER_STRIDE) * jnp.square(error))


def _walked(
    model: LLIC,
    latents: Latents,
    level: Float[Array, "1"] | None,
    rounded: Callable[[Array, int], Array],
    counted: Float[Array, "1 h64 w64 1"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, "1 h w 3"]]:
    """Bits of rounded latents, and the image from 0 to 1 that they decode to.

    `rounded` takes values and the number of their step; that of `z` is behind the last of `y`.
    Bits are those of the blocks that are `counted`; None: of all.
    """
    y, z = map(jnp.asarray, latents)
    z = rounded(z, len(model.steps))
    counted = jnp.ones((*z.shape[:3], 1)) if counted is None else counted
    of_y = _spread(counted, HYPER_STRIDE // LATENT_STRIDE)
    walk, bits = Walk(model, model.hyper_synthesize(z, level), y.shape), jnp.zeros(())
    for k, (step, mean, scale) in enumerate(walk):
        symbols = rounded(step.gather(y) - mean, k)
        bits = bits + jnp.sum(step.pack(of_y) * gaussian_bits(symbols, scale))
        walk.fill(symbols + mean)
    decoded = jnp.clip(model.synthesize(walk.y_hat, level), 0, 1)
    return bits + jnp.sum(counted * model.prior_bits(z)), decoded


def _spread(blocks: Float[Array, "1 h64 w64 1"], scale: int) -> Float[Array, "1 h w 1"]:
    """The value of each block at all its elements."""
    return blocks.repeat(scale, axis=1).repeat(scale, axis=2)


def _soft_round(
    x: Float[Array, "*shape"], key: Key[Array, ""], temperature: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """Each element between its two integers, drawn from a binary Gumbel-softmax.

    Yang et al. 2020, eq. 9: the logits are `-artanh(distance) / temperature`. The difference of two
    Gumbel variables is logistic.
    """
    below = jnp.floor(x)
    # Off the ends, where artanh and its gradient are infinite.
    up = jnp.clip(x - below, 1e-4, 1 - 1e-4)
    odds = (jnp.arctanh(up) - jnp.arctanh(1 - up)) / temperature
    return below + jax.nn.sigmoid(odds + jax.random.logistic(key, x.shape, x.dtype))
