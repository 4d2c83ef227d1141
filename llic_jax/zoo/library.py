"""The installed models, each loaded once, for files of any of them."""

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from llic_jax.bitstream.file import LlicFile
from llic_jax.codec.codec import Codec
from llic_jax.images.photograph import Photograph
from llic_jax.zoo.folder import load_codec
from llic_jax.zoo.installed import model_of_file


class ModelLibrary:
    """Finds the codec of each file by its fingerprint; safe to use from several threads.

    Args:
        load: Makes the codec of a folder; `load_codec` by default.
        only: The codec of all files; no installed model is looked for.
    """

    def __init__(self, load: Callable[[Path], Codec] = load_codec, only: Codec | None = None):
        self._load, self._only = load, only
        self._codecs: dict[bytes, Codec] = {}
        self._lock = threading.Lock()

    def codec_for(self, data: Any) -> Codec:
        """The codec of the model that wrote a file.

        Args:
            data: The file's bytes.

        Raises:
            BitstreamError: As `LlicFile.from_bytes`; `UnknownModelError` where the model is not
                installed.
            LlicError: As `load_codec`.
        """
        if self._only is not None:
            return self._only
        fingerprint = LlicFile.from_bytes(data).fingerprint
        with self._lock:  # two threads that meet the same model wait for one loading
            if fingerprint not in self._codecs:
                self._codecs[fingerprint] = self._load(model_of_file(fingerprint.hex()).folder)
            return self._codecs[fingerprint]

    def decode_photographs(self, files: Sequence[Any]) -> list[Photograph]:
        """Decompresses files of any installed models; those of one model go together.

        Args:
            files: The bytes of each.

        Returns:
            The photographs, in the order of the files.

        Raises:
            LlicError: As `codec_for`, and as the codecs' decoding.
        """
        codecs = [self.codec_for(data) for data in files]
        decoded: dict[int, Photograph] = {}
        for codec in dict.fromkeys(codecs):
            own = [i for i, other in enumerate(codecs) if other is codec]
            photographs = codec.decode_photographs([files[i] for i in own])
            decoded |= zip(own, photographs, strict=True)
        return [decoded[i] for i in range(len(files))]


@functools.cache
def _library() -> ModelLibrary:
    """The process's own: its models stay loaded."""
    return ModelLibrary()


def decompress(data: Any) -> UInt8[np.ndarray, "h w 3"]:
    """The image in these `.llic` bytes, whichever installed model wrote them.

    Models stay loaded for the next files. `load_codec(NAME).decompress` takes one model only.

    Args:
        data: The file's bytes.

    Returns:
        `(H, W, 3)`, uint8.

    Raises:
        BitstreamError: The bytes cannot be read; `UnknownModelError` says how to get the model.
        LlicError: The model cannot be loaded.
    """
    return _library().codec_for(data).decompress(data)
