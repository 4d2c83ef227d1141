"""Runs codecs under test, in this process or in several others, and watches their memory.

Imports no JAX, so that a process that runs libjpeg shows libjpeg's memory.
"""

import contextlib
import dataclasses
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from llic_jax.errors import LlicError

Image = UInt8[np.ndarray, "_ _ 3"]  # any size: two images need not be of one size
Quality = float | None


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One image, coded into a real file and decoded from it.

    Attributes:
      bytes: Size of the file.
      image: Decoded from that file, uint8 `(H, W, 3)`.
      encode_seconds: With compiled programs.
      decode_seconds: With compiled programs.
      encode_network_seconds: The part of `encode_seconds` spent in networks; the rest is entropy
        coding. None: the codec has no networks.
      decode_network_seconds: Likewise of `decode_seconds`.
      bits: The model's own estimate of the file's size. None: it makes none.
      identical: Whether the decoded image equals the encoder's reconstruction. None: not checked.
      peak_memory: In bytes (see `peak_memory`).
    """

    bytes: int
    image: Image
    encode_seconds: float
    decode_seconds: float
    encode_network_seconds: float | None = None
    decode_network_seconds: float | None = None
    bits: float | None = None
    identical: bool | None = None
    peak_memory: int | None = None


@runtime_checkable
class CodecUnderTest(Protocol):
    """A codec that is measured. It is sent to worker processes, so it pickles small.

    Attributes:
      name: The name of its curve.
      version: Everything that its figures depend on, as one line.
      separate: Measured in a process of its own, so that its memory is not that of JAX.
    """

    @property
    def name(self) -> str: ...

    @property
    def separate(self) -> bool: ...

    @property
    def version(self) -> str: ...

    def setting(self, quality: Quality) -> str:
        """Returns the complete settings at a quality, in words."""

    def code(self, image: Image, quality: Quality) -> Measurement:
        """Compresses the image into a real file and decodes that."""


Task = tuple[Quality, Image]


class WorkerError(LlicError, RuntimeError):
    """A process that coded images has died."""


def run_tasks(
    system: CodecUnderTest,
    tasks: Sequence[Task],
    workers: int = 1,
    start: Callable[[], None] | None = None,
) -> Iterator[Measurement]:
    """Codes images, in order.

    Args:
      system: The codec.
      tasks: Quality and image, uint8 `(H, W, 3)`, of each.
      workers: Processes. 1 codes in this process, unless the codec wants a process of its own.
      start: Called once in each process that is started, before it codes anything.

    Yields:
      One measurement a task.

    Raises:
      WorkerError: A process was killed, most often for its memory.
    """
    if not tasks:
        return
    if workers == 1 and not system.separate:
        yield from (_measure(system, task) for task in tasks)
        return
    # Spawned, not forked: a fork of a process in which JAX has run hangs, and inherits its memory.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_process, initargs=(system, start)
    ) as pool:
        try:
            yield from pool.map(_run_in_process, tasks)
        except BrokenProcessPool as error:
            raise WorkerError(
                "A worker process died, most often for lack of memory. Run with fewer --workers; "
                "images that are done are kept."
            ) from error


# The codec of a worker process: sent once, so that it is loaded once and keeps its programs.
_system: CodecUnderTest | None = None


def _start_process(system: CodecUnderTest, start: Callable[[], None] | None) -> None:
    global _system
    if start is not None:
        start()
    _system = system


def _run_in_process(task: Task) -> Measurement:
    assert _system is not None
    return _measure(_system, task)


def _measure(system: CodecUnderTest, task: Task) -> Measurement:
    quality, image = task
    reset_peak_memory()
    measurement = system.code(image, quality)
    return dataclasses.replace(measurement, peak_memory=peak_memory())


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
