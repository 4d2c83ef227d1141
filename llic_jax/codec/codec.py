"""Images to `.llic` bytes and back, for one model.

    encode     images -> image_encoder.py -> encoder.py -> files
    decode     files -> parsed once -> decoder.py -> images

The table that a symbol is coded with depends on a scale that the networks compute, and no two
platforms compute it alike to the last digit; `coding/row_shifts.py` makes them agree.
"""

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

import jax.numpy as jnp
import numpy as np
import PIL.Image
from jaxtyping import Array, UInt8

from llic_jax.bitstream.file import LlicFile
from llic_jax.bitstream.sections import photograph_fields
from llic_jax.codec import fallback, validation
from llic_jax.codec.decoder import Decoder
from llic_jax.codec.effort import Refinement
from llic_jax.codec.encoder import Encoder
from llic_jax.codec.image_encoder import ImageEncoder
from llic_jax.codec.model import USUAL, CodecModel, Limits
from llic_jax.codec.networks import CompiledNetworks
from llic_jax.codec.rate_control import MIDDLE, Quality, TargetBpp, TargetPsnr
from llic_jax.codec.results import Compressed, Decompressed
from llic_jax.coding.scale_offsets import with_all_rows
from llic_jax.errors import ArgumentTypeError, ForkError, InputError
from llic_jax.execution.placement import device_of, on_device_of
from llic_jax.images.photograph import Photograph
from llic_jax.metrics import distortion
from llic_jax.models.encoder_options import PLAIN, EncoderOptions
from llic_jax.models.llic import LLIC, Latents

_Image = TypeVar("_Image")  # as it is decoded
_first_process: int | None = None  # in which a codec was made, and so JAX started


