"""The interface of range coders: an encoder, a decoder, and their number in the file format."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from llic_jax.coding.tables import Tables


@runtime_checkable
class Encoder(Protocol):
    """Takes symbols, gives bytes."""

    def encode(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """Appends symbols.

        Args:
            symbols: int32, of any shape.
            rows: The row of the tables that each symbol is coded with, int32, of the same shape.
        """

    def finish(self) -> bytes:
        """All symbols, as bytes."""


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

    Attributes:
        coder_id: Its number in the file format.
        library: The module that it needs, if any.
        encoder: Makes an encoder from tables.
        decoder: Makes a decoder from tables and bytes.
        in_order: Whether symbols are coded in the order in which they are given, so that the start
            of the bytes yields the first of them.
    """

    coder_id: int
    library: str | None
    encoder: Callable[[Tables], Encoder]
    decoder: Callable[[Tables, bytes], Decoder]
    in_order: bool = False
