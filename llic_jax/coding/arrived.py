"""The start of a payload, decoded as far as it goes.

Its end falls anywhere within a step of the walk. The symbols before it are the encoder's, and zeros
come after them: a zero is the predicted mean, an offset or a row shift of none.
"""

import zlib

import numpy as np

from llic_jax.coding.range_coders.interface import CoderPair, Decoder
from llic_jax.coding.spent_bits import SpentBits
from llic_jax.coding.tables import CodingTables

_PIECE = 256  # symbols that are decoded at once: where a coder refuses a piece, all of it is lost


class ArrivedDecoder:
    """Decodes symbols, and yields zeros from the payload's end on.

    Args:
        coder: That the file names; one that codes symbols in the order in which they are given.
        tables: Of the file.
        payload: As much of it as is there.
        header: Bytes that the checksum begins with, as that of `CheckedEncoder`.

    Attributes:
        crc: CRC-32 of the header and all symbols.
        ended: Whether zeros are among them.
    """

    def __init__(self, coder: CoderPair, tables: CodingTables, payload: bytes, header: bytes = b""):
        self._decoder: Decoder = coder.decoder(tables, payload)
        self._spent = SpentBits(tables, len(payload))
        self.crc, self.ended = zlib.crc32(header), False

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """The next symbols; see `Decoder.decode`.

        Args:
            rows: Of the tables, for each symbol.
        """
        flat = np.ravel(rows)
        symbols = np.zeros(flat.size, np.int32)
        for start in range(0, flat.size, _PIECE):
            if self.ended:
                break
            piece = flat[start : start + _PIECE]
            certain = self._certain(piece)
            symbols[start : start + len(certain)] = certain
            self.ended = len(certain) < len(piece)
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)
        return symbols.reshape(rows.shape)

    def finish(self) -> bool:
        """True: a part has no end to check."""
        return True

    def _certain(self, rows: np.ndarray) -> np.ndarray:
        """The next symbols as far as they are certain to be the encoder's."""
        try:
            symbols = self._decoder.decode(rows)
        except Exception:  # a coder may raise anything where its bytes end
            return np.zeros(0, np.int32)
        return symbols[: self._spent.add_certain(symbols, rows)]