class Codec:
    """A model, ready to code; safe to use from several threads.

    Pickles with the model, and compiles anew on the other side. Start processes by "spawn": JAX
    does not survive a fork.

    Args:
        model: What files are bound to.
        options: What the encoder may choose.
        limits: Of one call.
        networks: Those of another codec of this model and these limits, to compile nothing twice.

    Attributes:
        networks: The model's, compiled.
        coder: Name of the range coder that files are written with.

    Raises:
        InputError: An option that cannot be.
        ForkError: This process was forked after JAX had started.
    """

    def __init__(
        self,
        model: CodecModel,
        options: EncoderOptions = PLAIN,
        limits: Limits = USUAL,
        networks: CompiledNetworks | None = None,
    ):
        _check_process()
        tables = with_all_rows(model.tables)
        self.model, self.options, self.limits = model, options, limits
        self.networks = networks or CompiledNetworks(model.network, model.params, limits.memory_gb)
        encoder = Encoder(model, tables, self.networks, options, limits)
        self.coder = encoder.coder
        self._encoder = ImageEncoder(encoder, self.networks, model.lambdas, options)
        self._decoder = Decoder(model, tables, self.networks, limits)

    def __reduce__(self) -> tuple[Any, ...]:
        return Codec, (self.model, self.options, self.limits)

    @property
    def network(self) -> LLIC:
        """The networks, without parameters."""
        return self.model.network

    @property
    def fingerprint(self) -> bytes:
        """8 bytes that stand for config, weights and tables."""
        return self.model.fingerprint

    @functools.cached_property
    def progressive(self) -> "Codec":
        """This codec for files whose first part is checked (`EncoderOptions.progressive`).

        It compiles nothing twice.

        Raises:
            InputError: The range coder writes no such files.
        """
        options = self.options._replace(progressive=True)
        return Codec(self.model, options, self.limits, self.networks)

    @property
    def default_quality(self) -> float | None:
        """The middle of the range; None for a model of one rate."""
        return self._encoder.default_quality

    def compress(
        self, image: Any, quality: float | None = None, strict_llic: bool = False
    ) -> bytes:
        """One image's `.llic` bytes (see `encode`).

        Args:
            image: As for `encode`.
            quality: 1 to the model's number of levels; the middle by default.
            strict_llic: Code drawings and patterns with the networks, too (see `fallback.py`).
        """
        return self.encode([image], Quality(quality), fall_back=not strict_llic)[0].data

    @overload
    def decompress(
        self, data: Any, preview: bool = ..., on_device: Literal[False] = ...
    ) -> UInt8[np.ndarray, "h w 3"]: ...

    @overload
    def decompress(
        self, data: Any, preview: bool = ..., *, on_device: Literal[True]
    ) -> UInt8[Array, "h w 3"]: ...

    def decompress(
        self, data: Any, preview: bool = False, on_device: bool = False
    ) -> UInt8[Array | np.ndarray, "h w 3"]:
        """The image in a `.llic` file.

        Args:
            data: The file's bytes.
            preview: As in `decode`.
            on_device: Return a `jax.Array`, as `decode_on_device` does.

        Raises:
            BitstreamError: As `decode`.
        """
        if on_device:
            return self.decode_on_device([data], preview)[0]
        return self.decode([data], preview)[0].image

    def encode(
        self,
        images: Iterable[Any],
        rate: Quality | TargetBpp | TargetPsnr = MIDDLE,
        refinement: Refinement | None = None,
        sections: Sequence[Mapping[int, bytes]] | None = None,
        fall_back: bool = False,
    ) -> list[Compressed]:
        """Compresses RGB images of any size from 1x1 up.

        At a quality, without refinement, they go through the networks together. Then their sizes
        must be equal when rounded up to multiples of 64; times are the batch's, in equal shares. A
        file is that of the image alone up to the last digits of what the networks compute, and is
        decoded alone or in any company.

        Images that are JAX arrays are coded on the device that they lie on, and those of NumPy and
        Pillow beside them too. Their pixels stay there, and `y_hat` of the results as well; files
        are the same. Three things alone copy pixels to the host: refinement; `fall_back`, which
        looks at a sample, and at the whole of what is unlike photographs; and an image too large
        for `memory_gb` at once.

        Args:
            images: Each `(H, W, 3)`, uint8, of NumPy or JAX; or an opaque Pillow image. An array
                `(B, H, W, 3)` is B images.
            rate: A quality, or a target.
            refinement: Gradient steps on the latents of each image (`refinement.py`), for a smaller
                file at the PSNR that it has without them, or at the target's; with a target rate
                for a higher PSNR (`effort.py`).
            sections: Further parts of each file (`bitstream/sections.py`), by tag.
            fall_back: Code an image another way where the networks spoil it, or where lossless
                WebP is smaller (`fallback.py`).

        Raises:
            LatentError: An image whose latent cannot be coded; with `fall_back` only where nothing
                else codes it.
            InputError: An array that is no such image, a quality out of range, a target out of
                reach, a refinement that cannot be, or sizes that do not go together; JAX arrays on
                several devices, or one that is spread over several.
            ArgumentTypeError: Neither arrays nor Pillow images, or one of them that is not in a
                list; an array within `jax.jit`.
        """
        _check_process()
        pixels = [validation.as_image(image) for image in _images(images)]
        tags = [{}] * len(pixels) if sections is None else sections
        if len(tags) != len(pixels):
            raise InputError(f"Found sections for {len(tags)} images; expected {len(pixels)}.")
        encode = self._encoder.encode_or_fall_back if fall_back else self._encoder.encode
        with on_device_of(pixels):
            return encode(pixels, rate, refinement, tags)

    def decode(self, files: Iterable[Any], preview: bool = False) -> list[Decompressed]:
        """Decompresses files whose images go through the networks together.

        The sizes of the images must be equal when rounded up to multiples of 64; the qualities need
        not. An image is that of its file alone, but for values that the networks' last digits
        round the other way. Files without row shifts are decoded one after the other.

        Args:
            files: The bytes of each.
            preview: Take files that were cut, or are still arriving, too: what is missing of the
                latent is at its predicted mean. Whatever the range decoder yields is the encoder's
                symbol, but no checksum covers a part. In a progressive file every whole step has
                a check; what does not fit is left out, and `Decompressed.verified` tells.

        Raises:
            BitstreamError: One of its subclasses, for anything that is wrong with the bytes of a
                file or that keeps this codec from reading them; never a wrong image.
            ArgumentTypeError: No bytes.
            InputError: Sizes that do not go together.
        """
        return self._decode(self._parse(files, preview))

    def decode_on_device(
        self, files: Iterable[Any], preview: bool = False
    ) -> list[UInt8[Array, "_ _ 3"]]:
        """Decompresses files (see `decode`) to JAX arrays, whose pixels have not been on the host.

        They lie on JAX's default device; `with jax.default_device(device):` chooses another. The
        symbols are decoded on the host. So is a whole picture that is no photograph
        (`fallback.py`), and an image too large for `memory_gb` at once. Every size of image
        compiles a small program, which cuts it out.

        Args:
            files: The bytes of each.
            preview: As in `decode`.

        Returns:
            Each `(H, W, 3)`, with the values that `decode` gives.

        Raises:
            BitstreamError: As `decode`.
            ArgumentTypeError: As `decode`.
            InputError: As `decode`.
        """
        return self._in_order(
            self._parse(files, preview),
            self._decoder.decode_on_device,
            lambda file: jnp.asarray(fallback.decode(file)),
        )

    def decode_photographs(self, files: Iterable[Any], preview: bool = False) -> list[Photograph]:
        """Decompresses files (see `decode`) to photographs, with all that their sections say.

        Args:
            files: The bytes of each.
            preview: As in `decode`. A file's sections come last, so a cut one has none, unless it
                is progressive.

        Raises:
            BitstreamError: As `decode`; also for a section that cannot be read.
        """
        parsed = self._parse(files, preview)
        # Before any image is decoded: damage here is found at once.
        fields = [photograph_fields(file) for file in parsed]
        photographs = []
        for decoded, of_image in zip(self._decode(parsed), fields, strict=True):
            if verified := decoded.verified:
                of_image["verified"] = verified.steps, verified.total
                of_image["notes"] = (verified.warning,) if verified.refuted else ()
            photographs.append(Photograph(decoded.image, **of_image))
        return photographs

    def reconstruct(self, compressed: Compressed) -> UInt8[np.ndarray, "h w 3"]:
        """The image that the decoder will make, without decoding.

        Args:
            compressed: From `encode`.
        """
        with on_device_of([compressed.y_hat]):
            return self._encoder.reconstruct(compressed)

    def psnr(self, image: Any, compressed: Compressed) -> float:
        """PSNR over RGB of the image that the decoder will make, dB.

        Args:
            image: The original, as for `encode`; a JAX array is compared on its device.
            compressed: What `encode` made of it.

        Raises:
            InputError: No such image; or another device than that of the JAX array that
                `compressed` was made of.
            ArgumentTypeError: As `encode`.
        """
        pixels = validation.as_image(image)
        with on_device_of([pixels, compressed.y_hat]):
            on_device = isinstance(pixels, Array)
            encoder = self._encoder
            reconstruct = encoder.reconstruct_on_device if on_device else encoder.reconstruct
            return distortion.image_psnr(pixels, reconstruct(compressed))

    def analyze(self, image: Any, quality: float | None = None) -> Latents:
        """The latents of an image, before they are rounded.

        Args:
            image: As for `encode`.
            quality: 1 to the number of quality levels; the default quality by default.

        Returns:
            JAX arrays on the device of the image if it is one; else NumPy arrays.

        Raises:
            InputError: As `encode`.
            ArgumentTypeError: As `encode`.
        """
        _check_process()
        of_file = self._encoder.quality(Quality(quality))
        pixels = validation.as_image(image)
        with on_device_of([pixels]):
            return self._encoder.analyze(pixels, of_file)

    def encode_latents(
        self,
        latents: Latents,
        height: int,
        width: int,
        quality: float | None = None,
        sections: Mapping[int, bytes] | None = None,
    ) -> Compressed:
        """Codes latents, which become the nearest integers: whoever found them weighed their cost.

        Args:
            latents: Of one image, as those of `analyze`; of JAX, they are coded on their device.
            height: Of the image, pixels.
            width: Of the image, pixels.
            quality: That they were found for.
            sections: As in `encode`.

        Raises:
            InputError: As `encode`; or latents of another shape, too large, or not finite.
        """
        of_file = self._encoder.quality(Quality(quality))
        with on_device_of(latents):
            return self._encoder.encode_latents(latents, (height, width), of_file, sections or {})

    def _parse(self, files: Iterable[Any], preview: bool) -> list[LlicFile]:
        """Parses and checks every file; nothing is allocated for images yet."""
        _check_process()
        parsed = []
        for data in _several(files):
            file = LlicFile.from_start(data) if preview else LlicFile.from_bytes(data)
            self._decoder.check(file)
            parsed.append(file)
        return parsed

    def _decode(self, files: Sequence[LlicFile]) -> list[Decompressed]:
        return self._in_order(
            files,
            self._decoder.decode,
            lambda file: Decompressed(fallback.decode(file), 0.0, 0.0),
        )

    def _in_order(
        self,
        files: Sequence[LlicFile],
        by_networks: Callable[[list[LlicFile]], list[_Image]],
        otherwise: Callable[[LlicFile], _Image],
    ) -> list[_Image]:
        """The images of files, those that are the networks' decoded together if that is possible.

        Args:
            files: Parsed and checked.
            by_networks: Decodes several.
            otherwise: Decodes one that is coded another way (`fallback.py`).
        """
        own = [file for file in files if fallback.coding_of(file) is None]
        if len(own) == 1 or (own and all(file.shift_resolution for file in own)):
            decoded = iter(by_networks(own))
        else:
            decoded = iter([by_networks([file])[0] for file in own])
        return [
            next(decoded) if fallback.coding_of(file) is None else otherwise(file) for file in files
        ]


def _images(images: Iterable[Any]) -> Iterable[Any]:
    """Several images; an array of four dimensions is as many as its first one says.

    Raises:
        ArgumentTypeError: A single image.
        InputError: An array that is spread over several devices.
    """
    if isinstance(images, np.ndarray | Array) and images.ndim == 4:
        device_of([images])
        return list(images)
    return _several(images)


def _several(items: Iterable[Any]) -> Iterable[Any]:
    """Refuses a single image, or the bytes of a single file, where several are expected."""
    if isinstance(items, np.ndarray | Array | PIL.Image.Image | bytes | bytearray | memoryview):
        raise ArgumentTypeError(
            f"Found {type(items).__name__}; expected a list. For one image use compress and "
            "decompress, or a list of one."
        )
    return items


def _check_process() -> None:
    """Refuses to compute in a child that was forked after JAX had started: it would hang."""
    global _first_process
    if _first_process is None:
        _first_process = os.getpid()
    if os.getpid() != _first_process:
        raise ForkError(
            "This process was forked from one in which a codec was made; JAX hangs in it. Start "
            'processes by multiprocessing.get_context("spawn"), or make the first codec in the '
            "child."
        )
