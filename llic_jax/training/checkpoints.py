"""Checkpoints of a training run: orbax folders, one of each step.

A checkpoint holds parameters, their moving average, the optimizer's state and the step. The random
keys and the position in the data are functions of the seed and the step, so nothing else is needed
to go on exactly.
"""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from llic_jax.errors import CheckpointError


class Checkpoints:
    """A folder of checkpoints, one of each step, written in the background.

    Args:
        folder: Made if need be.
        keep: How many are kept.
        by_loss: Keeps those of the lowest loss, in place of the last ones.
    """

    def __init__(self, folder: str | Path, keep: int = 3, by_loss: bool = False):
        self.folder, self.by_loss = Path(folder).absolute(), by_loss
        best = {"best_fn": lambda metrics: metrics["loss"], "best_mode": "min"} if by_loss else {}
        self.manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, create=True, enable_async_checkpointing=True, **best
            ),
        )

    def steps(self) -> list[int]:
        """The steps that there are, ascending. What was only half written is not among them."""
        return sorted(self.manager.all_steps())

    def latest_step(self) -> int | None:
        """The last step that there is a checkpoint of; None without any."""
        return self.manager.latest_step()

    def save(self, step: int, state: Any, loss: float | None = None) -> None:
        """Starts to write the checkpoint of a step.

        Does nothing if the step is there; with `by_loss`, unless the new loss is lower.

        Args:
            step: Also one before the last: a run may have gone back.
            state: A pytree of NumPy arrays.
            loss: With `by_loss`. One that is not finite is never kept.

        Raises:
            CheckpointError: This checkpoint, or one before it, cannot be written.
        """
        metrics: dict[str, float] = {}
        if self.by_loss:
            if loss is None or not math.isfinite(loss):
                logging.warning("The loss of step %d is %s: no candidate for the best", step, loss)
                return
            metrics = {"loss": loss}
        if step in self.manager.all_steps():
            if not metrics or metrics["loss"] >= self._loss(step):
                return
            self.manager.delete(step)
        # Orbax passes over steps before its last one unless it is forced.
        content = ocp.args.StandardSave(state)
        with self._writing():
            self.manager.save(step, args=content, metrics=metrics or None, force=True)

    def _loss(self, step: int) -> float:
        found: Any = self.manager.metrics(step)
        return found["loss"] if found else math.inf

    def restore(self, like: Any, step: int | None = None) -> Any:
        """Reads a checkpoint.

        Args:
            like: A pytree with the structure and shapes of the state.
            step: None for the latest.

        Returns:
            The state, of NumPy arrays.

        Raises:
            CheckpointError: There is none, it cannot be read, or it holds something else.
        """
        step = self.latest_step() if step is None else step
        if step is None:
            raise CheckpointError(f"No checkpoint in {self.folder}; train first.")
        try:
            return self.manager.restore(
                step, args=ocp.args.StandardRestore(jax.tree.map(np.asarray, like))
            )
        except Exception as error:  # orbax raises many kinds for a damaged or foreign checkpoint
            before = [s for s in self.steps() if s < step]
            remedy = (
                f"The one before it is {before[-1]}: --from_step {before[-1]} goes on from there."
                if before
                else "There is none before it; start anew in another folder."
            )
            raise CheckpointError(
                f"Checkpoint {self.folder / str(step)} cannot be restored into this model: {error} "
                f"Use the config that it was trained with. If the files are damaged: {remedy}"
            ) from error

    def set_aside_after(self, step: int, folder: Path) -> None:
        """Moves the checkpoints after `step` to `folder`.

        Raises:
            CheckpointError: There is none of `step`.
        """
        if step not in self.steps():
            raise CheckpointError(
                f"No checkpoint of step {step} in {self.folder}; there are {self.steps()}."
            )
        for later in self.steps():
            if later > step and jax.process_index() == 0:
                folder.mkdir(parents=True, exist_ok=True)
                stamp = time.strftime("%Y%m%d-%H%M%S")
                shutil.move(self.folder / str(later), folder / f"{later}_{stamp}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints set aside")
        self.manager.reload()

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
            CheckpointError: It cannot be.
        """
        with self._writing():
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is written, and ends the background threads.

        Raises:
            CheckpointError: It cannot be written.
        """
        try:
            self.wait()
        finally:
            with self._writing():
                self.manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Orbax raises many kinds of errors for a disk that is full or gone."""
        try:
            yield
        except Exception as error:
            steps, reason = self._finished(), str(error).split(" [")[0]  # the rest is for orbax
            last = f"the last one is of step {steps[-1]}" if steps else "there is none before it"
            raise CheckpointError(
                f"A checkpoint cannot be written to {self.folder}: {reason}. Is the disk full, or "
                f"gone? Mend that and start again: the run goes on from its checkpoints ({last})."
            ) from error

    def _finished(self) -> list[int]:
        """The steps whose folders are there: orbax gives a checkpoint its name when it is whole."""
        with contextlib.suppress(OSError):
            return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit())
        return []
