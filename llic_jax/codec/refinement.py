"""Refinement: better latents of one image are searched for, before they are coded.

    image -> analyze, at a quality a little below -> y, z
    steps:   y -> walk, symbols chosen by their cost -> y_hat
             y_hat -> g_s -> gradient of lambda x squared error, in bits
             y moves towards y_hat - gradient / 12
    the weight of the symbols' choice that just meets the goal -> file

The networks learnt to find good latents for all images; for one image better ones can be searched
for. The decoder notices nothing. The published way, stochastic Gumbel annealing (Yang, Bamler and
Mandt, "Improving Inference for Neural Image Compression", NeurIPS 2020), descends rate and
distortion of softly rounded latents and takes thousands of steps. Ours is a proximal gradient
method, relaxed: the gradient is that of the distortion alone, and the rate counts where symbols are
chosen (`gaussian.quantize_rdo`, as in the encoder). So a step needs no gradient of the entropy
model, and all latents are ones that can be coded. Without the pull towards `y_hat` an element that
was made zero would move on for as long as the error has a gradient, and cost bits in the end.

The search raises the PSNR more than it lowers the bits. So for a smaller file it begins at a lower
quality. It ends with the weight of RDOQ at which the goal is just met. (All our choice;
docs/experiments.md has the figures.)

A gradient keeps all that it needs of the image. Where that is too much, it is computed window by
window (`windows.py`).
"""

import itertools
import math
import sys
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from llic_jax.bitstream.file import QUALITY_STEPS
from llic_jax.codec.effort import Goal, Refinement
from llic_jax.codec.networks import CompiledNetworks, program_identity, quality_array
from llic_jax.codec.results import Compressed
from llic_jax.codec.windows import Window, windows
from llic_jax.entropy.walk import Walk
from llic_jax.errors import ImageSizeError, InputError
from llic_jax.execution.bands import GIB, RESERVED_GIB
from llic_jax.execution.canvas import Canvas
from llic_jax.execution.program_cache import cached_jit
from llic_jax.layers.quality import lmbda_of_quality
from llic_jax.models.llic import LLIC, Latents
from llic_jax.ops.shapes import to_float
from llic_jax.ops.sizes import HYPER_STRIDE, pad_to_multiple

_WINDOW_BYTES = 2048  # a pixel of what a gradient keeps, released model
_IMAGE_BYTES = 64  # a pixel of what is kept of the whole image: latents, gradients, pixels
# What the reserve of the budget is enough for, whatever is allowed: windows, and images.
_SMALL_WINDOW, _SMALL_IMAGE = 64, 1 << 22  # blocks of 64 pixels; pixels
_CURVATURE = 6.0  # of the error, bits for a step of quantization squared, that a move reckons with
_LONGEST = 0.2  # first move, as a share of the way
_LENGTH = 0.35  # first move of n steps: as much over sqrt(n); moves fall to zero linearly
_FEW = 10  # steps at most that are reckoned with at first where there is a time limit
_BELOW = 0.45  # levels of quality that a long search begins below, at the lowest of them
_LESS = 0.45  # share of that which is left out at the highest: there a level is more dB
_WEIGHT = 16.0  # of RDOQ, at first
_WEIGHTS = 10.0, 40.0  # least and largest, while latents move
_LEAST, _MOST = math.log(5), math.log(128)  # at the end
_SETTLED = 0.3  # of the way, from where the weight follows the goal
_HASTE = 3.0  # power of the distance from the goal that it changes by at a step
_TRIES = 6  # of the weight at the end, at most
_SLOPE = 0.1  # of the logarithm of error or bits over that of the weight, as a first guess
_INSIDE = 0.003  # relative distance to the goal that is good enough
_TRIES_IN_STEPS = 2.5  # steps that they take as long as
_LAST_TRIES = 2  # where the user ended the search
_TINY = 1e-9  # where the goal is a share of nothing


