"""The native range coder of tfc streams: the bytes of TensorFlow Compression without TensorFlow.

`setup.py` compiles `native/range_coder.cc` if it finds a C++ compiler. Without the library, or with
`LLIC_NATIVE=0` in the environment, `pure_python.py` does the same, about a hundred times slower.
"""

import ctypes
import functools
import importlib.util
import os
import warnings
import weakref

import numpy as np

from llic_jax.coding.tables import Tables
from llic_jax.errors import CorruptError

_MODULE = "llic_jax.native._range_coder_native"
_NO_MEMORY, _BAD_ARGUMENT, _NOT_LISTED, _DAMAGED = 1, 2, 3, 4  # `Status` in the C++ source


def enabled() -> bool:
    """Whether the native range coder was built, loads, and is not switched off."""
    return os.environ.get("LLIC_NATIVE", "1") != "0" and _library() is not None


class NativeEncoder:
    """The encoder of tfc streams in C++.

    Args:
      tables: of the rows that symbols will be coded with.
    """

    def __init__(self, tables: Tables):
        library, handle = _loaded(), ctypes.c_void_p()
        _check(library.llic_range_encoder_create(*_lookup(tables), ctypes.byref(handle)))
        self.library, self.handle = library, handle
        weakref.finalize(self, library.llic_range_encoder_destroy, handle)

    def encode(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """Appends symbols; see `Encoder`.

        Args:
          symbols: int32, any shape.
          rows: int32, as many: each symbol's row of the tables.

        Raises:
          ValueError: a row that the tables do not have, or numbers of elements that differ.
        """
        pieces = *_array(rows), *_array(symbols)
        _check(self.library.llic_range_encoder_encode(self.handle, *pieces))

    def finish(self) -> bytes:
        """All that was put, as bytes."""
        needed, finish = ctypes.c_int64(), self.library.llic_range_encoder_finish
        _check(finish(self.handle, None, 0, ctypes.byref(needed)))
        data = ctypes.create_string_buffer(needed.value)
        _check(finish(self.handle, data, needed.value, ctypes.byref(needed)))
        return data.raw


class NativeDecoder:
    """The decoder of tfc streams in C++.

    Behind the end of its bytes it reads zeros, as TensorFlow Compression does: an encoder may have
    left them out. So a stream that was cut short yields symbols, in bounded time.

    Args:
      tables: of the rows that the symbols were coded with.
      data: the stream.
    """

    def __init__(self, tables: Tables, data: bytes):
        library, handle = _loaded(), ctypes.c_void_p()
        stream = _array(np.frombuffer(data, np.uint8), np.uint8)
        create = library.llic_range_decoder_create
        _check(create(*_lookup(tables), *stream, ctypes.byref(handle)))
        self.library, self.handle = library, handle
        weakref.finalize(self, library.llic_range_decoder_destroy, handle)

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """The next symbols; see `Decoder`.

        Args:
          rows: int32, any shape: each symbol's row of the tables.

        Returns:
          The symbols, int32, in the shape of `rows`.

        Raises:
          CorruptError: an escape code that stands for no int32.
          ValueError: a row that the tables do not have.
        """
        symbols = np.empty(rows.shape, np.int32)
        decode = self.library.llic_range_decoder_decode
        _check(decode(self.handle, *_array(rows), *_array(symbols)))
        return symbols

    def finish(self) -> bool:
        """Whether the bytes end as an encoder of these symbols would have ended them."""
        return bool(self.library.llic_range_decoder_finish(self.handle))


def _array(values: np.ndarray, kind: type = np.int32) -> tuple[np.ndarray, int]:
    """An array as C wants it, and its number of elements."""
    contiguous: np.ndarray = np.ascontiguousarray(values, kind)
    return contiguous, contiguous.size


def _lookup(tables: Tables) -> tuple[np.ndarray, int, np.ndarray, int]:
    return *_array(tables.lookup()), *_array(tables.first_symbols)


def _check(status: int) -> None:
    if status == _NO_MEMORY:
        raise MemoryError("The range coder found no memory for its stream.")
    if status == _DAMAGED:
        raise CorruptError("The payload is damaged: an escape code stands for no 32-bit number.")
    if status == _NOT_LISTED:
        raise ValueError("A symbol is not listed by its row, and the row has no escape.")
    if status == _BAD_ARGUMENT:
        raise ValueError(
            "The range coder was given a row that the tables do not have, tables that are no "
            "cumulative frequencies, or unequal numbers of rows and symbols."
        )


def _loaded() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise ImportError(f"{_MODULE} was not built, or does not load.")
    return library


@functools.cache
def _library() -> ctypes.CDLL | None:
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or spec.origin is None:
        return None
    try:
        library = ctypes.CDLL(spec.origin)
        int32s = np.ctypeslib.ndpointer(np.int32, flags="C_CONTIGUOUS")
        uint8s = np.ctypeslib.ndpointer(np.uint8, flags="C_CONTIGUOUS")
        size, handle, result = ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
        for name, arguments in {
            "encoder_create": [int32s, size, int32s, size, result],
            "encoder_encode": [handle, int32s, size, int32s, size],
            "encoder_finish": [handle, result, size, result],
            "encoder_destroy": [handle],
            "decoder_create": [int32s, size, int32s, size, uint8s, size, result],
            "decoder_decode": [handle, int32s, size, int32s, size],
            "decoder_finish": [handle],
            "decoder_destroy": [handle],
        }.items():
            function = getattr(library, f"llic_range_{name}")
            function.argtypes = arguments
            function.restype = None if name.endswith("destroy") else ctypes.c_int32
    except (OSError, AttributeError) as error:
        warnings.warn(
            f"the native range coder in {spec.origin} does not load ({error}); continuing without "
            "it, slower. Reinstall the package, or set LLIC_NATIVE=0.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return library
