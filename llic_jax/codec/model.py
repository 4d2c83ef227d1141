"""What a codec is made of, beside the encoder's options."""

from typing import Any, NamedTuple

from llic_jax.coding.tables import Tables
from llic_jax.models.llic import LLIC


class CodecModel(NamedTuple):
    """Everything that a file is bound to.

    Attributes:
        network: The networks.
        params: Their parameters.
        tables: The range coder's, as they are stored.
        fingerprint: 8 bytes that stand for config, weights and tables; written into every file.
        lambdas: Weight of the squared error at each quality level that the model was trained with;
            () where it was trained for another distortion. Only refinement asks for them.
    """

    network: LLIC
    params: Any
    tables: Tables
    fingerprint: bytes
    lambdas: tuple[float, ...] = ()


class Limits(NamedTuple):
    """What one call may take.

    Attributes:
        max_pixels: Larger images, padded to multiples of 64, are refused before anything is
            allocated for them.
        memory_gb: GiB; transforms of larger images are computed in bands (`execution/bands.py`),
            which changes decoded images by no more than the rounding of a few values. Images whose
            latents take more are refused.
    """

    max_pixels: int = 1 << 28  # 16384 x 16384
    memory_gb: float = 4.0  # a common laptop can spare them


USUAL = Limits()
