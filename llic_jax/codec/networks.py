"""A model's networks for coding: compiled once per size of canvas, in full precision."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from llic_jax.codec.memory import WalkMemory
from llic_jax.entropy.gaussian import coded_bits, quantize_rdo, scale_position
from llic_jax.entropy.walk import Carry, Step, Values, Walk
from llic_jax.errors import ImageSizeError, InputError
from llic_jax.execution.bands import Banded
from llic_jax.execution.canvas import Canvas
from llic_jax.execution.placement import default_device, device_of
from llic_jax.execution.program_cache import cached_jit
from llic_jax.layers.quality import Quality
from llic_jax.models.encoder_options import project_back
from llic_jax.models.llic import LLIC, Latents
from llic_jax.ops import shapes
from llic_jax.ops.sizes import HYPER_STRIDE


class CompiledNetworks:
    """The model's functions of arrays on a canvas; what they return is zero beyond the image.

    Accelerators multiply at reduced precision by default; encoder and decoder would then disagree
    on probabilities. So the entropy model runs in the highest precision.

    Args:
        network: The model.
        params: Its parameters.
        memory_gb: GiB that coding may take. Transforms keep to it by bands (`Banded`); images whose
            walk takes more are refused.

    Attributes:
        memory_gb: As given.
        programs: All compiled functions but the transforms, by name.
    """

    def __init__(self, network: LLIC, params: Any, memory_gb: float):
        self.network, self.memory_gb = network, memory_gb
        self._given = params
        self._params = {device_of(jax.tree.leaves(params)) or default_device(): params}
        self._memory = WalkMemory(self._walk, network.latent_channels, memory_gb)
        identity = program_identity(network, params)
        self._g_a, self._g_s = (
            Banded(part, memory_gb, network.on_canvas) for part in (network.g_a, network.g_s)
        )
        self.programs: dict[str, cached_jit] = {
            # The name tells apart programs that are made of one function.
            name: cached_jit(_on_canvas(network, name), identity and f"{name} {identity}", static)
            for name, static in (
                ("hyper_synthesize", ()),
                ("entropy_params", (2,)),
                ("refine", (2,)),
            )
        }
        self.programs |= {f.__name__: cached_jit(f, identity) for f in _functions(network)}
        self.programs |= {
            "to_uint8": cached_jit(shapes.to_uint8),
            "largest": cached_jit(_largest),
            "quantize": cached_jit(_quantize, static_argnums=(2,)),
            "positions": cached_jit(scale_position),
            "dequantize": cached_jit(_dequantize),
        }

    @property
    def params(self) -> Any:
        """The parameters, on the device that JAX computes on; each device gets them once."""
        device = default_device()
        if device not in self._params:
            # By way of the host: a copy between devices would be committed to its device. Not as a
            # part of the program that may be traced just now.
            with jax.ensure_compile_time_eval():
                self._params[device] = jax.tree.map(lambda p: jnp.array(np.asarray(p)), self._given)
        return self._params[device]

    def analyze(
        self,
        canvas: Canvas,
        x: Float[Array | np.ndarray, "b h w 3"],
        quality: Quality | None,
        factors: Float[Array, "b"] | None = None,
    ) -> Latents:
        """Images in [0, 1] to the latents that are quantized.

        Args:
            canvas: Of the images.
            x: The images.
            quality: Of each image; None for a model of one rate.
            factors: Of back-projection, for each image; None for none.
        """
        y = self._latent(canvas, x, quality)
        if factors is not None and np.any(factors):  # factors of zero are spared the synthesis
            y = project_back(
                y,
                factors,
                lambda y: self._image(canvas, y, quality),
                lambda x: self._latent(canvas, x, quality),
            )
        return Latents(y, self.hyper_analyze(canvas, y, quality))

    def hyper_analyze(
        self, canvas: Canvas, y: Float[Array, "b h16 w16 m"], quality: Quality | None
    ) -> Float[Array, "b h64 w64 n"]:
        """The hyper-latent of a latent.

        Args:
            canvas: Of the images.
            y: The latent, not quantized.
            quality: Of each image; None for a model of one rate.
        """
        return self.programs["hyper_analyze"](self.params, canvas, y, quality)

    def largest(self, latents: Latents) -> float:
        """The largest magnitude in the latents; waits for it. Infinite if one is not a number."""
        return float(self.programs["largest"](latents))

    def round_hyper(
        self, canvas: Canvas, z: Float[Array | np.ndarray, "b h64 w64 n"]
    ) -> tuple[Float[Array, "b h64 w64 n"], Float[Array, "b"]]:
        """Rounds the hyper-latent.

        Args:
            canvas: Of the images.
            z: The hyper-latent.

        Returns:
            `z_hat`, and its bits for each image.
        """
        return self.programs["round_hyper"](self.params, canvas, z)

    def hyper_synthesize(
        self, canvas: Canvas, z_hat: Float[Array, "b h64 w64 n"], quality: Quality | None
    ) -> Any:
        """What the entropy model conditions on.

        Args:
            canvas: Of the images.
            z_hat: The rounded hyper-latent.
            quality: Of each image; None for a model of one rate.
        """
        return self.programs["hyper_synthesize"](self.params, canvas, z_hat, quality)

    def entropy_model(self, canvas: Canvas) -> "CompiledEntropyModel":
        """The entropy model as a `Walk` takes it.

        Args:
            canvas: Of the images.
        """
        return CompiledEntropyModel(self, canvas)

    def quantize(
        self,
        canvas: Canvas,
        step: Step,
        y: Float[Array | np.ndarray, "b h16 w16 m"],
        mean: Values,
        scale: Values,
        rdoq_weight: float,
    ) -> tuple[Array, Array, Float[Array, "b"]]:
        """Chooses a step's symbols.

        Args:
            canvas: Of the images.
            step: Of the walk.
            y: The whole latent.
            mean: Of the step's elements.
            scale: Of the step's elements.
            rdoq_weight: See `EncoderOptions`. All weights but 0 share a program.

        Returns:
            Symbols (int32), their decoded values, and the bits of each image's symbols.
        """
        program = self.programs["quantize"]
        # The elements are taken out before, so that steps of one size share a program.
        weight = np.float32(rdoq_weight) if rdoq_weight else None
        return program(canvas, weight, self.network.mixture, step.gather(y), mean, scale)

    def positions(self, scale: Values) -> Values:
        """Positions on the scale table.

        Args:
            scale: Of a step's elements.
        """
        return self.programs["positions"](scale)

    def dequantize(self, symbols: Any, mean: Values) -> Values:
        """The values of decoded symbols.

        Args:
            symbols: Of one step, int32.
            mean: Of the step's elements.
        """
        return self.programs["dequantize"](jnp.asarray(symbols), mean)

    def synthesize(
        self,
        canvas: Canvas,
        y_hat: Float[Array | np.ndarray, "b h16 w16 m"],
        quality: Quality | None,
    ) -> UInt8[Array, "b h w 3"]:
        """Decoded latents to images.

        Args:
            canvas: Of the images.
            y_hat: The decoded latents.
            quality: Of each image; None for a model of one rate.
        """
        return self.programs["to_uint8"](self._image(canvas, y_hat, quality))

    def canvas_for(self, sizes: Sequence[tuple[int, int]]) -> Canvas:
        """The canvas that images share.

        Args:
            sizes: Of the images, (height, width).

        Raises:
            InputError: Sizes that differ when rounded up to multiples of 64.
            ImageSizeError: The images would take more memory than is allowed.
        """
        first, *others = sizes
        for size in others:
            if Canvas.of_size(*size) != Canvas.of_size(*first):
                raise InputError(
                    f"Images of {first[1]} x {first[0]} and {size[1]} x {size[0]} pixels do not go "
                    f"through the networks together: rounded up to multiples of {HYPER_STRIDE}, "
                    "their sizes differ. Code them apart."
                )
        canvas = Canvas.of_size(*first)
        standard = canvas.standard_size() if self.network.on_canvas else canvas
        for possible in (standard, canvas):
            if self._memory.fits(len(sizes), possible):
                return possible
        needed = self._memory.needed_gib(len(sizes), canvas)
        together = f", {len(sizes)} of them together," if others else ""
        raise ImageSizeError(
            f"An image of {first[1]} x {first[0]} pixels{together} takes about {needed:.1f} GiB of "
            f"memory; allowed are {self.memory_gb:g}. A larger memory_gb allows more."
        )

    def walk_gib(self, height: int, width: int) -> float:
        """GiB that coding an image takes beside the transforms, the reserve included.

        An estimate from a trace (`codec/memory.py`). With less allowed, the image is refused.

        Args:
            height: Of the image, pixels.
            width: Of the image, pixels.
        """
        return self._memory.needed_gib(1, Canvas.of_size(height, width))

    def _walk(self, canvas: Canvas, y: Array) -> Any:
        """The encoder's walk: all that waits for the range coder."""
        quality = None if self.network.levels == 1 else jnp.ones(1)
        z_hat, _ = self.round_hyper(canvas, self.hyper_analyze(canvas, y, quality))
        hyper = self.hyper_synthesize(canvas, z_hat, quality)
        walk, coded = Walk(self.entropy_model(canvas), hyper, y.shape), []
        for step, mean, scale in walk:
            symbols, values, _ = self.quantize(canvas, step, y, mean, scale, 0.0)
            walk.fill(values)
            coded += [symbols, self.positions(scale)]
        return y, coded, walk.y_hat

    def _latent(self, canvas: Canvas, x: Any, quality: Quality | None) -> Array:
        y = self._g_a(self.params["g_a"], canvas, x, *self.network.transform_arguments(quality))
        return self.programs["scale"](self.params, y, quality)

    def _image(self, canvas: Canvas, y_hat: Any, quality: Quality | None) -> Any:
        y_hat = self.programs["unscale"](self.params, y_hat, quality)
        arguments = self.network.transform_arguments(quality)
        return self._g_s(self.params["g_s"], canvas, y_hat, *arguments)


