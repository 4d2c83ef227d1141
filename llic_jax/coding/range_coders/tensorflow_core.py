"""The core of TensorFlow without the rest of it, which takes five times as long to import.

`import tensorflow` imports Keras, TensorFlow Lite and much else before the first operation can run.
TensorFlow Compression's operations need none of that. So the package is put in place without being
executed, and is executed when someone asks for one of its names.
"""

import importlib.util
import sys
import threading
import types
from typing import Any

_LOCK = threading.RLock()


class _Unexecuted(types.ModuleType):
    """The package `tensorflow`; its submodules can be imported."""

    def __getattr__(self, name: str) -> Any:
        with _LOCK:
            if type(self) is _Unexecuted:
                # Whoever asks meanwhile sees it in the making.
                self.__class__ = types.ModuleType  # type: ignore[assignment]
                assert self.__spec__ is not None and self.__spec__.loader is not None
                self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def compression_ops() -> Any:
    """The module `tensorflow_compression_ops`, ready for eager use.

    Raises:
      ImportError: it is not installed, or TensorFlow is not.
    """
    spec = importlib.util.find_spec("tensorflow") if "tensorflow" not in sys.modules else None
    if spec is not None:
        package = importlib.util.module_from_spec(spec)
        package.__class__ = _Unexecuted
        sys.modules["tensorflow"] = package
    import tensorflow_compression_ops
    from tensorflow.python.framework import constant_op, ops, tensor_shape  # noqa: F401

    # As executing the package does; the modules above teach it to take lists and NumPy arrays.
    ops.enable_eager_execution()
    return tensorflow_compression_ops
