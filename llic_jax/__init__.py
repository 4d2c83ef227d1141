"""LLIC, a learned image codec with large, self-conditioned receptive fields, in JAX and Flax.

import llic_jax
from llic_jax import load_codec

codec = load_codec()                       # the released model
data = codec.compress(image, quality=4)    # (H, W, 3) uint8 -> bytes
image = codec.decompress(data)

image = llic_jax.decompress(data)          # of any installed model
header = llic_jax.read_header(data)        # size, model, quality; without JAX
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"
__all__ = ["build_model", "decompress", "load_codec", "read_header"]

if TYPE_CHECKING:
    from llic_jax.models.build import build_model
    from llic_jax.zoo.folder import load_codec
    from llic_jax.zoo.header import read_header
    from llic_jax.zoo.library import decompress


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: the command line starts without JAX."""
    if name == "load_codec":
        from llic_jax.zoo.folder import load_codec

        return load_codec
    if name == "decompress":
        from llic_jax.zoo.library import decompress

        return decompress
    if name == "read_header":
        from llic_jax.zoo.header import read_header

        return read_header
    if name == "build_model":
        from llic_jax.models.build import build_model

        return build_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
