"""Looking inside a model: what it sees, where its bits go, and which weights it generates.

- Effective receptive field of g_a (Luo et al., "Understanding the effective receptive field in deep
  convolutional neural networks", 2016): the gradient of a central latent element with respect to
  the image, squared, averaged over images (paper, fig. on receptive fields).
- Bits of every element of the latents, by channel, by group and by place.
- The depth-wise kernels that SCST generates for an image, and SCCT's channel importance factors.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from tqdm import tqdm

from llic_jax.encoder_options import PLAIN, EncoderOptions
from llic_jax.entropy.gaussian import choose_symbols, coded_bits
from llic_jax.entropy.walk import CoderFunction, Step, walk
from llic_jax.errors import LlicError
from llic_jax.layers.initializers import fresh_params
from llic_jax.measuring import Image
from llic_jax.model import DOWNSAMPLING, LLIC, build_model
from llic_jax.ops import pad_to_multiple

LATENT_STRIDE = 16  # image side to latent side
ENERGY = 0.95


class InspectionError(LlicError, ValueError):
    """Images that cannot be looked at together."""


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """energy: mean squared gradient at each pixel, adding up to one. radius: in pixels, of the disc
    around the energy's centre that holds 95 % of it."""

    name: str
    energy: Float[np.ndarray, "n n"]
    radius: float


def receptive_field(
    name: str,
    g_a: nn.Module,
    params: Any,
    images: Sequence[Image],
    size: int,
    *quality: Any,
) -> ReceptiveField:
    """The effective receptive field of `g_a` over the central `size` x `size` pixels of the images.

    The gradient is that of the central latent position, summed over the channels.
    quality: if `g_a` takes it.

    Raises:
      InspectionError: a size that is no multiple of 64, or an image that is smaller.
    """
    if size % DOWNSAMPLING:
        raise InspectionError(f"size is {size}; it must be a multiple of {DOWNSAMPLING}.")
    energy, middle = _energy(g_a), size // LATENT_STRIDE // 2
    total = np.zeros((size, size))
    for image in images:
        crop = jnp.asarray(central_crop(image, size)[None], jnp.float32) / 255
        one = np.asarray(energy(params, crop, middle, *quality), np.float64)
        total += one / one.sum()
    total /= total.sum()
    return ReceptiveField(name, total, energy_radius(total))


@functools.lru_cache(maxsize=4)
def _energy(g_a: nn.Module) -> Any:
    """One program for all weights of a transform."""

    @jax.jit
    def energy(
        params: Any, x: Float[Array, "1 n n 3"], middle: Any, *quality: Array
    ) -> Float[Array, "n n"]:
        def centre(x: Array) -> Array:
            y: Any = g_a.apply({"params": params}, x, *quality)
            return jnp.sum(y[0, middle, middle])

        return jnp.sum(jnp.square(jax.grad(centre)(x)[0]), axis=-1)

    return energy


