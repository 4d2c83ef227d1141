"""The symbols of one image, to a payload and back. Writer and reader are mirror images.

    z:              symbols, each with its channel's row
    step by step:   scale offsets    scale_offsets.py    (not in files of version 1 and 2)
                    row shifts       row_shifts.py       (not with a shift resolution of 0)
                    symbols, each with its row of the scale table

A checksum of everything that was coded, after the parts of the header that decide the image, goes
into the file: a decoder that computed other probabilities notices it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from llic_jax.bitstream.file import LlicFile
from llic_jax.coding.arrived import ArrivedDecoder
from llic_jax.coding.checksums import CheckedDecoder, CheckedEncoder
from llic_jax.coding.range_coders.interface import CoderPair, Decoder
from llic_jax.coding.range_coders.registry import coder_by_id
from llic_jax.coding.row_shifts import read_rows, write_rows
from llic_jax.coding.scale_offsets import ScaleOffsets
from llic_jax.coding.spent_bits import SpentBits
from llic_jax.coding.tables import CodingTables
from llic_jax.entropy.walk import Step
from llic_jax.errors import CorruptError, TruncatedError, UnknownCoderError


class Payload(NamedTuple):
    """The range coder's output for one image.

    Attributes:
        data: Its bytes.
        crc: Checksum of the symbols in them.
    """

    data: bytes
    crc: int


class SymbolWriter:
    """Writes the symbols of one image: `write_hyper`, `write` for every step, `finish`.

    Args:
        header: Of the file, without payload and checksum.
        tables: Of the model.
        offset_costs: Of `scale_offsets.offset_costs`.
    """

    def __init__(
        self,
        header: LlicFile,
        tables: CodingTables,
        offset_costs: Float[np.ndarray, "cases offsets"],
    ):
        self._tables, self._shift_resolution = tables, header.shift_resolution
        self._encoder = CheckedEncoder(_coder(header).encoder(tables), header.checksummed_header)
        self._offsets = ScaleOffsets(tables, offset_costs)

    def write_hyper(self, symbols: Int32[np.ndarray, "h w n"]) -> None:
        """Codes the rounded `z`.

        Args:
            symbols: `z_hat` as integers.
        """
        self._encoder.encode(symbols, self._tables.hyper(symbols.shape))

    def write(
        self,
        step: Step,
        symbols: Int32[np.ndarray, "h w c"],
        positions: Float[np.ndarray, "h w c"],
    ) -> float:
        """Codes one step.

        Args:
            step: Of the walk.
            symbols: Quantized `y - mean`.
            positions: Of their scales on the scale table (`scale_position`).

        Returns:
            Bits of offsets and row shifts, less those that the offsets save.
        """
        offsets, offset_bits = self._offsets.write(self._encoder, step, symbols, positions)
        rows, row_bits = write_rows(
            self._encoder, self._tables, positions + offsets, self._shift_resolution
        )
        self._encoder.encode(symbols, rows + self._tables.scales)
        return offset_bits + row_bits

    def finish(self) -> Payload:
        """The payload; nothing can be written after it."""
        return Payload(self._encoder.finish(), self._encoder.crc)


class SymbolReader:
    """Reads the symbols of one file: `read_hyper`, `read` for every step, `finish`.

    Where a part of the payload is missing, zeros take its place.

    Args:
        file: With its payload, or with the start of it (`LlicFile.from_start`).
        tables: Of the model.

    Raises:
        CorruptError: The range coder cannot read the payload; also in the other methods.
        TruncatedError: Bytes are missing, and this range coder needs all of them.
    """

    def __init__(self, file: LlicFile, tables: CodingTables):
        self._tables, self._shift_resolution, self._crc = (
            tables,
            file.shift_resolution,
            file.symbols_crc,
        )
        coder = _coder(file)
        self._checked: CheckedDecoder | None = None
        if file.missing:
            if not coder.in_order:
                raise TruncatedError(
                    f"{file.missing} bytes of the payload are missing, and of files of the range "
                    f"coder {file.coder_name} no part can be shown. Get the whole file."
                )
            self._decoder: Decoder = ArrivedDecoder(coder, tables, file.payload)
        else:
            self._decoder = self._checked = CheckedDecoder(
                lambda: coder.decoder(tables, file.payload),
                file.checksummed_header,
                SpentBits(tables, len(file.payload)),
            )
        self._offsets = ScaleOffsets(tables) if file.version > 2 else None

    def read_hyper(self, shape: tuple[int, int, int]) -> Int32[np.ndarray, "h w n"]:
        """The rounded `z` of this shape."""
        return self._decoder.decode(self._tables.hyper(shape))

    def read(self, step: Step, positions: Float[np.ndarray, "h w c"]) -> Int32[np.ndarray, "h w c"]:
        """The symbols of one step, from the positions of their scales on the scale table."""
        if self._offsets is not None:
            positions = positions + self._offsets.read(self._decoder, step)
        rows = read_rows(self._decoder, self._tables, positions, self._shift_resolution)
        return self._decoder.decode(rows + self._tables.scales)

    def finish(self) -> None:
        """Checks that these were the symbols that the encoder has coded.

        The checksum is over all of them, so a part cannot be checked.

        Raises:
            CorruptError: They were not.
        """
        checked = self._checked
        if checked is not None and not (checked.finish() and checked.crc == self._crc):
            raise CorruptError(
                "The decoded symbols are not those that were coded: this platform computed "
                "other probabilities than the one that wrote the file. No image is returned."
            )


def _coder(file: LlicFile) -> CoderPair:
    """The range coder that the header names.

    Raises:
        UnknownCoderError: There is none of this number.
    """
    coder = coder_by_id(file.coder)
    if coder is None:
        raise UnknownCoderError(f"The file names range coder {file.coder}, which is not known.")
    return coder
