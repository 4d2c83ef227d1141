"""The compiled library: found, loaded and registered with XLA, once for each process."""

import ctypes
import functools
import importlib.util
import logging
import os
import warnings
from pathlib import Path

import jax


def enabled() -> bool:
    """Whether convolutions traced from now on use the native kernel."""
    return os.environ.get("LLIC_NATIVE", "1") != "0" and _library() is not None


def limit_instruction_set(name: str | None) -> None:
    """Keeps the kernel to an instruction set; for tests.

    Args:
        name: "baseline" or "avx2"; None: the best that the machine has.
    """
    library = _library()
    assert library is not None
    library.llic_depthwise_limit_instruction_set({None: 0, "baseline": 1, "avx2": 2}[name])


@functools.cache
def _library() -> ctypes.CDLL | None:
    spec = importlib.util.find_spec("llic_jax.native._depthwise_native")
    if spec is None or spec.origin is None:
        if jax.default_backend() == "cpu":
            logging.getLogger("llic_jax").warning(
                "%s has no native depth-wise kernel, so everything takes many times as long. "
                "`pip install -e .` in that folder builds it, where there is a C++ compiler.",
                Path(__file__).parents[1],
            )
        return None
    try:
        # Else JAX puts the registration off until the backend starts, and may fail in that.
        jax.devices("cpu")
    except RuntimeError:
        return None  # JAX was told to do without a CPU
    try:
        library = ctypes.CDLL(spec.origin)
        for name in ("llic_depthwise_convolve", "llic_depthwise_correlate"):
            handler = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
    except (OSError, AttributeError, ValueError, RuntimeError) as error:
        warnings.warn(
            f"the native depth-wise kernel in {spec.origin} does not load ({error}); continuing "
            "without it, several times slower. Reinstall the package, or set LLIC_NATIVE=0.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return library