class Refiner:
    """Refines latents with one model, whose compiled gradient it owns.

    Args:
        networks: The model's.
        lambdas: Of its training, one per quality level; () where there were none.
    """

    def __init__(self, networks: CompiledNetworks, lambdas: tuple[float, ...]):
        self._networks, self._lambdas = networks, lambdas
        network = networks.network
        gradient = jax.grad(nn.apply(_distortion, network), argnums=1, has_aux=True)

        def refine_gradient(params, *args):
            return gradient({"params": params}, *args)

        self._gradient = cached_jit(refine_gradient, program_identity(network, networks.params))

    def check(self, height: int, width: int) -> None:
        """Refuses images that cannot be refined.

        Args:
            height: Of the image, pixels.
            width: Of the image, pixels.

        Raises:
            ImageSizeError: They take more memory than is allowed.
            InputError: A model whose training had no lambda for the squared error.
        """
        needed, allowed = _IMAGE_BYTES * height * width / GIB + RESERVED_GIB, self._allowed_gib
        if height * width > _SMALL_IMAGE and needed > allowed:
            raise ImageSizeError(
                f"Effort takes about {needed:.1f} GiB of memory for {width} x {height} pixels; "
                f"allowed are {allowed:g}. A larger memory_gb allows more; or compress "
                "without effort."
            )
        if not self._lambdas:
            raise InputError(
                "Effort descends the model's loss, rate + lambda MSE, and this model names no "
                "lambda: its config has no train.lmbdas, or another distortion. Compress without "
                "effort."
            )

    def refine(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        quality: float | None,
        refinement: Refinement,
        goal: Goal,
        analyze: Callable[[float | None], Latents],
        encode: Callable[[Latents, float | None, float], Compressed],
        visible: Bool[np.ndarray, "h w"] | None = None,
    ) -> Compressed | None:
        """A file that meets a goal, from better latents than the analysis finds.

        Args:
            image: The pixels.
            quality: Whose bits or error are the goal; None for a model of one rate.
            refinement: How long to search.
            goal: To be met.
            analyze: Makes latents of the image at a quality, of the padded image's own size.
            encode: Codes such latents, of this quality, with this weight of RDOQ.
            visible: Pixels whose error counts; all by default.

        Returns:
            None if the goal was not met.
        """
        steps = refinement.steps or sys.maxsize
        expected = float(steps if refinement.seconds == math.inf else min(steps, _FEW))
        if not goal.is_rate:
            quality = _lower(quality, expected, self._networks.network.levels)
        y, z = map(np.asarray, analyze(quality))
        decoded = _Walks(self._networks, image.shape[0], image.shape[1], z, quality)
        gradient = self._gradients(image, visible, quality)
        pixels = image[..., 0].size if visible is None else int(visible.sum())
        weight, tries = _WEIGHT, _TRIES
        begun = time.perf_counter()
        for done in itertools.count():
            if done <= 1:  # the first step compiles, so its time says nothing of the others'
                begun = time.perf_counter()
            spent = time.perf_counter() - begun
            left = refinement.seconds - _TRIES_IN_STEPS * spent / max(done - 1, 1)
            way = max(done / steps, spent / left if left > 0 else 1)
            if way >= 1:
                break
            if done > 1:
                expected = done / way
            move = (1 - way) * min(_LONGEST, _LENGTH / math.sqrt(expected))
            y_hat, bits = decoded(y, weight)
            moved, error = gradient(y_hat)
            y = y + np.float32(move) * (y_hat - moved / (2 * _CURVATURE) - y)
            if way >= _SETTLED:
                # Rounded to whole levels, a pixel of three channels has an error of 1 / 4 more.
                found = bits if goal.is_rate else error + pixels / 4
                change = (found / goal.allowed) ** (-_HASTE if goal.is_rate else _HASTE)
                weight = min(max(weight * change, _WEIGHTS[0]), _WEIGHTS[1])
            if refinement.progress is not None:
                spent = (time.perf_counter() - begun) / refinement.seconds
                share = max((done + 1) / (steps + _TRIES_IN_STEPS), spent)
                if refinement.progress(min(1.0, share)):
                    tries = _LAST_TRIES
                    break

        def code(rdoq_weight: float) -> Compressed:
            return encode(Latents(y, z), quality, rdoq_weight)

        return _fitting(code, goal, weight, tries)

    @property
    def _allowed_gib(self) -> float:
        return self._networks.memory_gb

    def _gradients(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        visible: Bool[np.ndarray, "h w"] | None,
        quality: float | None,
    ) -> Callable[[Float[np.ndarray, "1 h16 w16 m"]], tuple[np.ndarray, float]]:
        """Gradient of the distortion, in bits, and squared error, of a decoded latent."""
        height, width = image.shape[:2]
        x = to_float(pad_to_multiple(image[None], HYPER_STRIDE))
        # Errors count inside the image only; as an array, so that sizes that pad alike share a
        # program.
        inside = np.zeros((*x.shape[:3], 1), np.float32)
        inside[0, :height, :width, 0] = 1 if visible is None else visible
        rows, columns = Canvas.of_size(height, width).blocks
        area = windows(rows, columns, self._window_blocks(height, width))
        level, lmbda = quality_array([quality]), np.float32(self._lmbda(quality))

        def of_window(window: Window, y_hat: np.ndarray) -> tuple[Array, Array]:
            shown = window.latent(y_hat), window.pixels(x), window.pixels(inside)
            return self._gradient(self._networks.params, *shown, level, lmbda)

        def gradient(y_hat: np.ndarray) -> tuple[np.ndarray, float]:
            whole, error = np.empty_like(y_hat), 0.0
            for window in area:
                part, errors = of_window(window, y_hat)
                window.write(part, whole)
                error += window.own_sum(errors)
            return whole, error

        return gradient

    def _lmbda(self, quality: float | None) -> float:
        """The weight of the squared error at a quality; that of the one rate for None."""
        if quality is None:
            return self._lambdas[0]
        return float(lmbda_of_quality(jnp.full(1, quality, jnp.float32), self._lambdas)[0])

    def _window_blocks(self, height: int, width: int) -> int:
        """How many blocks of 64 pixels a window of an image may have."""
        left = (self._allowed_gib - RESERVED_GIB) * GIB - _IMAGE_BYTES * height * width
        return max(_SMALL_WINDOW, int(left / (_WINDOW_BYTES * HYPER_STRIDE**2)))


