"""Checkpoints of a training run: orbax folders `WORKDIR/checkpoints/STEP`.

A checkpoint holds parameters, their moving average, the optimizer's state and the step. The random
keys and the position in the data are functions of the seed and the step, so nothing else is needed
to go on exactly.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from llic_jax.errors import LlicError


class CheckpointError(LlicError, RuntimeError):
    """A checkpoint is missing, corrupt, or of another model."""


class Checkpoints:
    """Saves in the background, keeps the last `keep`."""

    def __init__(self, workdir: str | Path, keep: int = 3):
        self.folder = Path(workdir).absolute() / "checkpoints"
        self.manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, create=True, enable_async_checkpointing=True
            ),
        )

    def latest_step(self) -> int | None:
        return self.manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Starts to write `state`, a pytree of arrays; does nothing if the step is there."""
        if step not in self.manager.all_steps():
            self.manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, like: Any, step: int | None = None) -> Any:
        """The checkpoint of `step` (the latest) with the structure and types of `like`.

        Raises:
          CheckpointError: there is none, it cannot be read, or it holds something else.
        """
        step = self.latest_step() if step is None else step
        if step is None:
            raise CheckpointError(f"No checkpoint in {self.folder}; train first.")
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        try:
            return self.manager.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:  # orbax raises many kinds for a damaged or foreign checkpoint
            raise CheckpointError(
                f"Checkpoint {self.folder / str(step)} cannot be restored into this model: {error} "
                "Use the config that it was trained with, or delete this step to go on from the "
                "one before."
            ) from error

    def close(self) -> None:
        """Waits until everything is written."""
        self.manager.wait_until_finished()
        self.manager.close()
