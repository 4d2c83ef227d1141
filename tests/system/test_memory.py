import os
import platform
import subprocess
import sys

import pytest

from llic_jax.system.memory import keep_freed_memory

# Allocates and frees 64 MB as XLA would, from another thread, after a first time; counts the pages
# that the system had to hand out.
PROGRAM = """
import ctypes, resource, sys, threading
from llic_jax.system.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def use():
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)

def faults():
    thread = threading.Thread(target=use)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults() * resource.getpagesize())
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes glibc only")


def fresh_pages(argument: str) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, argument]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(run.stdout)


@glibc
def test_freed_memory_is_used_again():
    assert fresh_pages("give back") >= 64 << 20
    assert fresh_pages("keep") < 4 << 20


def test_what_the_environment_tunes_stays(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
