"""Looking inside a model: what it sees, where its bits go, and which weights it generates.

- Effective receptive field of g_a (Luo et al., "Understanding the effective receptive field in deep
  convolutional neural networks", 2016): the gradient of a central latent element with respect to
  the image, squared, averaged over images (paper, fig. on receptive fields).
- Bits of every element of the latents, by channel, by group and by place.
- The depth-wise kernels that SCST generates for an image, and SCCT's channel importance factors.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from tqdm import tqdm

from llic_jax.entropy.gaussian import coded_bits, quantize_rdo
from llic_jax.entropy.walk import Step, Walk
from llic_jax.errors import InspectionError
from llic_jax.evaluation.system import Image
from llic_jax.layers.initializers import init_params
from llic_jax.models.build import build_model
from llic_jax.models.encoder_options import PLAIN, EncoderOptions
from llic_jax.models.llic import LLIC
from llic_jax.ops.shapes import to_float
from llic_jax.ops.sizes import HYPER_STRIDE, LATENT_STRIDE, pad_to_multiple

ENERGY = 0.95  # share of the energy within the radius of a receptive field


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """An effective receptive field.

    Attributes:
      name: Of the transform.
      energy: Mean squared gradient at each pixel, one in all.
      radius: In pixels, of the disc around the energy's centre that holds `ENERGY` of it.
    """

    name: str
    energy: Float[np.ndarray, "n n"]
    radius: float


class ReceptiveFieldProbe:
    """Measures effective receptive fields of an analysis transform; one program for all weights.

    Args:
      g_a: The transform, `(B, H, W, 3)` to `(B, H/16, W/16, M)`.
    """

    def __init__(self, g_a: nn.Module):
        def energy(
            params: Any, x: Float[Array, "1 n n 3"], middle: Any, *quality: Array
        ) -> Float[Array, "n n"]:
            def centre(x: Array) -> Array:
                y: Any = g_a.apply({"params": params}, x, *quality)
                return jnp.sum(y[0, middle, middle])

            return jnp.sum(jnp.square(jax.grad(centre)(x)[0]), axis=-1)

        self._energy = jax.jit(energy)

    def measure(
        self, name: str, params: Any, images: Sequence[Image], size: int, *quality: Any
    ) -> ReceptiveField:
        """Averages the gradient of the central latent position, summed over its channels.

        Args:
          name: Of the result.
          params: Of the transform.
          images: Each uint8 `(H, W, 3)`; their central `size` x `size` pixels are taken.
          size: In pixels, a multiple of 64.
          *quality: If the transform takes it.

        Returns:
          The effective receptive field.

        Raises:
          InspectionError: `size` is no multiple of 64, or an image is smaller.
        """
        if size % HYPER_STRIDE:
            raise InspectionError(f"size is {size}; it must be a multiple of {HYPER_STRIDE}.")
        middle = size // LATENT_STRIDE // 2
        total = np.zeros((size, size))
        for image in images:
            crop = jnp.asarray(to_float(central_crop(image, size)[None]))
            energy = np.asarray(self._energy(params, crop, middle, *quality), np.float64)
            total += energy / energy.sum()
        total /= total.sum()
        return ReceptiveField(name, total, energy_radius(total))


def central_crop(image: Image, size: int) -> UInt8[np.ndarray, "n n 3"]:
    """Cuts the middle of `size` x `size` pixels out of an image.

    Raises:
      InspectionError: The image is smaller.
    """
    top, left = ((side - size) // 2 for side in image.shape[:2])
    if min(top, left) < 0:
        raise InspectionError(
            f"An image of {image.shape[1]} x {image.shape[0]} has no middle of {size} x {size}; "
            "take a smaller size or leave the image out."
        )
    return image[top : top + size, left : left + size]


def energy_radius(energy: Float[np.ndarray, "h w"], share: float = ENERGY) -> float:
    """Computes the radius of the disc around the centre of gravity that holds a share of it.

    Args:
      energy: At each pixel.
      share: From 0 to 1.

    Returns:
      The radius in pixels.
    """
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
    """Measures the trained `g_a`, a fresh one, and fresh ones with small static kernels.

    The static kernels are 5x5 and 3x3 in every stage (paper's ablations); they have no trained
    weights to show.

    Args:
      model: The model.
      params: Its parameters.
      config: The model's section of the config (see `build_model`).
      images: Each uint8 `(H, W, 3)`, with sides of 64 pixels or more.
      seed: Of fresh parameters.

    Returns:
      Four fields, at the middle quality.
    """
    size = min(512, *(min(image.shape[:2]) for image in images)) // HYPER_STRIDE * HYPER_STRIDE
    quality = model.transform_arguments(jnp.full(1, (model.levels + 1) / 2))
    fields = []
    kernels = " ".join(str(k) for k in config["kernel_sizes"])
    variants: list[tuple[str, Mapping[str, Any], bool]] = [
        (f"trained, kernels {kernels}", config, True),
        (f"before training, kernels {kernels}", config, False),
    ]
    for k in (5, 3):
        static = {
            **config,
            "kernel_sizes": (k,) * len(config["channels"]),
            "style": {**config["style"], "self_conditioned": False},
        }
        variants.append((f"before training, static {k}x{k}", static, False))
    own_probe = ReceptiveFieldProbe(model.g_a)
    like = jax.ShapeDtypeStruct((1, HYPER_STRIDE, HYPER_STRIDE, 3), jnp.float32)
    for name, variant, trained in tqdm(variants, "receptive fields", leave=False, disable=None):
        g_a = model.g_a if variant is config else build_model(variant).g_a
        probe = own_probe if variant is config else ReceptiveFieldProbe(g_a)
        weights = params["g_a"] if trained else init_params(g_a, seed, like, *quality)
        fields.append(probe.measure(name, weights, images, size, *quality))
    return fields


@dataclasses.dataclass(frozen=True)
class Insight:
    """One image, seen from within the model, at one quality.

    Attributes:
      bits_y: Bits of each symbol of `y`, `(H/16, W/16, M)`.
      bits_z: Bits of each symbol of `z`, `(H/64, W/64, N)`.
      kernels: The kernels `(K, K, C)` that SCST generates, by block of g_a.
      factors: SCCT's channel importance factors `(C,)`, by block of g_a.
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


class Inspector:
    """Looks at images from within a model; owns its compiled programs.

    Args:
      model: The model.
      params: Its parameters.
      options: The encoder's.
    """

    def __init__(self, model: LLIC, params: Any, options: EncoderOptions = PLAIN):
        def look(module: LLIC, x: Array, quality: Array | None) -> tuple[Array, Array]:
            y = module.analyze(x, quality, options)
            z_hat = jnp.round(module.hyper_analyze(y, quality))
            hyper = module.hyper_synthesize(z_hat, quality)
            walk, bits_y = Walk(module, hyper, y.shape), jnp.zeros_like(y)
            for step, mean, scale in walk:
                symbols = quantize_rdo(step.gather(y) - mean, scale, options.rdoq_weight)
                bits_y = step.scatter(bits_y, coded_bits(symbols, scale, module.mixture))
                walk.fill(symbols + mean)
            return bits_y, module.prior_bits(z_hat)

        def program(params: Any, x: Array, quality: Array | None) -> Any:
            variables = {"params": params}
            return model.apply(variables, x, quality, method=look, mutable=["intermediates"])

        self._params, self._look = params, jax.jit(program)

    def inspect(self, image: Image, quality: float | None) -> Insight:
        """Looks at one image; it is padded, and its symbols are chosen, as for coding.

        Args:
          image: uint8 `(H, W, 3)`.
          quality: None for a model of one rate.

        Returns:
          Bits, kernels and factors.
        """
        x = to_float(pad_to_multiple(image[None], HYPER_STRIDE))
        batch = None if quality is None else jnp.full(1, quality, jnp.float32)
        (bits_y, bits_z), variables = self._look(self._params, x, batch)
        activations = variables["intermediates"].get("g_a", {})
        kernels, factors = {}, {}
        for block in sorted(key for key in activations if key.startswith("block_")):
            stb, ctb = (activations[block].get(name, {}) for name in ("stb", "ctb"))
            if "scst" in stb:
                kernel = np.asarray(stb["scst"]["kernel"][0])
                # A static kernel has no sample axis.
                kernels[block] = kernel.reshape(kernel.shape[-3:])
            if "scct" in ctb:
                factors[block] = np.asarray(ctb["scct"]["factors"][0])[0]
        return Insight(np.asarray(bits_y)[0], np.asarray(bits_z)[0], kernels, factors)


def group_bits(steps: Sequence[Step], channel_bits: Float[np.ndarray, "m"]) -> dict[str, float]:
    """Adds up the bits of the channels that are coded together.

    Args:
      steps: Of the walk.
      channel_bits: Bits of each channel.

    Returns:
      Bits by group, named `first-last`.
    """
    groups = dict.fromkeys((step.start, step.stop) for step in steps)
    return {f"{a}-{b - 1}": float(channel_bits[a:b].sum()) for a, b in groups}