def program_identity(network: LLIC, params: Any) -> str | None:
    """What a model's programs depend on (`cached_jit`); None: they are not kept on disk.

    A model of foreign modules has none: they may compute what their `repr` does not tell. A
    decoder's half has fewer parameters.

    Args:
        network: The model.
        params: Its parameters.
    """
    return f"{network} {jax.tree.structure(params)}" if network.on_canvas else None


class CompiledEntropyModel:
    """The entropy model as a `Walk` sees it, each call one compiled program.

    Args:
        networks: Own the programs.
        canvas: Of the images.
    """

    def __init__(self, networks: CompiledNetworks, canvas: Canvas):
        self._networks, self._canvas = networks, canvas

    @property
    def steps(self) -> tuple[Step, ...]:
        """The model's steps."""
        return self._networks.network.steps

    def entropy_params(
        self, k: int, hyper: Any, y_hat: Array, carry: Carry
    ) -> tuple[Values, Values, Carry]:
        """The distribution of step k's elements; arguments and results as in `EntropyModel`.

        Args:
            k: Number of the step.
            hyper: From `CompiledNetworks.hyper_synthesize`.
            y_hat: The decoded latent so far.
            carry: From the step before.
        """
        program = self._networks.programs["entropy_params"]
        return program(self._networks.params, self._canvas, k, hyper, y_hat, carry)

    def refine(self, k: int, hyper: Any, y_hat: Array, carry: Carry) -> tuple[Array, Carry]:
        """Step k's refinement, if the model has any; arguments and results as there.

        Args:
            k: Number of the step.
            hyper: From `CompiledNetworks.hyper_synthesize`.
            y_hat: The decoded latent with step k's values in it.
            carry: From `entropy_params`.
        """
        if not self._networks.network.refines:
            return y_hat, carry
        program = self._networks.programs["refine"]
        return program(self._networks.params, self._canvas, k, hyper, y_hat, carry)


