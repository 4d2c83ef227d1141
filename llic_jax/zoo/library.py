"""The installed models, each loaded once, for files of any of them."""

import functools
import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from jaxtyping import Array, UInt8
from PIL import Image

from llic_jax.bitstream.file import LlicFile
from llic_jax.bitstream.sections import sections_of
from llic_jax.codec import validation
from llic_jax.codec.codec import Codec
from llic_jax.codec.effort import Refinement
from llic_jax.codec.rate_control import Quality, TargetBpp, TargetPsnr, target
from llic_jax.errors import InputError
from llic_jax.images.from_pillow import photograph_of
from llic_jax.images.photograph import Photograph
from llic_jax.images.read import read_photograph
from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec
from llic_jax.zoo.installed import folder_of, model_of_file


class ModelLibrary:
    """Finds the codec of each file by its fingerprint; safe to use from several threads.

    Args:
        load: Makes the codec of a folder; `load_codec` by default.
        only: The codec of all files; no installed model is looked for.
    """

    def __init__(self, load: Callable[[Path], Codec] = load_codec, only: Codec | None = None):
        self._load, self._only = load, only
        self._codecs: dict[bytes, Codec] = {}
        self._folders: dict[Path, Codec] = {}
        self._lock = threading.Lock()

    def codec_for(self, data: Any) -> Codec:
        """The codec of the model that wrote a file; the recommended one's if it names none.

        Args:
            data: The file's bytes, or the start of them.

        Raises:
            BitstreamError: As `LlicFile.from_start`; `UnknownModelError` where the model is not
                installed.
            LlicError: As `load_codec`.
        """
        if self._only is not None:
            return self._only
        fingerprint = LlicFile.from_start(data).fingerprint
        if not fingerprint:
            return self.codec_of()
        with self._lock:  # two threads that meet the same model wait for one loading
            if fingerprint not in self._codecs:
                self._codecs[fingerprint] = self._load(model_of_file(fingerprint.hex()).folder)
            return self._codecs[fingerprint]

    def codec_of(self, model: str | Path | None = None) -> Codec:
        """The codec of a model, to write files.

        Args:
            model: As for `load_codec`.

        Raises:
            LlicError: As `load_codec`.
        """
        if self._only is not None:
            return self._only
        folder = DEFAULT_FOLDER if model is None else folder_of(model)
        with self._lock:
            if folder not in self._folders:
                codec = self._load(folder)
                # A file of this model may have loaded it already.
                self._folders[folder] = self._codecs.setdefault(codec.fingerprint, codec)
            return self._folders[folder]

    def decode_photographs(self, files: Sequence[Any], preview: bool = False) -> list[Photograph]:
        """Decompresses files of any installed models; those of one model go together.

        Args:
            files: The bytes of each.
            preview: Take files that were cut, too (see `Codec.decode`).

        Returns:
            The photographs, in the order of the files.

        Raises:
            LlicError: As `codec_for`, and as the codecs' decoding.
        """
        codecs = [self.codec_for(data) for data in files]
        decoded: dict[int, Photograph] = {}
        for codec in dict.fromkeys(codecs):
            own = [i for i, other in enumerate(codecs) if other is codec]
            photographs = codec.decode_photographs([files[i] for i in own], preview)
            decoded |= zip(own, photographs, strict=True)
        return [decoded[i] for i in range(len(files))]


@functools.cache
def shared_library() -> ModelLibrary:
    """The process's own: its models stay loaded."""
    return ModelLibrary()


