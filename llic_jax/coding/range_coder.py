"""Range coders behind one interface: symbols and the rows of their tables, to bytes and back.

A coder is a pair of an encoder and a decoder, both fed in the same order, in as many pieces as one
likes. Coders share `Tables`, but not their bytes: the file names the coder that wrote it.

A tfc stream has three implementations, which write and read the same bytes: TensorFlow
Compression's own ops, where they are installed; `native.py`; and `pure_python.py`.
`tfc_implementation` chooses.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from llic_jax.coding import native, tensorflow_core
from llic_jax.coding.bitstream import CorruptError
from llic_jax.coding.native import NativeDecoder, NativeEncoder
from llic_jax.coding.pure_python import PythonDecoder, PythonEncoder
from llic_jax.coding.tables import PRECISION, Tables
from llic_jax.errors import LlicError


class CoderUnavailableError(LlicError, RuntimeError):
    """The library of this range coder is not installed, or does not load."""


@runtime_checkable
class Encoder(Protocol):
    """Takes symbols, gives bytes."""

    def put(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """Appends `symbols` (int32, any shape), each coded with its row of the tables (int32)."""

    def finish(self) -> bytes:
        """All that was put, as bytes."""


@runtime_checkable
class Decoder(Protocol):
    """Takes bytes, gives symbols."""

    def get(self, rows: np.ndarray) -> np.ndarray:
        """The next symbols (int32, in the shape of `rows`)."""

    def finish(self) -> bool:
        """Whether the bytes end where the symbols do; False for damaged bytes (mostly)."""


class TfcEncoder:
    """TensorFlow Compression's range encoder; values beyond a row's ends use its escape code."""

    def __init__(self, tables: Tables):
        self.ops, self.lookup = _tfc_ops(), tables.lookup()
        self.offsets = tables.offsets.astype(np.int64)
        self.handle = self.ops.create_range_encoder([], self.lookup)

    def put(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        rows = np.ravel(rows)
        values = np.ravel(symbols) - self.offsets[rows]
        if values.size and not -_OPS_REACH < values.min() <= values.max() < _OPS_REACH:
            raise ValueError(
                "TensorFlow Compression's ops never end coding a symbol 2^30 or more beyond its "
                "row's first one. Set LLIC_TFC=native."
            )
        self.handle = self.ops.entropy_encode_index(self.handle, rows, values.astype(np.int32))

    def finish(self) -> bytes:
        return self.ops.entropy_encode_finalize(self.handle).numpy()


class TfcDecoder:
    """The decoder to `TfcEncoder`. Damaged bytes yield arbitrary symbols, or an error.

    TFC's ops read zeros beyond the end of their bytes, without end, and their escape code can wait
    for a one among them for ever. So ones follow here, enough for the symbols that are decoded at
    once, and what the symbols cost is counted: more than there are bytes, and the bytes are
    damaged.
    """

    def __init__(self, tables: Tables, data: bytes):
        self.ops, self.lookup = _tfc_ops(), tables.lookup()
        self.tables, self.offsets = tables, tables.offsets
        self.escapes = np.diff(tables.starts).astype(np.int64) - 2
        self.bits = PRECISION - np.log2(np.maximum(np.diff(tables.cdf), 1))
        # An encoder leaves out zeros at the end, and costs differ a little from what is counted.
        self.size, self.slack = 8 * len(data), 64 + 8 * len(data) / 100
        padding = bytes(8) + b"\xff" * (len(data) // 50 + _MOST_BYTES * _AT_ONCE)
        self.handle = self.ops.create_range_decoder(data + padding, self.lookup)
        self.spent = 0.0  # bits

    def get(self, rows: np.ndarray) -> np.ndarray:
        flat = np.ravel(rows)
        pieces = [self._get(flat[i : i + _AT_ONCE]) for i in range(0, flat.size, _AT_ONCE)]
        values = np.concatenate([np.zeros(0, np.int32), *pieces])
        return (values + self.offsets[flat]).reshape(rows.shape)

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
        return bool(self.spent > self.size - self.slack)


_AT_ONCE = 1 << 15  # symbols
_MOST_BYTES = 12  # of a symbol: 16 bits, an escape's twice 32, a sign
_OPS_REACH = 1 << 30


def _tfc_ops():
    # Its start-up messages, on GPUs that range coding has no use for, would bury our own. "1" is
    # what JAX sets on import; anything else is the user's choice.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        return tensorflow_core.compression_ops()  # takes a second, so only when coding
    except ImportError as error:
        raise CoderUnavailableError(
            f"tensorflow-compression-ops does not load ({error}). Install llic_jax[tfc] anew, or "
            "set LLIC_TFC=native: the files are the same."
        ) from error


class TfcImplementation(NamedTuple):
    """One way to write and read tfc streams.

    installed: whether it can be used here. encoder, decoder: as in `CoderPair`.
    """

    installed: Callable[[], bool]
    encoder: Callable[[Tables], Encoder]
    decoder: Callable[[Tables, bytes], Decoder]


def _ops_installed() -> bool:
    names = ("tensorflow", "tensorflow_compression_ops")
    return all(importlib.util.find_spec(name) is not None for name in names)


# The preferred one first.
TFC_IMPLEMENTATIONS = {
    "ops": TfcImplementation(_ops_installed, TfcEncoder, TfcDecoder),
    "native": TfcImplementation(native.enabled, NativeEncoder, NativeDecoder),
    "python": TfcImplementation(lambda: True, PythonEncoder, PythonDecoder),
}


def tfc_implementation(name: str | None = None) -> TfcImplementation:
    """The implementation that codes tfc streams.

    All of them write the same bytes. TensorFlow Compression's ops take seconds to load, the native
    coder does not.

    Args:
      name: "ops", "native" or "python". Without it, the environment variable `LLIC_TFC` names one;
        without that too, it is the first of these three that is installed.

    Raises:
      CoderUnavailableError: there is no implementation of that name, or it is not installed.
    """
    name = name or os.environ.get("LLIC_TFC", "")
    if not name:
        return next(way for way in TFC_IMPLEMENTATIONS.values() if way.installed())
    if name not in TFC_IMPLEMENTATIONS:
        known = ", ".join(TFC_IMPLEMENTATIONS)
        raise CoderUnavailableError(f"LLIC_TFC is {name!r}; expected one of {known}, or nothing.")
    if not TFC_IMPLEMENTATIONS[name].installed():
        raise CoderUnavailableError(
            f"The implementation {name!r} of the range coder tfc is not installed. Unset LLIC_TFC."
        )
    return TFC_IMPLEMENTATIONS[name]


def _tfc_encoder(tables: Tables) -> Encoder:
    return tfc_implementation().encoder(tables)


def _tfc_decoder(tables: Tables, data: bytes) -> Decoder:
    return tfc_implementation().decoder(tables, data)


_MAX_WIDTH = 33  # bits beyond the first of a 32-bit difference, doubled for its sign
_HALF_WORD = 16  # bits that are coded at once


class ConstrictionEncoder:
    """The range encoder of the library constriction.

    Its models are one table each, so the symbols of a piece are coded row by row (in the order of
    the piece within a row). Then come the values that a row does not list: how many bits each has,
    then these bits, likewise grouped.

    equal_widths: all numbers of bits equally likely, as in files of coder 2; else each half as
    likely as the one before.
    """

    def __init__(self, tables: Tables, equal_widths: bool = False):
        self.stream, self.models = _constriction(), _ConstrictionModels(tables, equal_widths)
        self.encoder = self.stream.queue.RangeEncoder()

    def put(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        rows = np.ravel(rows)
        values = np.ravel(symbols) - self.models.offsets[rows]
        escape = self.models.escapes[rows]
        outside = (values < 0) | (values >= escape)
        listed = np.where(outside, escape, values).astype(np.int32)
        for row, where in _by_row(rows):
            self.encoder.encode(listed[where], self.models[row])
        if outside.any():
            # Zigzag: above the row's end 0, 2, 4 ..; below its start 1, 3, 5 ..
            over = np.where(values < 0, -2 * values - 1, 2 * (values - escape))[outside] + 1
            widths = np.frexp(over.astype(np.float64))[1] - 1  # over = 2^width + the rest
            self.encoder.encode(widths.astype(np.int32), self.models.widths)
            for width, where in _by_row(widths):
                rest = over[where] - (1 << width)
                for shift in range(0, width, _HALF_WORD):
                    part = (rest >> shift) & ((1 << _HALF_WORD) - 1)
                    size = 1 << min(width - shift, _HALF_WORD)
                    self.encoder.encode(part.astype(np.int32), self.models.uniform(size))

    def finish(self) -> bytes:
        return self.encoder.get_compressed().astype("<u4").tobytes()


class ConstrictionDecoder:
    """The decoder to `ConstrictionEncoder`."""

    def __init__(self, tables: Tables, data: bytes, equal_widths: bool = False):
        if len(data) % 4:
            raise ValueError(f"constriction's payloads are whole words; found {len(data)} bytes.")
        self.stream, self.models = _constriction(), _ConstrictionModels(tables, equal_widths)
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        self.decoder = self.stream.queue.RangeDecoder(words)

    def get(self, rows: np.ndarray) -> np.ndarray:
        flat = np.ravel(rows)
        values = np.empty(flat.shape, np.int64)
        for row, where in _by_row(flat):
            values[where] = self.decoder.decode(self.models[row], len(where))
        escape = self.models.escapes[flat]
        outside = np.flatnonzero(values == escape)
        if len(outside):
            widths = self.decoder.decode(self.models.widths, len(outside))
            over = 1 << widths.astype(np.int64)
            for width, where in _by_row(widths):
                for shift in range(0, width, _HALF_WORD):
                    size = 1 << min(width - shift, _HALF_WORD)
                    part = self.decoder.decode(self.models.uniform(size), len(where))
                    over[where] |= part.astype(np.int64) << shift
            over -= 1
            values[outside] = np.where(over & 1, -(over + 1) // 2, escape[outside] + over // 2)
        return (values + self.models.offsets[flat]).astype(np.int32).reshape(rows.shape)

    def finish(self) -> bool:
        return bool(self.decoder.maybe_exhausted())


class _ConstrictionModels:
    """The tables as constriction's models, each made when it is first used."""

    def __init__(self, tables: Tables, equal_widths: bool):
        self.tables = tables
        self.models: dict[int, Any] = {}
        self.offsets = tables.offsets.astype(np.int64)
        self.escapes = np.diff(tables.starts).astype(np.int64) - 2
        if equal_widths:
            self.widths = self.uniform(_MAX_WIDTH + 1)
        else:
            halving = 0.5 ** np.minimum(np.arange(_MAX_WIDTH + 1) + 1, _MAX_WIDTH)
            self.widths = _constriction().model.Categorical(halving, perfect=False)

    def uniform(self, size: int):
        """`size` equally likely values, two or more."""
        return _constriction().model.Uniform(size)

    def __getitem__(self, row: int):
        if row not in self.models:
            frequencies = np.diff(self.tables.row(row)).astype(np.float64)
            self.models[row] = _constriction().model.Categorical(
                frequencies / (1 << PRECISION), perfect=False
            )
        return self.models[row]


