"""The implementations of the tfc stream, and the choice among them.

TensorFlow Compression's own ops, the native coder and the one in Python write and read the same
bytes; `tfc_implementation` chooses.
"""

import importlib.util
import os
from collections.abc import Callable
from typing import NamedTuple

from llic_jax.coding.range_coders import native
from llic_jax.coding.range_coders.interface import Decoder, Encoder
from llic_jax.coding.range_coders.native import NativeDecoder, NativeEncoder
from llic_jax.coding.range_coders.pure_python import PythonDecoder, PythonEncoder
from llic_jax.coding.range_coders.tfc import TfcDecoder, TfcEncoder
from llic_jax.coding.tables import Tables
from llic_jax.errors import CoderUnavailableError


class TfcImplementation(NamedTuple):
    """One way to write and read tfc streams.

    Attributes:
        installed: Whether it can be used here.
        encoder: As in `CoderPair`.
        decoder: As in `CoderPair`.
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