def _on_canvas(network: LLIC, method: str) -> Callable[..., Any]:
    """The network's method, confined to the image."""

    def call(params, canvas, *args):
        with jax.default_matmul_precision("highest"):
            return canvas.apply(lambda: network.apply({"params": params}, *args, method=method))

    return call


def _functions(network: LLIC) -> Sequence[Callable[..., Any]]:
    """Functions of parameters and arrays, the canvas given where positions count."""

    def scale(params, y, quality):
        return network.apply({"params": params}, y, quality, method="scale_latent")

    def unscale(params, y_hat, quality):
        return network.apply({"params": params}, y_hat, quality, True, method="scale_latent")

    def hyper_analyze(params, canvas, y, quality):
        return canvas.apply(
            lambda: network.apply({"params": params}, y, quality, method="hyper_analyze")
        )

    def round_hyper(params, canvas, z):
        z_hat = jnp.round(z)
        bits: Any = network.apply({"params": params}, z_hat, method="prior_bits")
        return z_hat, jnp.sum(canvas.mask(bits), axis=(1, 2, 3))

    return scale, unscale, hyper_analyze, round_hyper


def _quantize(canvas, rdoq_weight, mixture, y, mean, scale):
    symbols = quantize_rdo(y - mean, scale, 0.0 if rdoq_weight is None else rdoq_weight)
    bits = jnp.sum(canvas.mask(coded_bits(symbols, scale, mixture)), axis=(1, 2, 3))
    return symbols.astype(jnp.int32), symbols + mean, bits


def _dequantize(symbols, mean):
    return symbols.astype(jnp.float32) + mean


def _largest(latents):
    """The largest magnitude; infinite if a value is no number.

    XLA's reduction on CPUs (jaxlib 0.12) passes over NaNs in larger arrays.
    """
    magnitudes = (jnp.abs(latent) for latent in latents)
    return jnp.maximum(*(jnp.max(jnp.where(m <= jnp.inf, m, jnp.inf)) for m in magnitudes))


def quality_array(qualities: Sequence[float | None]) -> Quality | None:
    """The qualities of images, as the networks take them.

    Args:
        qualities: Of each image; None for a model of one rate.
    """
    return None if None in qualities else jnp.asarray(qualities, jnp.float32)