def compress(
    image: Any,
    quality: float | None = None,
    *,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    effort: int = 0,
    effort_seconds: float = math.inf,
    keep_exif: bool = False,
    strict_llic: bool = False,
    progressive: bool = False,
    model: Codec | str | Path | None = None,
) -> bytes:
    """The `.llic` bytes of an image, as `llic compress` makes them: pixels, profile, alpha.

    Models stay loaded for the next images.

    Args:
        image: The name of an image file, a Pillow image, an array `(H, W, 3)` or `(H, W)` of uint8,
            or a `Photograph`. A JAX array `(H, W, 3)` is coded on its device (see `Codec.encode`).
        quality: 1 to the model's number of levels; the middle by default.
        target_bpp: In its place: the best quality within so many bits per pixel.
        target_psnr: In its place: the smallest file that reaches this PSNR, dB.
        effort: Gradient steps on the latents, for a smaller file at the same PSNR, or a higher PSNR
            within `target_bpp`.
        effort_seconds: Bounds them by time; without `effort`, as many as it allows.
        keep_exif: Whether EXIF, XMP and resolution go along; they may tell who and where.
        strict_llic: Code drawings and patterns by the networks, too.
        progressive: Put profile, alpha, metadata and a check of each step before the pixels, for a
            part of the file (see `Codec.progressive`).
        model: A codec, or as for `load_codec`.

    Returns:
        The file.

    Raises:
        LlicError: An image that cannot be read or coded, or choices that do not go together.
        OSError: A file that cannot be read.
    """
    if quality is not None and (target_bpp is not None or target_psnr is not None):
        raise InputError("Name a quality or a target, not both.")
    pixels, visible, sections = image, None, {}
    if not isinstance(image, Array) or image.ndim == 2:
        photograph = _photograph(image)
        pixels, visible = photograph.colours_to_code(), photograph.visible
        sections = sections_of(photograph, keep_exif)
    rate: Quality | TargetBpp | TargetPsnr = Quality(quality)
    if target_bpp is not None or target_psnr is not None:
        rate = target(bpp=target_bpp, psnr=target_psnr, visible=visible)
    codec = model if isinstance(model, Codec) else shared_library().codec_of(model)
    (compressed,) = (codec.progressive if progressive else codec).encode(
        [pixels],
        rate,
        Refinement(effort, effort_seconds),
        [sections],
        fall_back=not strict_llic,
    )
    return compressed.data


def _photograph(image: Any) -> Photograph:
    if isinstance(image, Photograph):
        return image
    if isinstance(image, str | os.PathLike):
        return read_photograph(Path(image))
    if isinstance(image, Image.Image):
        kept = {name: image.info.get(name) for name in ("exif", "xmp", "dpi")}
        return photograph_of(image, icc=image.info.get("icc_profile"), **kept)
    if isinstance(image, np.ndarray | Array) and image.ndim == 2 and image.dtype == np.uint8:
        return Photograph(np.repeat(np.asarray(image)[..., None], 3, -1), grey=True)
    return Photograph(np.asarray(validation.as_image(image)))


@overload
def decompress(
    data: Any, *, preview: bool = ..., on_device: Literal[False] = ...
) -> UInt8[np.ndarray, "h w 3"]: ...


@overload
def decompress(
    data: Any, *, preview: bool = ..., on_device: Literal[True]
) -> UInt8[Array, "h w 3"]: ...


def decompress(
    data: Any, *, preview: bool = False, on_device: bool = False
) -> UInt8[Array | np.ndarray, "h w 3"]:
    """The image in these `.llic` bytes, whichever installed model wrote them.

    Models stay loaded for the next files. `load_codec(NAME).decompress` takes one model only.

    Args:
        data: The file's bytes, or its name.
        preview: Take a file that was cut, or is still arriving, too (see `Codec.decode`).
        on_device: Return a `jax.Array` (see `Codec.decode_on_device`).

    Returns:
        `(H, W, 3)`, uint8.

    Raises:
        BitstreamError: The bytes cannot be read; `UnknownModelError` says how to get the model.
        LlicError: The model cannot be loaded.
        OSError: The file cannot be read.
    """
    if isinstance(data, str | os.PathLike):
        data = Path(data).read_bytes()
    codec = shared_library().codec_for(data)
    if on_device:
        return codec.decompress(data, preview, on_device=True)
    return codec.decompress(data, preview)
