"""What a range coder is: an encoder and a decoder, with the number that files name them by."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from llic_jax.coding.tables import Tables


@runtime_checkable
class Encoder(Protocol):
    """Takes symbols, gives bytes."""

    def encode(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """Appends `symbols` (int32, any shape), each coded with its row of the tables (int32)."""

    def finish(self) -> bytes:
        """All that was put, as bytes."""


@runtime_checkable
class Decoder(Protocol):
    """Takes bytes, gives symbols."""

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """The next symbols (int32, in the shape of `rows`)."""

    def finish(self) -> bool:
        """Whether the bytes end where the symbols do; False for damaged bytes (mostly)."""


@dataclasses.dataclass(frozen=True)
class CoderPair:
    """Encoder and decoder of one kind.

    coder_id: its number in the file format. library: the module that it cannot do without, if any.
    """

    coder_id: int
    library: str | None
    encoder: Callable[[Tables], Encoder]
    decoder: Callable[[Tables, bytes], Decoder]
