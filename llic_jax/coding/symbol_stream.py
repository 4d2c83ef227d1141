"""The symbols of one image, to a payload and back. Writer and reader are mirror images.

    z:              symbols, each with its channel's row
    step by step:   scale offsets    scale_offsets.py    (not in files of version 1 and 2)
                    row shifts       row_shifts.py       (not with a shift resolution of 0)
                    symbols, each with its row of the scale table

A checksum of everything that was coded, after the parts of the header that decide the image, goes
into the file: a decoder that computed other probabilities notices it. A progressive file has a
check after each step, too (step_checks.py), so that a part of it can be checked.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from llic_jax.bitstream.file import LlicFile
from llic_jax.coding.arrived import ArrivedDecoder
from llic_jax.coding.checksums import CheckedDecoder, CheckedEncoder
from llic_jax.coding.range_coders.interface import CoderPair
from llic_jax.coding.range_coders.registry import coder_by_id
from llic_jax.coding.row_shifts import read_rows, write_rows
from llic_jax.coding.scale_offsets import ScaleOffsets
from llic_jax.coding.spent_bits import SpentBits
from llic_jax.coding.step_checks import StepChecks, Verified, packed
from llic_jax.coding.tables import CodingTables
from llic_jax.entropy.walk import Step
from llic_jax.errors import CorruptError, TruncatedError, UnknownCoderError


class Payload(NamedTuple):
    """The range coder's output for one image.

    Attributes:
        data: Its bytes.
        crc: Checksum of the symbols in them.
        checks: Content of a progressive file's section (`step_checks.py`).
    """

    data: bytes
    crc: int
    checks: bytes


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
        self._crcs: list[int] = []  # after each step

    def write_hyper(self, symbols: Int32[np.ndarray, "h w n"]) -> None:
        """Codes the rounded `z`.

        Args:
            symbols: `z_hat` as integers.
        """
        self._encoder.encode(symbols, self._tables.hyper(symbols.shape))
        self._crcs.append(self._encoder.crc)

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
        self._crcs.append(self._encoder.crc)
        return offset_bits + row_bits

    def finish(self) -> Payload:
        """The payload; nothing can be written after it."""
        return Payload(self._encoder.finish(), self._encoder.crc, packed(self._crcs))


class SymbolReader:
    """Reads the symbols of one file: `read_hyper`, `read` for every step, `finish`.

    Where a part of the payload is missing, zeros take its place. So they do from a step on that
    does not fit its check, in a part of a progressive file.

    Args:
        file: With its payload, or with the start of it (`LlicFile.from_start`). Its checks were
            counted (`step_checks.check_count`).
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
        coder, header = _coder(file), file.checksummed_header
        self._checks, self._whole = StepChecks.of(file), file.whole
        if file.missing:
            if not coder.in_order:
                raise TruncatedError(
                    f"{file.missing} bytes of the payload are missing, and of files of the range "
                    f"coder {file.coder_name} no part can be shown. Get the whole file."
                )
            self._decoder: ArrivedDecoder | CheckedDecoder = ArrivedDecoder(
                coder, tables, file.payload, header
            )
        else:
            self._decoder = CheckedDecoder(
                lambda: coder.decoder(tables, file.payload),
                header,
                SpentBits(tables, len(file.payload)),
            )
        self._offsets = ScaleOffsets(tables) if file.version > 2 else None

    @property
    def verified(self) -> Verified | None:
        """What the checks of the steps say so far; None for a file without them."""
        return None if self._checks is None else self._checks.verified

    def read_hyper(self, shape: tuple[int, int, int]) -> Int32[np.ndarray, "h w n"]:
        """The rounded `z` of this shape."""
        symbols = self._decoder.decode(self._tables.hyper(shape))
        if not self._fits():
            raise self._disagreement()
        return symbols

    def read(self, step: Step, positions: Float[np.ndarray, "h w c"]) -> Int32[np.ndarray, "h w c"]:
        """The symbols of one step, from the positions of their scales on the scale table."""
        if not self._refuted:
            try:
                symbols = self._read(step, positions)
            except CorruptError:
                if self._checks is None or self._whole:
                    raise
                self._checks.refute()
            else:
                if self._fits():
                    return symbols
                if self._whole:
                    raise self._disagreement()
        return np.zeros(positions.shape, np.int32)

    def _read(
        self, step: Step, positions: Float[np.ndarray, "h w c"]
    ) -> Int32[np.ndarray, "h w c"]:
        if self._offsets is not None:
            positions = positions + self._offsets.read(self._decoder, step)
        rows = read_rows(self._decoder, self._tables, positions, self._shift_resolution)
        return self._decoder.decode(rows + self._tables.scales)

    def finish(self) -> None:
        """Checks that these were the symbols that the encoder has coded.

        The checksum is over all of them, so it says nothing of a part.

        Raises:
            CorruptError: They were not.
        """
        decoder = self._decoder
        if isinstance(decoder, ArrivedDecoder) or self._refuted:
            return
        if not (decoder.finish() and decoder.crc == self._crc):
            raise self._disagreement()

    @property
    def _refuted(self) -> bool:
        return self._checks is not None and self._checks.verified.refuted

    def _fits(self) -> bool:
        """Whether the next step fits its check, as far as there is one and all of its symbols."""
        checks, decoder = self._checks, self._decoder
        return checks is None or decoder.ended or checks.compare(decoder.crc)

    def _disagreement(self) -> CorruptError:
        place = ""
        if self._refuted and self.verified is not None:
            place = f", from step {self.verified.steps + 1} of {self.verified.total} on"
        damage = "" if self._whole else "the file is damaged, or "
        return CorruptError(
            f"The decoded symbols are not those that were coded{place}: {damage}this platform "
            "computed other probabilities than the one that wrote the file. No image is returned."
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