def central_crop(image: Image, size: int) -> UInt8[np.ndarray, "n n 3"]:
    """The middle of an image. Raises InspectionError if the image is smaller."""
    top, left = ((side - size) // 2 for side in image.shape[:2])
    if min(top, left) < 0:
        raise InspectionError(
            f"An image of {image.shape[1]} x {image.shape[0]} has no middle of {size} x {size}; "
            "take a smaller size or leave the image out."
        )
    return image[top : top + size, left : left + size]


def energy_radius(energy: Float[np.ndarray, "h w"], share: float = ENERGY) -> float:
    """The radius in pixels, around the centre of gravity, of the disc that holds `share` of it."""
    rows, columns = np.indices(energy.shape)
    total = energy.sum()
    row, column = (rows * energy).sum() / total, (columns * energy).sum() / total
    distance = np.hypot(rows - row, columns - column).ravel()
    order = np.argsort(distance)
    held = np.cumsum(energy.ravel()[order]) / total
    return float(distance[order][np.searchsorted(held, share)])


def receptive_fields(
    model: LLIC, params: Any, config: Mapping[str, Any], images: Sequence[Image], seed: int = 0
) -> list[ReceptiveField]:
    """That of the trained `g_a`, of a fresh one, and of fresh ones with small static kernels.

    config: the model's (as `build_model` takes it). Quality is the middle of its levels. The static
    kernels are 5x5 and 3x3 in every stage (paper's ablations); they have no trained weights to
    show.
    """
    size = min(512, *(min(image.shape[:2]) for image in images)) // DOWNSAMPLING * DOWNSAMPLING
    quality = model.quality_argument(jnp.full(1, (model.levels + 1) / 2))
    fields = []
    kernels = " ".join(str(k) for k in config["kernel_sizes"])
    variants: list[tuple[str, nn.Module, Any]] = [
        (f"trained, kernels {kernels}", model.g_a, params["g_a"]),
        (f"before training, kernels {kernels}", model.g_a, None),
    ]
    for k in (5, 3):
        static = {
            **config,
            "kernel_sizes": (k,) * 4,
            "style": {**config["style"], "self_conditioned": False},
        }
        variants.append((f"before training, static {k}x{k}", build_model(static).g_a, None))
    for name, g_a, weights in tqdm(variants, "receptive fields", leave=False, disable=None):
        if weights is None:
            like = jax.ShapeDtypeStruct((1, DOWNSAMPLING, DOWNSAMPLING, 3), jnp.float32)
            weights = fresh_params(g_a, seed, like, *quality)
        fields.append(receptive_field(name, g_a, weights, images, size, *quality))
    return fields


@dataclasses.dataclass(frozen=True)
class Insight:
    """One image, from within, at one quality.

    bits_y `(H/16, W/16, M)`, bits_z `(H/64, W/64, N)`: of each element's symbol. kernels: by block
    of g_a, the generated `(K, K, C)`. factors: by block of g_a, SCCT's `(C,)`.
    """

    bits_y: Float[np.ndarray, "h16 w16 m"]
    bits_z: Float[np.ndarray, "h64 w64 n"]
    kernels: dict[str, Float[np.ndarray, "k k c"]]
    factors: dict[str, Float[np.ndarray, "c"]]

    def bit_map(self) -> Float[np.ndarray, "h16 w16"]:
        """Bits per pixel at each place of the (padded) image, those of `z` spread evenly."""
        ratio = self.bits_y.shape[0] // self.bits_z.shape[0]
        z = self.bits_z.sum(-1).repeat(ratio, 0).repeat(ratio, 1) / ratio**2
        return (self.bits_y.sum(-1) + z) / LATENT_STRIDE**2


def inspect_image(
    model: LLIC,
    params: Any,
    image: Image,
    quality: float | None,
    options: EncoderOptions = PLAIN,
) -> Insight:
    """Looks at one image (padded, and its symbols chosen, as for coding)."""
    x = pad_to_multiple(image[None], DOWNSAMPLING).astype(np.float32) / 255
    level = None if quality is None else jnp.full(1, quality, jnp.float32)
    (bits_y, bits_z), seen = _look(model, options)(params, x, level)
    seen = seen["intermediates"].get("g_a", {})
    kernels, factors = {}, {}
    for block in sorted(key for key in seen if key.startswith("block_")):
        stb, ctb = (seen[block].get(name, {}) for name in ("stb", "ctb"))
        if "scst" in stb:
            kernel = np.asarray(stb["scst"]["kernel"][0])
            kernels[block] = kernel.reshape(kernel.shape[-3:])  # a static one has no sample axis
        if "scct" in ctb:
            factors[block] = np.asarray(ctb["scct"]["factors"][0])[0]
    return Insight(np.asarray(bits_y)[0], np.asarray(bits_z)[0], kernels, factors)


@functools.lru_cache(maxsize=4)
def _look(model: LLIC, options: EncoderOptions) -> Any:
    def look(module: LLIC, x: Array, level: Array | None) -> tuple[Array, Array]:
        y = module.analyze(x, level, options)
        z_hat = jnp.round(module.hyper_analyze(y, level))
        hyper = module.hyper_synthesize(z_hat, level)
        b, h, w, m = y.shape
        _, bits = walk(module, hyper, (b, h, w, m), element_bits(y, options))
        bits_y = jnp.zeros_like(y)
        for step, values in zip(module.steps, bits, strict=True):
            bits_y = step.scatter(bits_y, values)
        return bits_y, module.prior_bits(z_hat)

    @jax.jit
    def program(params: Any, x: Array, level: Array | None) -> Any:
        return model.apply({"params": params}, x, level, method=look, mutable=["intermediates"])

    return program


def element_bits(y: Float[Array, "b h w m"], options: EncoderOptions) -> CoderFunction:
    """A coder function like `walk.quantize` that collects the bits of each element of a step."""

    def code(k: int, step: Step, mean: Array, scale: Array) -> tuple[Array, Array]:
        symbols = choose_symbols(step.gather(y) - mean, scale, options.rdoq_weight)
        return symbols + mean, coded_bits(symbols, scale, options.mixture)

    return code


def group_bits(steps: Sequence[Step], channel_bits: Float[np.ndarray, "m"]) -> dict[str, float]:
    """Bits of each run of channels that is coded together, named `first-last`."""
    groups = dict.fromkeys((step.start, step.stop) for step in steps)
    return {f"{a}-{b - 1}": float(channel_bits[a:b].sum()) for a, b in groups}
