"""LLIC, a learned image codec with large, self-conditioned receptive fields, in JAX and Flax.

import llic_jax
from llic_jax import load_codec

data = llic_jax.compress("photo.jpg", quality=4)  # a file, a Pillow image or an array -> bytes

codec = load_codec()                       # the released model
data = codec.compress(image, quality=4)    # (H, W, 3) uint8 -> bytes
image = codec.decompress(data)

image = llic_jax.decompress(data)          # of any installed model
header = llic_jax.read_header(data)        # size, model, quality; without JAX
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"
__all__ = [
    "Codec",
    "Compressed",
    "Decompressed",
    "LlicError",
    "build_model",
    "compress",
    "decompress",
    "load_codec",
    "read_header",
]

if TYPE_CHECKING:
    from llic_jax.codec.codec import Codec
    from llic_jax.codec.results import Compressed, Decompressed
    from llic_jax.errors import LlicError
    from llic_jax.models.build import build_model
    from llic_jax.zoo.folder import load_codec
    from llic_jax.zoo.header import read_header
    from llic_jax.zoo.library import compress, decompress

_MODULES = {
    "Codec": "codec.codec",
    "Compressed": "codec.results",
    "Decompressed": "codec.results",
    "LlicError": "errors",
    "build_model": "models.build",
    "compress": "zoo.library",
    "decompress": "zoo.library",
    "load_codec": "zoo.folder",
    "read_header": "zoo.header",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: the command line starts without JAX."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"llic_jax.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
