"""Running image codecs, in this process or in several others, and watching their memory.

Imports no JAX, so that a process that runs libjpeg shows libjpeg's memory.
"""

import contextlib
import dataclasses
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from llic_jax.errors import LlicError

Image = UInt8[np.ndarray, "_ _ 3"]  # of any size: no two of them need be alike
Quality = float | None


@dataclasses.dataclass(frozen=True)
class Coded:
    """One image, coded and decoded.

    bytes: of the file. image: decoded from that file. Seconds are those of compiled programs; of
    them `*_network_seconds` were spent in networks (None: no networks), the rest in entropy coding.
    bits: the model's own estimate. identical: the decoded image is the encoder's reconstruction.
    peak_memory: bytes (see `peak_memory`).
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
class System(Protocol):
    """A codec under test. Systems travel to other processes, so they hold names, not models.

    name: of its curve. version: everything that its figures depend on, as one line. separate: run
    it in a process of its own even where one process would do.
    """

    @property
    def name(self) -> str: ...

    @property
    def separate(self) -> bool: ...

    @property
    def version(self) -> str: ...

    def setting(self, quality: Quality) -> str:
        """The complete settings at a quality, in words."""

    def code(self, image: Image, quality: Quality) -> Coded:
        """Compresses the image into a real file and decodes that."""


Job = tuple[System, Quality, Image]


class WorkerError(LlicError, RuntimeError):
    """A process that coded images has died."""


def run_jobs(jobs: Sequence[Job], workers: int = 1) -> Iterator[Coded]:
    """Codes every job, in order, in `workers` processes.

    Raises:
      WorkerError: a process was killed, most often for its memory.
    """
    if not jobs:
        return
    if workers == 1 and not any(system.separate for system, _, _ in jobs):
        yield from map(_run_job, jobs)
        return
    # Spawned, not forked: a fork of a process in which JAX has run hangs, and inherits its memory.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from pool.map(_run_job, jobs)
        except BrokenProcessPool as error:
            raise WorkerError(
                "A worker process died, most often for lack of memory. Run with fewer --workers; "
                "images that are done are kept."
            ) from error


def _run_job(job: Job) -> Coded:
    system, quality, image = job
    reset_peak_memory()
    coded = system.code(image, quality)
    return dataclasses.replace(coded, peak_memory=peak_memory())


def reset_peak_memory() -> None:
    """Makes `peak_memory` start anew, where the system allows it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """The most memory that this process held, in bytes, interpreter and libraries included: since
    `reset_peak_memory` on Linux, since its start elsewhere; None where that cannot be known."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
    return None
