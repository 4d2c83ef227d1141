"""Images to files at a rate: a quality, or a target that a search meets.

quality            encoder.py                     images that share a canvas, together
target             rate_control.py                one image, at several qualities
with refinement    refinement.py, effort.py       one image, many steps
with fall_back     fallback.py                    another way, what the networks spoil

Images are arrays of NumPy, or of JAX and then on JAX's default device (`Codec` sees to that).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from llic_jax.bitstream.file import QUALITY_STEPS, LlicFile
from llic_jax.codec import fallback
from llic_jax.codec.effort import Goal, Refinement, Visible, improve
from llic_jax.codec.encoder import Encoder
from llic_jax.codec.networks import CompiledNetworks, quality_array
from llic_jax.codec.rate_control import Quality, TargetBpp, TargetPsnr, search
from llic_jax.codec.results import Compressed
from llic_jax.errors import InputError, LatentError
from llic_jax.execution.canvas import cut_image
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.models.llic import Latents

if TYPE_CHECKING:
    from llic_jax.codec.refinement import Refiner

_NO_REFINEMENT = Refinement(0)


class ImageEncoder:
    """Makes files of images with one model.

    Args:
        encoder: Makes files of latents.
        networks: The model's, compiled.
        lambdas: Weight of the squared error in the model's loss at each quality level; () where it
            was trained for another distortion.
        options: What the encoder may choose.
    """

    def __init__(
        self,
        encoder: Encoder,
        networks: CompiledNetworks,
        lambdas: tuple[float, ...],
        options: EncoderOptions,
    ):
        self._encoder, self._networks = encoder, networks
        self._lambdas, self._options = lambdas, options

    @property
    def default_quality(self) -> float | None:
        """The middle of the range; None for a model of one rate."""
        levels = self._networks.network.levels
        return (1 + levels) / 2 if levels > 1 else None

    def quality(self, rate: Quality) -> float | None:
        """The quality or the default, in the steps that a file can hold.

        Raises:
            InputError: It is out of range, or given to a model of one rate.
        """
        quality, levels = rate.value, self._networks.network.levels
        if levels == 1:
            if quality is not None:
                raise InputError("This model has one rate; leave quality out.")
            return None
        quality = self.default_quality if quality is None else quality
        assert quality is not None
        if not 1 <= quality <= levels:
            raise InputError(f"quality is {quality}; this model takes 1 to {levels}.")
        return round(quality * QUALITY_STEPS) / QUALITY_STEPS

    def encode(
        self,
        images: Sequence[UInt8[Array | np.ndarray, "_ _ 3"]],
        rate: Quality | TargetBpp | TargetPsnr,
        refinement: Refinement | None,
        sections: Sequence[Mapping[int, bytes]],
    ) -> list[Compressed]:
        """Files by the networks alone (see `Codec.encode`)."""
        if not images:
            return []
        if refinement is None or refinement.is_none:
            refinement = _NO_REFINEMENT
            # Without row shifts, files stand on the last digits of what the networks compute.
            if isinstance(rate, Quality) and (self._options.shift_resolution or len(images) == 1):
                sizes, on_device = [_size(image) for image in images], _on_device(*images)
                batch = self._encoder.batch(sizes, self.quality(rate), on_device)
                latents = self._encoder.analyze(batch, images)
                return self._encoder.encode(batch, latents, sections, self._options.rdoq_weight)
        return [
            self._encode_one(image, rate, refinement, of_image)
            for image, of_image in zip(images, sections, strict=True)
        ]

    def encode_or_fall_back(
        self,
        images: Sequence[UInt8[Array | np.ndarray, "_ _ 3"]],
        rate: Quality | TargetBpp | TargetPsnr,
        refinement: Refinement | None,
        sections: Sequence[Mapping[int, bytes]],
    ) -> list[Compressed]:
        """Files by the networks, or by what `fallback.py` chooses (see `Codec.encode`)."""
        try:
            encoded = self.encode(images, rate, refinement, sections)
        except LatentError:
            if len(images) == 1:
                other = self._fall_back(images[0], rate, None, sections[0])
                if other is None:
                    raise
                return [other]
            return [  # one image must not spoil the others
                self.encode_or_fall_back([image], rate, refinement, [of_image])[0]
                for image, of_image in zip(images, sections, strict=True)
            ]
        return [
            self._fall_back(image, rate, of_networks, of_image) or of_networks
            for image, of_networks, of_image in zip(images, encoded, sections, strict=True)
        ]

    def analyze(self, image: UInt8[Array | np.ndarray, "h w 3"], quality: float | None) -> Latents:
        """An image's latents, before they are rounded; where the image is, device or host.

        Args:
            image: The pixels.
            quality: From `quality`.
        """
        batch = self._encoder.batch([_size(image)], quality, _on_device(image))
        return Latents(*map(batch.own, self._encoder.analyze(batch, [image])))

    def encode_latents(
        self,
        latents: Latents,
        size: tuple[int, int],
        quality: float | None,
        sections: Mapping[int, bytes],
    ) -> Compressed:
        """Codes latents, which become the nearest integers: whoever found them weighed their cost.

        Args:
            latents: Of one image, as those of `analyze`.
            size: Of the image, height and width, pixels.
            quality: From `quality`; they were found for it.
            sections: Further parts of the file, by tag.

        Raises:
            InputError: Latents of another shape, too large, or not finite.
        """
        batch = self._encoder.batch([size], quality, _on_device(*latents))
        rows, columns = batch.canvas.unpadded().blocks  # of 64 pixels
        y_shape = (1, 4 * rows, 4 * columns, self._networks.network.latent_channels)
        z_shape = (1, rows, columns, self._encoder.hyper_channels)
        if (latents.y.shape, latents.z.shape) != (y_shape, z_shape):
            raise InputError(
                f"Found latents y {latents.y.shape} and z {latents.z.shape}; expected "
                f"{y_shape} and {z_shape} for an image of {size[1]} x {size[0]} pixels."
            )
        on_canvas = Latents(*map(batch.canvas.place, latents))
        return self._encoder.encode(batch, on_canvas, [sections], 0.0)[0]

    def reconstruct(self, compressed: Compressed) -> UInt8[np.ndarray, "h w 3"]:
        """The image that the decoder will make, without decoding.

        Args:
            compressed: From this encoder.
        """
        if compressed.y_hat is None:  # not coded by the networks
            return fallback.decode(LlicFile.from_bytes(compressed.data))
        image = np.array(self._synthesized(compressed)[0])
        return image[: compressed.height, : compressed.width]

    def reconstruct_on_device(self, compressed: Compressed) -> UInt8[Array, "h w 3"]:
        """As `reconstruct`; the networks' pixels have not been on the host.

        Args:
            compressed: From this encoder.
        """
        if compressed.y_hat is None:
            return jnp.asarray(self.reconstruct(compressed))
        image = self._synthesized(compressed)
        return cut_image(image, 0, compressed.height, compressed.width)

    def _synthesized(self, compressed: Compressed) -> UInt8[Array, "1 h w 3"]:
        """The decoder's image on its canvas."""
        canvas = self._networks.canvas_for([(compressed.height, compressed.width)])
        y_hat = canvas.place(compressed.y_hat)
        return self._networks.synthesize(canvas, y_hat, quality_array([compressed.quality]))

    def _encode_one(
        self,
        image: UInt8[Array | np.ndarray, "h w 3"],
        rate: Quality | TargetBpp | TargetPsnr,
        refinement: Refinement,
        sections: Mapping[int, bytes],
    ) -> Compressed:
        if not refinement.is_none:
            self._refiner.check(*image.shape[:2])

        def at(quality: float | None) -> Compressed:
            return self.encode([image], Quality(quality), None, [sections])[0]

        if isinstance(rate, Quality):
            plain = at(rate.value)
        else:
            levels = self._networks.network.levels
            reconstruct = self.reconstruct_on_device if _on_device(image) else self.reconstruct
            plain = search(at, reconstruct, image, rate, levels)
        if refinement.is_none:
            return plain
        image = np.asarray(image)  # the search of latents works on the host

        def analyze(quality: float | None) -> Latents:
            return self.analyze(image, quality)

        def encode(latents: Latents, quality: float | None, rdoq_weight: float) -> Compressed:
            batch = self._encoder.batch([_size(image)], quality)
            on_canvas = Latents(*map(batch.canvas.place, latents))
            return self._encoder.encode(batch, on_canvas, [sections], rdoq_weight)[0]

        def refine(goal: Goal, visible: Visible) -> Compressed | None:
            return self._refiner.refine(
                image, plain.quality, refinement, goal, analyze, encode, visible
            )

        return improve(image, rate, plain, refine, self.reconstruct)

    def _fall_back(
        self,
        image: UInt8[Array | np.ndarray, "h w 3"],
        rate: Quality | TargetBpp | TargetPsnr,
        encoded: Compressed | None,
        sections: Mapping[int, bytes],
    ) -> Compressed | None:
        """The image coded another way; None if what the networks made is to be kept."""
        if encoded is not None:
            quality, networks = encoded.quality, LlicFile.from_bytes(encoded.data)
        else:
            quality = self.quality(rate if isinstance(rate, Quality) else Quality())
            networks = None
        expected = fallback.expected_psnr(quality, self._lambdas)
        least = expected - fallback.SPOILT
        if isinstance(rate, TargetPsnr):
            expected = least = rate.value
        data = fallback.choose(
            image,
            sections,
            networks,
            lambda: self.reconstruct(encoded),  # type: ignore[arg-type]
            least,
            expected,
        )
        if data is None:
            return None
        height, width = image.shape[:2]
        if isinstance(rate, TargetBpp) and 8 * len(data) > rate.value * height * width:
            return None
        if encoded is not None:
            return dataclasses.replace(
                encoded, data=data, y_hat=None, bits=8.0 * len(data), effort=None
            )
        return Compressed(data, quality, height, width, None, 8.0 * len(data), 0.0, 0.0)

    @cached_property
    def _refiner(self) -> "Refiner":
        from llic_jax.codec.refinement import Refiner  # most encoders need none

        return Refiner(self._networks, self._lambdas)


def _size(image: UInt8[Array | np.ndarray, "h w 3"]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _on_device(*arrays: Array | np.ndarray) -> bool:
    return any(isinstance(array, Array) for array in arrays)
