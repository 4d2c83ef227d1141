"""The one coding loop: training, encoding and decoding walk over the latent in the same order.

An entropy model says which elements of `y` each step codes (`steps`), and what it knows of them
beforehand (`entropy_params`). The walk fills `y_hat` from zeros, step by step, and a *coder
function* turns a step's parameters into its decoded values:

    estimate   values from y with straight-through rounding; bits from noise     (training)
    quantize   values from y by rounding; symbols for the range encoder          (encoding)
    decode     values from symbols that the range decoder yields                 (decoding)

It is causal by construction: a step's networks see nothing that is not decoded by then.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Key

from llic_jax.entropy.gaussian import GAUSSIAN, Mixture, choose_symbols, coded_bits, gaussian_bits
from llic_jax.execution.program_cache import jit
from llic_jax.ops.quantization import add_uniform_noise, fold_in, round_straight_through

Carry = Any
Values = Float[Array, "b h ws g"]


@dataclasses.dataclass(frozen=True)
class Step:
    """What one step codes: channels `start .. stop` of `y`, at all positions or at one half.

    parity: None for all positions; 0 for the anchors of a checkerboard (row + column even), 1 for
    the rest. A half is packed into an array of half the width, so that a step stores and computes
    its own elements only; the latent's width must then be even (it is: images are padded to 64).
    """

    start: int
    stop: int
    parity: int | None = None

    @property
    def channels(self) -> int:
        return self.stop - self.start

    def own_channels(self, y: Float[Array, "b h w m"]) -> Float[Array, "b h w g"]:
        return y[..., self.start : self.stop]

    def pack(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h ws c"]:
        """Keeps this step's positions, in every channel of `x`."""
        if self.parity is None:
            return x
        b, h, w, c = x.shape
        pairs = x.reshape(b, h, w // 2, 2, c)
        return jnp.where(self._odd_rows(h), pairs[:, :, :, 1], pairs[:, :, :, 0])

    def unpack(self, values: Float[Array, "b h ws c"]) -> Float[Array, "b h w c"]:
        """The inverse of `pack`, with zeros at the other positions."""
        if self.parity is None:
            return values
        b, h, half, c = values.shape
        odd = self._odd_rows(h)
        pairs = jnp.stack([jnp.where(odd, 0, values), jnp.where(odd, values, 0)], axis=3)
        return pairs.reshape(b, h, 2 * half, c)

    @partial(jit, static_argnums=(0,))
    def gather(self, y: Float[Array, "b h w m"]) -> Values:
        """This step's elements of `y`."""
        return self.pack(self.own_channels(y))

    @partial(jit, static_argnums=(0,))
    def scatter(self, y_hat: Float[Array, "b h w m"], values: Values) -> Float[Array, "b h w m"]:
        """`y_hat` with this step's elements, zero until now, set to `values`."""
        return y_hat.at[..., self.start : self.stop].add(self.unpack(values))

    def _odd_rows(self, height: int) -> Bool[Array, "1 h 1 1"]:
        """Rows in which this step's positions are the odd columns."""
        return ((jnp.arange(height) + self.parity) % 2 == 1)[None, :, None, None]


@runtime_checkable
class EntropyModel(Protocol):
    """What the walk asks of an entropy model (a Flax module, or its compiled steps).

    `hyper` is whatever the hyper-synthesis returned. `carry` hands results from one step to a later
    one (None at the start), so that what two steps share is computed once.
    """

    @property
    def steps(self) -> tuple[Step, ...]: ...

    def entropy_params(
        self, k: int, hyper: Any, y_hat: Array, carry: Carry
    ) -> tuple[Values, Values, Carry]:
        """Mean and scale (bounded below by SCALE_MIN) of step k's elements, and the carry."""

    def refine(self, k: int, hyper: Any, y_hat: Array, carry: Carry) -> tuple[Array, Carry]:
        """`y_hat` after step k's values are in it, bettered (latent residual prediction)."""


class EntropyParts(NamedTuple):
    """The parts of a codec that come with an entropy model.

    h_a: hyper-analysis, y to z at a quarter of its size. h_s: hyper-synthesis, z_hat to `hyper`.
    entropy_model: a Flax module that follows `EntropyModel`. hyper_channels: of z.
    on_canvas: see `LLIC`.
    """

    h_a: nn.Module
    h_s: nn.Module
    entropy_model: nn.Module
    hyper_channels: int
    on_canvas: bool = False


CoderFunction = Callable[[int, Step, Array, Array], tuple[Array, Any]]


def walk(
    model: EntropyModel, hyper: Any, shape: tuple[int, ...], code: CoderFunction
) -> tuple[Float[Array, "b h w m"], list[Any]]:
    """Walks over a latent of `shape` (B, H, W, M).

    `code(k, step, mean, scale)` returns the decoded values of the step's elements and anything
    that is to be collected. Returns `y_hat` and the list of what was collected.
    """
    y_hat, carry, collected = jnp.zeros(shape, jnp.float32), None, []
    for k, step in enumerate(model.steps):
        mean, scale, carry = model.entropy_params(k, hyper, y_hat, carry)
        values, extra = code(k, step, mean, scale)
        y_hat, carry = model.refine(k, hyper, step.scatter(y_hat, values), carry)
        collected.append(extra)
    return y_hat, collected


def estimate(y: Float[Array, "b h w m"], keys: Key[Array, "b"]) -> CoderFunction:
    """Training: collects each step's bits per sample, `(B,)`, at `y` plus uniform noise (one
    key per sample); decodes
    with straight-through rounding of `y - mean` (Minnen and Singh 2020, sec. 3.3)."""

    def code(k: int, step: Step, mean: Array, scale: Array) -> tuple[Array, Array]:
        residual = step.gather(y) - mean
        noisy = add_uniform_noise(fold_in(keys, k), residual)
        bits = jnp.sum(gaussian_bits(noisy, scale), axis=(1, 2, 3))
        return round_straight_through(residual) + mean, bits

    return code


def quantize(
    y: Float[Array, "b h w m"], rdoq_weight: float = 0.0, mixture: Mixture = GAUSSIAN
) -> CoderFunction:
    """Evaluation, and training of the decoder's side: collects each step's bits per sample, `(B,)`,
    of the very symbols that are coded (`choose_symbols`).

    No gradient reaches `y`. That of the rate reaches the mean straight through the symbols, as if
    they were `y - mean`; all other gradients are true ones.
    """

    def code(k: int, step: Step, mean: Array, scale: Array) -> tuple[Array, Array]:
        residual = step.gather(stop_gradient(y)) - mean
        symbols = stop_gradient(choose_symbols(residual, scale, rdoq_weight))
        through = symbols + (residual - stop_gradient(residual))
        return symbols + mean, jnp.sum(coded_bits(through, scale, mixture), axis=(1, 2, 3))

    return code
