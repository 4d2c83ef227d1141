"""Runs codecs under test, in this process or in several others, and watches their memory.

Imports no JAX, so that a process that runs libjpeg shows libjpeg's memory.
"""

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from llic_jax.errors import WorkerError
from llic_jax.evaluation.system import CodecUnderTest, Measurement, Task
from llic_jax.system.memory import peak_memory, reset_peak_memory


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
        for quality, image in tasks:
            reset_peak_memory()
            yield _with_memory(system.code(image, quality))
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
    quality, image = task
    reset_peak_memory()
    return _with_memory(_system.code(image, quality))


def _with_memory(measurement: Measurement) -> Measurement:
    return dataclasses.replace(measurement, peak_memory=peak_memory())
