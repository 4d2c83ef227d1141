"""The trainer: a run's state on the devices, and the step function of each phase."""

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llic_jax.errors import TrainingError
from llic_jax.execution.ahead_of_time import quickly_compiled
from llic_jax.models.build import build_model
from llic_jax.training.carried_programs import CarriedPrograms
from llic_jax.training.checkpoints import Checkpoints
from llic_jax.training.course import Hooks, Moment
from llic_jax.training.initial_weights import initial_state
from llic_jax.training.objective import Objective
from llic_jax.training.phases import Phase
from llic_jax.training.pictures import Pictures, host_batches
from llic_jax.training.settings import RunSettings, check_frozen
from llic_jax.training.state import CAUSES, TrainState, create_state, unflatten
from llic_jax.training.step import Step, make_step

COMPILING = "compile"  # name of the thread that compiles
_PENDING = object()
_AHEAD = 4  # steps by which the host may be ahead of the device


class Trainer:
    """Owns the state of a run, replicated over the devices, and its step functions.

    Args:
        settings: Of the run.
        pictures: Of the run, for a start from principal components.
        checkpoints: Training goes on from the last one, if there is any.
        hooks: See `Hooks`.
        programs: Folder of compiled steps (`carried_programs.py`).

    Raises:
        ConfigError: `train.frozen` or `train.start` do not fit the model.
        CheckpointError: A checkpoint that does not fit or is damaged.
    """

    def __init__(
        self,
        settings: RunSettings,
        pictures: Pictures,
        checkpoints: Checkpoints,
        hooks: Hooks,
        programs: Path | None = None,
    ):
        self.settings, self._hooks = settings, hooks
        self.model = build_model(settings.model)
        state, self._optimizer, self._unravel = create_state(
            self.model, settings.train, settings.seed
        )
        check_frozen(jax.eval_shape(self._unravel, state.params), settings.train.frozen)
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore(state)
            logging.info("going on from step %d", int(state.step))
        else:
            batches = partial(host_batches, pictures, 0)
            state = initial_state(settings, state, self._unravel, batches, self._optimizer)
        self.step = int(state.step)
        self._devices = jax.local_device_count()
        self._state = self.replicate(state)
        self._carried = CarriedPrograms(programs, settings) if programs else None
        self._steps: dict[Phase, Step] = {}
        self._lock = threading.Lock()  # programs are tried out in a thread of their own
        self._running: deque[Any] = deque()
        self.phase: Phase | None = None  # of the last step

    def replicate(self, state: TrainState) -> TrainState:
        """A state of one device on all devices of this process."""
        return jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * self._devices), state)

    def advance(self, batch: Any, moment: Moment) -> dict[str, Any]:
        """Does one step.

        Args:
            batch: uint8 `(devices, B / devices, S, S, 3)`.
            moment: What holds in this step.

        Returns:
            The step's figures, on the devices: only `look` waits for them.
        """
        if moment.phase is Phase.DECODER and self.phase is not Phase.DECODER:
            # The analysis is frozen from here on: the decoder has to learn with the one that will
            # be released, which is the average.
            self._state = dataclasses.replace(self._state, params=jnp.copy(self._state.ema))
        self.phase = moment.phase
        self._state, figures = self._step(moment.phase)(self._state, batch, *self._rates(moment))
        self.step += 1
        # A bounded lead: the clock tells the time of steps, and a signal is answered at once.
        self._running.append(figures)
        if len(self._running) > _AHEAD:
            jax.block_until_ready(self._running.popleft())
        return figures

    def try_out(self, state: TrainState, batch: Any, phase: Phase) -> None:
        """Compiles the step of a phase for a batch's shape, by steps of a state that is not kept.

        One is as it comes from the host, one as it comes from a step.
        """
        replicated = self.replicate(state)
        moment = Moment(phase, None, 0.0 if self.settings.train.by_time else None, False)
        for _ in range(2):
            replicated, figures = self._step(phase)(replicated, batch, *self._rates(moment))
            jax.block_until_ready(figures)

    def look(self, figures: dict[str, Any]) -> dict[str, float]:
        """The figures of a step as numbers: waits for the device."""
        return {name: float(_local(value)) for name, value in figures.items()}

    def failure(self) -> str | None:
        """What was not finite; the state is then that before the step. None if all was."""
        failed = int(_local(self._state.failed))
        return ", ".join(name for i, name in enumerate(CAUSES) if failed >> i & 1) or None

    def host_state(self) -> TrainState:
        """The state of one device, as NumPy arrays."""
        return jax.tree.map(lambda x: np.asarray(_local(x)), self._state)

    def average(self) -> Any:
        """The moving average of the parameters, a tree."""
        return unflatten(_local(self._state.ema), self._unravel)

    def _rates(self, moment: Moment) -> tuple[np.ndarray, ...]:
        return () if moment.rate is None else (np.full(self._devices, moment.rate, np.float32),)

    def _step(self, phase: Phase) -> Step:
        with self._lock:
            if phase not in self._steps:
                settings, wrap = self.settings, self._hooks.wrap_step
                objective = Objective(self.model, settings.train, phase, settings.options)
                step = make_step(objective, self._optimizer, self._unravel, settings.seed)
                if self._hooks.compile_quickly and jax.default_backend() == "gpu":
                    step = quickly_compiled(step)
                step = self._carried.step(phase, step) if self._carried else step
                self._steps[phase] = wrap(phase, step) if wrap else step
            return self._steps[phase]


class Preparation:
    """Compiles in a thread of its own, so that compiling can outlast its share of the time.

    Args:
        tasks: Name and work, in the order in which they are needed.
    """

    def __init__(self, tasks: Sequence[tuple[Any, Callable[[], object]]]):
        self._tasks, self._changed = tasks, threading.Condition()
        self._done: dict[Any, Exception | None] = {}
        self._closed = False
        # A daemon: nothing can interrupt XLA, and the process has to end in time all the same.
        threading.Thread(target=self._work, name=COMPILING, daemon=True).start()

    def _work(self) -> None:
        for name, work in self._tasks:
            if self._closed:
                return
            error = None
            try:
                work()
            except Exception as caught:
                error = caught
            with self._changed:
                self._done[name] = error
                self._changed.notify_all()

    def close(self) -> None:
        """Begins no further task."""
        self._closed = True

    def is_ready(self, name: Any) -> bool:
        """Whether a task has succeeded.

        Args:
            name: Of the task.
        """
        return self._done.get(name, _PENDING) is None

    def wait(self, name: Any, until: float | None, stopping: Callable[[], bool]) -> bool:
        """Waits for a task.

        Args:
            name: Of the task.
            until: `time.monotonic()`, at most; None for as long as it takes.
            stopping: Is asked now and then whether to wait no longer.

        Returns:
            Whether the task is done.

        Raises:
            Exception: What the task has raised.
        """
        with self._changed:
            while name not in self._done and not stopping():
                left = 0.2 if until is None else min(0.2, until - time.monotonic())
                if left <= 0:
                    break
                self._changed.wait(left)
            error = self._done.get(name)
        if error is not None:
            raise error
        return name in self._done


def fail(step: int, causes: str, folder: Path) -> TrainingError:
    """The error of a step that was not finite.

    Args:
        step: The number of the step.
        causes: What was not finite.
        folder: Where the state before that step is.
    """
    return TrainingError(
        f"Step {step}: {causes} not finite. The state before that step is in {folder}. Lower the "
        "learning rate, or go on from a checkpoint."
    )


def _local(value: Any) -> Any:
    """A replicated array's value, from the first device of this process."""
    return value.addressable_data(0)[0]