class _Walks:
    """The encoder's walk over one image, again and again, while `y` moves and `z` stays."""

    def __init__(
        self,
        networks: CompiledNetworks,
        height: int,
        width: int,
        z: Float[np.ndarray, "1 h64 w64 n"],
        quality: float | None,
    ):
        self._networks, self._canvas = networks, networks.canvas_for([(height, width)])
        z_hat, self._hyper_bits = networks.round_hyper(self._canvas, self._canvas.place(z))
        level = quality_array([quality])
        self._hyper = networks.hyper_synthesize(self._canvas, z_hat, level)

    def __call__(
        self, y: Float[np.ndarray, "1 h16 w16 m"], rdoq_weight: float
    ) -> tuple[Float[np.ndarray, "1 h16 w16 m"], float]:
        """The decoded latent, and the bits of all symbols by the model's estimate."""
        networks, canvas, on_canvas = self._networks, self._canvas, self._canvas.place(y)
        walk, bits = Walk(networks.entropy_model(canvas), self._hyper, on_canvas.shape), []
        for step, mean, scale in walk:
            _, values, of_step = networks.quantize(
                canvas, step, on_canvas, mean, scale, rdoq_weight
            )
            walk.fill(values)
            bits.append(of_step)
        return canvas.crop(np.asarray(walk.y_hat)), float(sum(bits, self._hyper_bits)[0])


def _lower(quality: float | None, steps: float, levels: int) -> float | None:
    """The quality that a search of so many steps begins at, in the steps that a file can hold."""
    if quality is None:
        return None
    less = _LESS * ((quality - 1) / (levels - 1)) ** 2
    lower = max(1.0, quality - _BELOW * (1 - less) * steps / (steps + 1))
    return round(lower * QUALITY_STEPS) / QUALITY_STEPS


def _fitting(
    encode: Callable[[float], Compressed], goal: Goal, weight: float, tries: int
) -> Compressed | None:
    """The file that just meets a goal, by the weight of its symbols' choice.

    Args:
        encode: Makes it with a weight.
        goal: To be met.
        weight: To be tried first.
        tries: At most.

    Returns:
        None if no weight that was tried meets it.
    """
    slope = _SLOPE if goal.is_rate else -_SLOPE  # bits rise with the weight, errors fall
    met = missed = None  # the nearest on both sides: logarithm of the weight, and how far beyond
    best, at = None, math.log(weight)
    for _ in range(tries):
        compressed = encode(math.exp(at))
        beyond = math.log(max(goal.figure(compressed) / goal.allowed, _TINY))
        if beyond > 0:
            missed = at, beyond
        elif met is None or beyond > met[1]:
            met, best = (at, beyond), compressed
        if -_INSIDE <= beyond <= 0:
            break
        if met and missed:
            share = (met[1] + _INSIDE / 2) / (met[1] - missed[1])
            at = met[0] + min(max(share, 0.1), 0.9) * (missed[0] - met[0])
        else:
            at = min(max(at - (beyond + _INSIDE / 2) / slope, _LEAST), _MOST)
    return best


def _distortion(
    model: LLIC,
    y_hat: Float[Array, "1 h16 w16 m"],
    x: Float[Array, "1 h w 3"],
    inside: Float[Array, "1 h w 1"],
    level: Float[Array, "1"] | None,
    lmbda: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, "h64 w64"]]:
    """Bits that the error is worth to the loss of training: lambda 255^2 MSE, times the pixels.

    And the squared error of each block of 64 pixels, 0 to 255.
    """
    error = 255 * inside * (jnp.clip(model.synthesize(y_hat, level), 0, 1) - x)
    _, height, width, _ = x.shape
    of_blocks = jnp.square(error).reshape(
        height // HYPER_STRIDE, HYPER_STRIDE, width // HYPER_STRIDE, HYPER_STRIDE * 3
    )
    errors = jnp.sum(of_blocks, axis=(1, 3))
    return lmbda / 3 * jnp.sum(errors), errors
