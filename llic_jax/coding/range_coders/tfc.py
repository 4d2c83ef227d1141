"""The range coder of TensorFlow Compression."""

import os

import numpy as np

from llic_jax.coding.range_coders import tensorflow_core
from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import PRECISION
from llic_jax.errors import CoderUnavailableError, CorruptError
from llic_jax.system.extras import install_command

_AT_ONCE = 1 << 15  # symbols
_MOST_BYTES = 12  # of a symbol: 16 bits, an escape's twice 32, a sign
_OPS_REACH = 1 << 30


class TfcEncoder:
    """TensorFlow Compression's range encoder; values beyond a row's ends use its escape code.

    Args:
        tables: Of the model.
    """

    def __init__(self, tables: Tables):
        self.ops, self.lookup = _tfc_ops(), tables.lookup()
        self.first_symbols = tables.first_symbols.astype(np.int64)
        self.handle = self.ops.create_range_encoder([], self.lookup)

    def encode(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """See `Encoder.encode`.

        Args:
            symbols: int32, of any shape.
            rows: Of the tables, for each symbol.

        Raises:
            ValueError: A symbol 2^30 or more beyond its row's first one.
        """
        rows = np.ravel(rows)
        values = np.ravel(symbols) - self.first_symbols[rows]
        if values.size and not -_OPS_REACH < values.min() <= values.max() < _OPS_REACH:
            raise ValueError(
                "TensorFlow Compression's ops never end coding a symbol 2^30 or more beyond its "
                "row's first one. Set LLIC_TFC=native."
            )
        self.handle = self.ops.entropy_encode_index(self.handle, rows, values.astype(np.int32))

    def finish(self) -> bytes:
        """See `Encoder.finish`."""
        return self.ops.entropy_encode_finalize(self.handle).numpy()


class TfcDecoder:
    """The decoder to `TfcEncoder`. Damaged bytes yield arbitrary symbols, or an error.

    TFC's ops read zeros beyond the end of their bytes, without end, and their escape code can wait
    for a one among them for ever. So ones follow here, enough for the symbols that are decoded at
    once, and what the symbols cost is counted: more than there are bytes, and the bytes are
    damaged.

    Args:
        tables: Of the model.
        data: The payload.
    """

    def __init__(self, tables: Tables, data: bytes):
        self.ops, self.lookup = _tfc_ops(), tables.lookup()
        self.tables, self.first_symbols = tables, tables.first_symbols
        self.escapes = np.diff(tables.starts).astype(np.int64) - 2
        self.bits = PRECISION - np.log2(np.maximum(np.diff(tables.cdf), 1))
        # An encoder leaves out zeros at the end, and costs differ a little from what is counted.
        self.size, self.slack = 8 * len(data), 64 + 8 * len(data) / 100
        padding = bytes(8) + b"\xff" * (len(data) // 50 + _MOST_BYTES * _AT_ONCE)
        self.handle = self.ops.create_range_decoder(data + padding, self.lookup)
        self.spent = 0.0  # bits

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """See `Decoder.decode`.

        Args:
            rows: Of the tables, for each symbol.
        """
        flat = np.ravel(rows)
        pieces = [self._get(flat[i : i + _AT_ONCE]) for i in range(0, flat.size, _AT_ONCE)]
        values = np.concatenate([np.zeros(0, np.int32), *pieces])
        return (values + self.first_symbols[flat]).reshape(rows.shape)

    def _get(self, rows: np.ndarray) -> np.ndarray:
        self.handle, values = self.ops.entropy_decode_index(self.handle, rows, rows.shape, np.int32)
        values = values.numpy()
        escapes = self.escapes[rows]
        outside = (values < 0) | (values >= escapes)
        listed = np.where(outside, escapes, values)
        self.spent += self.bits[self.tables.starts[rows] + listed].sum()
        over = np.where(values < 0, -values.astype(np.int64), values - escapes + 1)[outside]
        self.spent += 2 * np.frexp(np.abs(over).astype(np.float64))[1].sum()  # Elias gamma and sign
        if self.spent > self.size + self.slack:
            raise CorruptError("The payload is damaged: it ends before its symbols do.")
        return values

    def finish(self) -> bool:
        """See `Decoder.finish`."""
        return bool(self.spent > self.size - self.slack)


def _tfc_ops():
    # Its start-up messages, on GPUs that range coding has no use for, would bury our own. "1" is
    # what JAX sets on import; anything else is the user's choice.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        return tensorflow_core.compression_ops()  # takes a second, so only when coding
    except ImportError as error:
        raise CoderUnavailableError(
            f"tensorflow-compression-ops does not load ({error}). "
            f"`{install_command('tfc')} --force-reinstall` brings it anew. Or set LLIC_TFC=native: "
            "the files are the same."
        ) from error
