"""Steps of work as an Apache Beam pipeline: the only file that imports Apache Beam.

    units of step 1 -> Reshuffle -> Do -> (all of them) -> units of step 2 -> Reshuffle -> Do

Elements are numbers of units. Photographs and outputs stay in files, so every runner carries next
to nothing, and a bundle that is retried does its units again, which changes nothing.
"""

import queue
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import (
    ExtendedProvisionInfo,
    FnApiRunner,
)
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineResult, PipelineState
from apache_beam.utils.shared import Shared

from llic_jax.errors import LlicError, PipelineError
from llic_jax.pipelines.work import State, Step, Worker

_NAMESPACE = "llic_jax"


class Do(beam.DoFn):
    """Does units and counts what became of them.

    A unit that cannot be done is noted in the state: another try would fail likewise.

    Args:
        step: Of the units.
        state: Takes the notes.
    """

    def __init__(self, step: Step, state: State):
        self.step, self.state = step, state
        self.shared = Shared()  # by all threads of a process
        self.worker: Worker | None = None
        self.refused = ""

    def setup(self) -> None:
        try:
            self.worker = self.shared.acquire(self.step.open)
        except LlicError as error:
            self.refused = str(error)

    def process(self, unit: int, before: Iterable[int] = ()) -> Iterator[int]:
        """Does a unit.

        Args:
            unit: Its number.
            before: The units of the step before, which are done.
        """
        message, counts = self.refused, {}
        if self.worker is not None:
            try:
                counts = dict(self.worker.do(unit))
            except LlicError as error:
                message = str(error)
        if message:
            self.state.fail(self.step.name, unit, message)
        for name, count in counts.items():
            Metrics.counter(_NAMESPACE, name).inc(count)
        yield unit


def checked_options(flags: Sequence[str]) -> PipelineOptions:
    """Beam's options. A misspelt flag is not passed over, as Beam does.

    Args:
        flags: Beam's own: runner, workers and so on. Those of remote runners are checked there.

    Raises:
        PipelineError: A flag that nobody knows.
    """
    options = PipelineOptions(list(flags))
    if is_local(options):
        known = options.get_all_options()
        for flag in flags:
            name = flag.partition("=")[0].removeprefix("--")
            if flag.startswith("-") and name not in known and name.removeprefix("no_") not in known:
                raise PipelineError(
                    f"{flag} is an option neither of this command nor of Apache Beam; --help lists "
                    "those of this command."
                )
    return options


def is_local(options: PipelineOptions) -> bool:
    """Whether no runner is named, so that the work is done on this machine.

    Args:
        options: Beam's.
    """
    return options.view_as(StandardOptions).runner is None


def run(steps: Sequence[Step], state: State, options: PipelineOptions) -> Counter[str]:
    """Does the units of all steps that are missing, those of one step after those of another.

    Args:
        steps: In order.
        state: Of the command.
        options: Beam's.

    Returns:
        What was counted in this run, by name.

    Raises:
        PipelineError: A unit could not be done, or the runner failed.
    """
    missing = [step.missing() for step in steps]
    if not any(missing):
        return Counter()
    pipeline = beam.Pipeline(_local_runner(options) if is_local(options) else None, options)
    before: list[beam.pvalue.AsIter] = []
    for step, numbers in zip(steps, missing, strict=True):
        units = pipeline | f"{step.name} units" >> beam.Create(numbers)
        # Without it a runner may fuse all units into one bundle, which one worker does.
        spread = units | f"{step.name} spread" >> beam.Reshuffle()
        done = spread | step.name >> beam.ParDo(Do(step, state), *before)
        before = [beam.pvalue.AsIter(done)]  # the next step waits for all units of this one
    try:
        result, ended = _finished(pipeline)
    except PipelineError:
        raise
    except Exception as error:  # a runner raises whatever its workers raised
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise PipelineError(
            f"Beam ended the run: {reason[0]}. What is done is kept; the same command goes on."
        ) from error
    if ended not in (None, PipelineState.DONE):
        raise PipelineError(
            f"Beam ended the run as {ended}; expected DONE. What is done is kept; the same command "
            "goes on."
        )
    if failures := state.failures():
        others = f" ({len(failures) - 1} more likewise)" if len(failures) > 1 else ""
        raise PipelineError(failures[0] + others)
    found = result.metrics().query(MetricsFilter().with_namespace(_NAMESPACE))["counters"]
    counts: Counter[str] = Counter()
    for counter in found:
        # The committed value leaves out tries that failed; not every runner has it.
        value = counter.attempted if counter.committed is None else counter.committed
        counts[counter.key.metric.name] += value or 0
    return counts


def _finished(pipeline: beam.Pipeline) -> tuple[PipelineResult, str | None]:
    """Runs a pipeline to its end, in a thread of its own.

    The local runner waits for ever for a worker process that has died, and only tells of it by an
    exception in another thread.

    Raises:
        PipelineError: A worker process of the local runner died.
    """
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    usual = threading.excepthook

    def uncaught(args: threading.ExceptHookArgs) -> None:
        if str(args.exc_value).startswith("Worker subprocess exited"):
            events.put(
                PipelineError(
                    f"A worker process died ({args.exc_value}), most often for lack of memory. "
                    "What is done is kept. Run with fewer --direct_num_workers; the same command "
                    "goes on."
                )
            )
        else:
            usual(args)

    def work() -> None:
        try:
            result = pipeline.run()
            events.put((result, result.wait_until_finish()))
        except BaseException as error:
            events.put(error)

    threading.excepthook = uncaught
    try:
        threading.Thread(target=work, name="llic pipeline", daemon=True).start()
        event = events.get()
    finally:
        threading.excepthook = usual
    if isinstance(event, BaseException):
        raise event
    return event


def _local_runner(options: PipelineOptions) -> FnApiRunner:
    """Beam's `DirectRunner` would first try to fetch a program that is not of this package."""
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return FnApiRunner(provision_info=ExtendedProvisionInfo(info))
