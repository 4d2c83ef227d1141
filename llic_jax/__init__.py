"""LLIC, a learned image codec with large, self-conditioned receptive fields, in JAX and Flax.

from llic_jax import load_codec

codec = load_codec()                       # the released model
data = codec.compress(image, quality=4)    # (H, W, 3) uint8 -> bytes
image = codec.decompress(data)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"
__all__ = ["build_model", "load_codec"]

if TYPE_CHECKING:
    from llic_jax.models.build import build_model
    from llic_jax.zoo.folder import load_codec


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: the command line starts without JAX."""
    if name == "load_codec":
        from llic_jax.zoo.folder import load_codec

        return load_codec
    if name == "build_model":
        from llic_jax.models.build import build_model

        return build_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