def _by_row(rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each row that occurs, ascending, with the positions where it does, ascending."""
    if not rows.size:
        return []
    order = np.argsort(rows, kind="stable")
    present, starts = np.unique(rows[order], return_index=True)
    return list(zip(present.tolist(), np.split(order, starts[1:]), strict=True))


def _constriction():
    try:
        import constriction
    except ImportError as error:
        raise CoderUnavailableError(
            "The range coder 'constriction' needs the library of that name, which does not load; "
            "run pip install constriction."
        ) from error
    return constriction.stream


@dataclasses.dataclass(frozen=True)
class CoderPair:
    """Encoder and decoder of one kind.

    ident: its number in the file format. library: the module that it cannot do without, if any.
    """

    ident: int
    library: str | None
    encoder: Callable[[Tables], Encoder]
    decoder: Callable[[Tables, bytes], Decoder]


CODERS: dict[str, CoderPair] = {
    "tfc": CoderPair(1, None, _tfc_encoder, _tfc_decoder),
    "constriction": CoderPair(3, "constriction", ConstrictionEncoder, ConstrictionDecoder),
}
# Nothing is written with these any more; their files are read.
FORMER_CODERS: dict[str, CoderPair] = {
    "constriction, equal widths": CoderPair(
        2,
        "constriction",
        partial(ConstrictionEncoder, equal_widths=True),
        partial(ConstrictionDecoder, equal_widths=True),
    ),
}


def installed_coders() -> list[str]:
    """Names of the coders that can be used here, the preferred one first."""
    return [
        name
        for name, pair in CODERS.items()
        if pair.library is None or importlib.util.find_spec(pair.library) is not None
    ]


def default_coder() -> str:
    """The coder that files are written with, unless another one is asked for."""
    return installed_coders()[0]


def coder_by_ident(ident: int) -> CoderPair | None:
    """The coder with this number in the file format, or None."""
    pairs = [*CODERS.values(), *FORMER_CODERS.values()]
    return next((pair for pair in pairs if pair.ident == ident), None)
