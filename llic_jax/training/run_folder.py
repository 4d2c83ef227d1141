"""The folder of a training run: its config, its history, and who may write into it."""

import contextlib
import dataclasses
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from llic_jax.configs.config import Config, as_dict
from llic_jax.configs.upgrade import upgrade
from llic_jax.data.photographs import HELD_OUT_FILE, read_held_out
from llic_jax.errors import CheckpointError, OutputError
from llic_jax.system import json_lines, provenance
from llic_jax.system.files import whole_file
from llic_jax.training.checkpoints import Checkpoints
from llic_jax.training.settings import RunSettings
from llic_jax.training.state import TrainState
from llic_jax.zoo.folder import training_history

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class RunFolder:
    """The folder of a run, owned by one process from `with` on; a context manager.

        config.json             the config, written whole; a run keeps its model
        runs.jsonl              versions, commit, devices and config of each start
        metrics.jsonl           figures (`log.py`)
        checkpoints/            the last `train.keep_checkpoints` ones
        checkpoint_best/        the one of the lowest validation loss
        checkpoints_failed/     the state before a step that was not finite
        checkpoints_set_aside/  those after the step that a run went back to
        held_back.json          names of the photographs that this run holds out
        .lock                   locked while a run writes; a crash leaves no lock behind

    With several processes the first one owns the folder and writes.

    Args:
        path: The folder, made if need be.

    Raises:
        OutputError: It cannot be made, or another run is writing into it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        self.is_main = jax.process_index() == 0
        self._lock: int | None = None
        self._checkpoints: list[Checkpoints] = []

    def __enter__(self) -> "RunFolder":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.is_main:
                self._lock = _lock(self.path / ".lock")
        except BlockingIOError as error:
            raise OutputError(
                f"{self.path} is in use by another training run. Wait until it has ended, stop it, "
                "or name another --workdir."
            ) from error
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be a run's folder: {error.strerror or error}. Name another "
                "--workdir."
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as exits:
            if self._lock is not None:
                exits.callback(os.close, self._lock)  # unlocks, too
            for checkpoints in self._checkpoints:
                exits.callback(_close, checkpoints, error)

    def checkpoints(self, name: str, keep: int, by_loss: bool = False) -> Checkpoints:
        """Checkpoints in a folder of this one; closed together with it, on errors, too.

        Args:
            name: Of the folder.
            keep: How many are kept.
            by_loss: Keeps those of the lowest loss, not the last ones.
        """
        self._checkpoints.append(Checkpoints(self.path / name, keep, by_loss))
        return self._checkpoints[-1]

    def keep_config(self, config: Config, settings: RunSettings) -> None:
        """Writes the config, and a line of `runs.jsonl`.

        A run keeps the model that it was started with. How the model is computed may change, since
        parameters are float32 either way. What the weights that a run started from had seen is
        noted in the config as `started_from`.

        Args:
            config: Of the run, as it was given.
            settings: Made of it.

        Raises:
            CheckpointError: The run was started with another model, or its config is unreadable.
        """
        if not self.is_main:
            return
        kept: dict[str, Any] = json.loads(json.dumps(as_dict(config)))
        path = self.path / "config.json"
        if path.exists():
            try:
                before = json.loads(path.read_text())
                model = upgrade(before)["model"]
            except (OSError, ValueError, KeyError) as error:
                raise CheckpointError(
                    f"{path} cannot be read ({error}). Put the config of this run there again, or "
                    "use another --workdir."
                ) from error
            if _parameters(model) != _parameters(settings.model):
                raise CheckpointError(
                    f"{path} describes another model than this config. Use another --workdir, or "
                    "the config that this run was started with."
                )
            started_from = before.get("started_from")
        else:
            started_from = training_history(*_start_folders(settings.train.start))
        if started_from:
            kept["started_from"] = started_from
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(kept, indent=2) + "\n")
        log = self.path / "runs.jsonl"
        json_lines.repair(log)
        entry = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": provenance.versions(),
            "commit": provenance.git_commit(),
            "devices": [d.device_kind for d in jax.devices()],
            "config": kept,
        }
        json_lines.append(log, entry)

    def held_out_names(self) -> list[str] | None:
        """Names of the photographs that this run holds out since its start; None before it."""
        path = self.path / HELD_OUT_FILE
        return read_held_out(path) if path.exists() else None

    def keep_held_out_names(self, names: list[str]) -> None:
        """Keeps the names of the photographs that this run holds out.

        Photographs that are added to the source later must not move them.

        Args:
            names: In the source.
        """
        if self.is_main:
            with whole_file(self.path / HELD_OUT_FILE) as temporary:
                temporary.write_text(json.dumps(names, indent=1) + "\n")

    def save_failed(self, state: TrainState) -> Path:
        """Keeps the state before a step that was not finite.

        Args:
            state: Of one device, as NumPy arrays.

        Returns:
            The checkpoint's folder.
        """
        step = int(state.step)
        checkpoints = Checkpoints(self.path / "checkpoints_failed", keep=1)
        checkpoints.save(step, dataclasses.replace(state, failed=np.zeros_like(state.failed)))
        checkpoints.close()
        return checkpoints.folder / str(step)


def _close(checkpoints: Checkpoints, error: BaseException | None) -> None:
    """Closes checkpoints; what goes wrong then does not hide the error that ends the run."""
    try:
        checkpoints.close()
    except CheckpointError as late:
        if error is None:
            raise
        logging.warning("%s", late)


def _parameters(model: Mapping[str, Any]) -> dict[str, Any]:
    """What of a `model` section decides about the parameters, as JSON has it."""
    return json.loads(json.dumps({**model, "dtype": None, "remat": None, "mixture": None}))


def _start_folders(start: str) -> list[str]:
    return [os.path.expanduser(part) for part in start.split(",")]


def _lock(path: Path) -> int | None:
    """Locks a file for this process, for as long as it lives; None where that is not possible.

    Raises:
        BlockingIOError: Another process has it locked.
    """
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError as error:  # a file system without locks
        logging.warning("%s cannot be locked (%s): start no second run in it", path, error)
    return descriptor
