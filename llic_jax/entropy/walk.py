"""The one coding loop: everything that codes the latent goes through it in the same order.

An entropy model says which elements of `y` each step codes (`steps`), and predicts them from what
is decoded (`entropy_params`). A `Walk` goes through the steps and fills `y_hat`; the body of the
loop turns a step's mean and scale into its decoded values:

    walk = Walk(model, hyper, y.shape)
    for step, mean, scale in walk:
        walk.fill(jnp.round(step.gather(y) - mean) + mean)
    y_hat = walk.y_hat

    estimate     noise for bits, straight-through rounding for values    here
    quantize     bits and values of the symbols that are coded           here
    encode       symbols to the range encoder                            codec/encoder.py
    decode       symbols from the range decoder                          codec/decoder.py
    refinement   softly rounded values, to be differentiated             codec/refinement.py
    inspection   the bits of every element                               evaluation/inspection.py

It is causal by construction: a step's networks see nothing that was not filled in before.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Key

from llic_jax.entropy.gaussian import GAUSSIAN, Mixture, coded_bits, gaussian_bits, quantize_rdo
from llic_jax.errors import WalkError
from llic_jax.execution.program_cache import cached_jit
from llic_jax.ops.quantization import add_uniform_noise, fold_in, round_straight_through

Carry = Any
Values = Float[Array, "b h ws g"]


@dataclasses.dataclass(frozen=True)
class Step:
    """A part of `y`: channels `start .. stop`, at all positions or at one half.

    A half is packed into an array of half the width, so that a step stores and computes its own
    elements only; the latent's width must then be even (it is: images are padded to 64).

    Attributes:
        start: First channel.
        stop: Past the last channel.
        parity: None for all positions; 0 for the anchors of a checkerboard (row + column even), 1
            for the rest.
    """

    start: int
    stop: int
    parity: int | None = None

    @property
    def channels(self) -> int:
        """How many channels the step codes."""
        return self.stop - self.start

    def own_channels(self, y: Float[Array, "b h w m"]) -> Float[Array, "b h w g"]:
        """The step's channels of a latent, at all positions.

        Args:
            y: The latent.
        """
        return y[..., self.start : self.stop]

    def pack(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h ws c"]:
        """Keeps this step's positions, in every channel of `x`."""
        if self.parity is None:
            return x
        b, h, w, c = x.shape
        pairs = x.reshape(b, h, w // 2, 2, c)
        return jnp.where(self._odd_rows(h), pairs[:, :, :, 1], pairs[:, :, :, 0])

    def unpack(self, values: Float[Array, "b h ws c"]) -> Float[Array, "b h w c"]:
        """The inverse of `pack`, with zeros at the other positions.

        Args:
            values: Of the step's positions, `(B, H, W / 2, C)` for half of a checkerboard.
        """
        if self.parity is None:
            return values
        b, h, half, c = values.shape
        odd = self._odd_rows(h)
        pairs = jnp.stack([jnp.where(odd, 0, values), jnp.where(odd, values, 0)], axis=3)
        return pairs.reshape(b, h, 2 * half, c)

    @partial(cached_jit, static_argnums=(0,))
    def gather(self, y: Float[Array, "b h w m"]) -> Values:
        """This step's elements of `y`."""
        return self.pack(self.own_channels(y))

    @partial(cached_jit, static_argnums=(0,))
    def scatter(self, y_hat: Float[Array, "b h w m"], values: Values) -> Float[Array, "b h w m"]:
        """`y_hat` with this step's elements, zero until now, set to `values`."""
        return y_hat.at[..., self.start : self.stop].add(self.unpack(values))

    def _odd_rows(self, height: int) -> Bool[Array, "1 h 1 1"]:
        """Rows in which this step's positions are the odd columns."""
        return ((jnp.arange(height) + self.parity) % 2 == 1)[None, :, None, None]


@runtime_checkable
class EntropyModel(Protocol):
    """An entropy model as a walk sees it (a Flax module, or its compiled programs).

    `hyper` is the output of the hyper-synthesis. `carry` hands results from one step to a later one
    (None at the start), so that nothing is computed twice.

    A model may have one more method, `refine(k, hyper, y_hat, carry)`. It corrects what step k has
    decoded (latent residual prediction), from the latent with step k's values in it and the step's
    carry, and returns the corrected latent and the carry of the next step.
    """

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the coding order; each element of `y` is in exactly one."""

    def entropy_params(
        self, k: int, hyper: Any, y_hat: Array, carry: Carry
    ) -> tuple[Values, Values, Carry]:
        """The distribution of step k's elements.

        Args:
            k: Number of the step.
            hyper: What `h_s` makes of `z_hat`.
            y_hat: The decoded latent so far; zero where nothing is decoded yet.
            carry: What the step before handed on; None at first.

        Returns:
            Mean, scale (bounded below by SCALE_MIN), and the carry.
        """


class EntropyParts(NamedTuple):
    """The parts of a codec that come with an entropy model.

    Attributes:
        h_a: Hyper-analysis, y to z at a quarter of its size.
        h_s: Hyper-synthesis, z_hat to `hyper`.
        entropy_model: A Flax module that follows `EntropyModel`.
        hyper_channels: Of z.
        on_canvas: See `LLIC`.
    """

    h_a: nn.Module
    h_s: nn.Module
    entropy_model: nn.Module
    hyper_channels: int
    on_canvas: bool = False


class Walk:
    """Goes through an entropy model's steps once, in coding order; see the module's example.

    Args:
        model: The entropy model, bound to its parameters, or its compiled programs.
        hyper: Output of the hyper-synthesis.
        shape: Of the latent, `(B, H, W, M)`.
    """

    def __init__(self, model: EntropyModel, hyper: Any, shape: tuple[int, ...]):
        self._model, self._hyper = model, hyper
        self._y_hat: Array = jnp.zeros(shape, jnp.float32)
        self._values: Array | None = None  # of the current step, once it is filled
        self._state = "not started"

    def __iter__(self) -> Iterator[tuple[Step, Array, Array]]:
        """Yields each step with the mean and the scale of its elements, `(B, H, Ws, G)`.

        Raises:
            WalkError: The body did not fill the step, or the walk was begun before.
        """
        if self._state != "not started":
            raise WalkError("This walk was begun before; make a new Walk for every pass.")
        model, carry = self._model, None
        refine = getattr(model, "refine", None)
        for k, step in enumerate(model.steps):
            mean, scale, carry = model.entropy_params(k, self._hyper, self._y_hat, carry)
            self._state, self._values = "waiting", None
            yield step, mean, scale
            if self._values is None:
                raise WalkError(f"Step {k} was not filled; call walk.fill(values) once in each.")
            self._y_hat = step.scatter(self._y_hat, self._values)
            if refine is not None:
                self._y_hat, carry = refine(k, self._hyper, self._y_hat, carry)
        self._state = "complete"

    def fill(self, values: Values) -> None:
        """Sets the decoded values of the current step's elements.

        Raises:
            WalkError: No step is waiting for values: it was filled before, or none was begun.
        """
        if self._state != "waiting" or self._values is not None:
            raise WalkError("No step waits for values; call walk.fill(values) once in each.")
        self._values = values

    @property
    def y_hat(self) -> Float[Array, "b h w m"]:
        """The decoded latent.

        Raises:
            WalkError: The loop has not come to its end.
        """
        if self._state != "complete":
            raise WalkError("y_hat is complete after the loop over the walk only.")
        return self._y_hat


def estimate(
    model: EntropyModel, hyper: Any, y: Float[Array, "b h w m"], keys: Key[Array, "b"]
) -> tuple[Float[Array, "b h w m"], Float[Array, "b"]]:
    """Training: bits of noisy values, and values rounded with a straight-through gradient.

    Minnen and Singh 2020, sec. 3.3.

    Args:
        model: The entropy model.
        hyper: Output of the hyper-synthesis.
        y: The latent.
        keys: One per sample, for the noise.

    Returns:
        `y_hat`, and the bits of each sample at `y` plus uniform noise.
    """
    walk, bits = Walk(model, hyper, y.shape), []
    for k, (step, mean, scale) in enumerate(walk):
        residual = step.gather(y) - mean
        noisy = add_uniform_noise(fold_in(keys, k), residual)
        bits.append(jnp.sum(gaussian_bits(noisy, scale), axis=(1, 2, 3)))
        walk.fill(round_straight_through(residual) + mean)
    return walk.y_hat, sum(bits, jnp.zeros(len(y)))


def quantize(
    model: EntropyModel,
    hyper: Any,
    y: Float[Array, "b h w m"],
    rdoq_weight: float = 0.0,
    mixture: Mixture = GAUSSIAN,
) -> tuple[Float[Array, "b h w m"], Float[Array, "b"]]:
    """Evaluation, and training of the decoder: the symbols that are coded, and their bits.

    No gradient reaches `y`. That of the rate reaches the mean straight through the symbols, as if
    they were `y - mean`; all other gradients are true ones.

    Args:
        model: The entropy model.
        hyper: Output of the hyper-synthesis.
        y: The latent.
        rdoq_weight: See `quantize_rdo`.
        mixture: Distribution that the coding tables assume.

    Returns:
        `y_hat`, and the bits of each sample.
    """
    walk, bits = Walk(model, hyper, y.shape), []
    for step, mean, scale in walk:
        residual = step.gather(stop_gradient(y)) - mean
        symbols = stop_gradient(quantize_rdo(residual, scale, rdoq_weight))
        through = symbols + (residual - stop_gradient(residual))
        bits.append(jnp.sum(coded_bits(through, scale, mixture), axis=(1, 2, 3)))
        walk.fill(symbols + mean)
    return walk.y_hat, sum(bits, jnp.zeros(len(y)))
