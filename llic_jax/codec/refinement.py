"""Effort in the encoder: the latents of one image, bettered by gradient descent before coding.

    image -> analyze -> y, z -> [soft rounding -> rate + lambda distortion -> Adam] -> encode

The networks learnt to find good latents for all images; for one image better ones can be searched
for. The decoder notices nothing. Yang, Bamler and Mandt, "Improving Inference for Neural Image
Compression" (NeurIPS 2020): each latent is drawn, softly, from the two integers around it, the
nearer one the likelier, and the draw is sharpened as the search goes on (stochastic Gumbel
annealing). Theirs takes thousands of steps. For tens of them we let only the odds sharpen and leave
the relaxation's own temperature at one, whose gradients are the steadier; and gradients of less
than a few bits move a latent little (our choices, measured on training photographs held back).
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, UInt8

from llic_jax.bitstream.file import LlicFile
from llic_jax.codec.codec import Codec
from llic_jax.codec.results import Compressed
from llic_jax.codec.validation import as_image
from llic_jax.entropy.gaussian import gaussian_bits
from llic_jax.entropy.walk import CoderFunction, Step, walk
from llic_jax.errors import InputError
from llic_jax.layers.quality import lmbda_of_quality
from llic_jax.models.llic import LLIC, Latents
from llic_jax.ops.sizes import DOWNSAMPLING, pad_to_multiple

MAX_PIXELS = 1 << 22  # a step keeps all that its gradient needs: 2 KB a pixel, released model
_LEARNING_RATE = 0.2  # in units of the quantization step; falls to zero as a half cosine
_TEMPERATURES = 0.4, 0.1  # of the odds, first and last; falls geometrically
_ADAM = optax.scale_by_adam(b1=0.8, eps=5.0)  # gradients are in bits

Progress = Callable[[int, int], object]


def encode(
    codec: Codec,
    image: UInt8[np.ndarray, "h w 3"],
    quality: float | None = None,
    sections: Mapping[int, bytes] | None = None,
    *,
    steps: int,
    seconds: float = math.inf,
    progress: Progress | None = None,
) -> Compressed:
    """Compresses as `Codec.encode` does, after so many steps of refining the latents.

    The cost is bits + lambda(quality) 255^2 MSE pixels, the loss of the model's training, of the
    real file and its decoded image; what costs least, refined or not, is returned.

    steps: of gradient descent; 0 for none. Equal steps make equal files.
    seconds: no step starts later than that; the schedule is then run through faster. The first step
        on a new image size compiles, which counts.
    progress: called after every step with the number of steps done and `steps`.

    Raises:
      InputError: as `Codec.encode`; steps or seconds below zero; an image of more than `MAX_PIXELS`
        pixels; a model whose training had no lambda for the squared error.
    """
    if steps < 0 or seconds < 0:
        raise InputError(f"Effort is {steps} steps in {seconds:g} seconds; neither goes below 0.")
    if steps == 0 or seconds == 0:
        return codec.encode(image, quality, sections)
    image = as_image(image)
    height, width = image.shape[:2]
    if height * width > MAX_PIXELS:
        raise InputError(
            f"{width} x {height} are more than the {MAX_PIXELS} pixels that effort has memory for; "
            "compress without it, or a smaller image."
        )
    if not codec.lmbdas:
        raise InputError(
            "Effort descends the model's loss, rate + lambda MSE, and this model names no lambda: "
            "its config has no train.lmbdas, or another distortion. Compress without effort."
        )
    plain = codec.encode(image, quality, sections)
    latents = codec.analyze(image, quality)
    started = time.perf_counter()
    level, lmbda = _level(codec, LlicFile.from_bytes(plain.data).quality)
    latents = _refine(codec, image, latents, level, lmbda, steps, seconds, progress)
    spent = time.perf_counter() - started
    refined = codec.encode(image, quality, sections, latents)

    def cost(compressed: Compressed) -> float:
        error = image.astype(np.float64) - codec.reconstruct(compressed, height, width)
        return 8 * len(compressed.data) + lmbda * float(np.sum(np.square(error))) / 3

    return dataclasses.replace(
        min(plain, refined, key=cost),
        network_seconds=plain.network_seconds + spent + refined.network_seconds,
        coder_seconds=plain.coder_seconds + refined.coder_seconds,
    )


def _level(codec: Codec, quality: float) -> tuple[Float[Array, "1"] | None, float]:
    """A file's quality as the model takes it, and its lambda."""
    if not quality:
        return None, codec.lmbdas[0]
    level = jnp.full(1, quality, jnp.float32)
    return level, float(lmbda_of_quality(level, codec.lmbdas)[0])


def _refine(
    codec: Codec,
    image: UInt8[np.ndarray, "h w 3"],
    latents: Latents,
    level: Float[Array, "1"] | None,
    lmbda: float,
    steps: int,
    seconds: float,
    progress: Progress | None,
) -> Latents:
    started = time.perf_counter()
    step, state = _program(codec), _ADAM.init(latents)
    x = pad_to_multiple(image[None], DOWNSAMPLING).astype(np.float32) / 255
    # Errors count inside the image only; as an array, so that sizes that pad alike share a program.
    inside = np.zeros((*x.shape[:3], 1), np.float32)
    inside[:, : image.shape[0], : image.shape[1]] = 1
    first, last = _TEMPERATURES
    for done in range(steps):
        way = max(done / steps, (time.perf_counter() - started) / seconds)
        if way >= 1:
            break
        latents, state = jax.block_until_ready(
            step(
                latents,
                state,
                codec.params,
                x,
                inside,
                level,
                lmbda,
                jax.random.key(done),
                first * (last / first) ** way,
                _LEARNING_RATE * (1 + math.cos(math.pi * way)) / 2,
            )
        )
        if progress is not None:
            progress(done + 1, steps)
    return latents


@functools.lru_cache(maxsize=4)
def _program(codec: Codec) -> Callable[..., tuple[Latents, Any]]:
    """One step of Adam, compiled once per padded image size."""
    cost = nn.apply(_cost, codec.model)

    @jax.jit
    def step(latents, state, params, *args):
        *rest, learning_rate = args
        gradient = jax.grad(lambda latents: cost({"params": params}, latents, *rest))(latents)
        updates, state = _ADAM.update(gradient, state)
        moved = jax.tree.map(lambda v, update: v - learning_rate * update, latents, updates)
        return moved, state

    return step


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
    z = _soft_round(jnp.asarray(latents.z), jax.random.fold_in(key, len(model.steps)), temperature)
    hyper = model.hyper_synthesize(z, level)
    y, bits = walk(model, hyper, latents.y.shape, _draw(jnp.asarray(latents.y), key, temperature))
    error = inside * (jnp.clip(model.synthesize(y, level), 0, 1) - x)
    rate = sum(bits) + jnp.sum(model.prior_bits(z))
    return rate + lmbda * 255**2 / 3 * jnp.sum(jnp.square(error))


def _draw(
    y: Float[Array, "1 h16 w16 m"], key: Key[Array, ""], temperature: Float[Array, ""]
) -> CoderFunction:
    """Values and bits of softly rounded `y - mean` (see `walk`)."""

    def code(k: int, step: Step, mean: Array, scale: Array) -> tuple[Array, Array]:
        soft = _soft_round(step.gather(y) - mean, jax.random.fold_in(key, k), temperature)
        return soft + mean, jnp.sum(gaussian_bits(soft, scale))

    return code


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
