"""How the process gets its memory from the system (our choice)."""

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Makes glibc keep what is freed for what is allocated next; True if it will.

    XLA allocates a program's intermediate results anew in every call: 1.8 GB for a training step of
    the full-size model. Blocks so large glibc gets from the system and gives back at once, and the
    system hands them out zeroed, page by page: a tenth of such a step on two cores. For processes
    that do the same over and over; others would only hold more memory than they need. To be called
    before there are threads. Nothing happens with another C library, or where the environment
    already tunes glibc's (MALLOC_..., GLIBC_TUNABLES).
    """
    tuned = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if tuned or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One heap for all threads, for only this one can grow without end; nothing outside it; never
    # cut. mallopt returns 1 where it took the setting.
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1)])


def reset_peak_memory() -> None:
    """Makes `peak_memory` start anew, where the system allows it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Measures the most memory that this process held, interpreter and libraries included.

    Returns:
      Bytes: since `reset_peak_memory` on Linux, since the process's start elsewhere. None where
      the system does not tell.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
    return None
