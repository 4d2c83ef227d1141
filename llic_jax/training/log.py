"""The log of a training run: progress bar, `metrics.jsonl`, TensorBoard, a summary at the end.

Figures leave the device every `train.log_every` steps only. Between these the host runs ahead, and
the device never waits for it.
"""

import contextlib
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from llic_jax.system import json_lines
from llic_jax.training.tensorboard import TensorBoard


class TrainingLog:
    """The log of one run; a context manager.

    Args:
        workdir: Where `metrics.jsonl` and `tensorboard/` lie.
        first: The step that the run goes on from.
        last: The step that it ends at; None where the time decides.
        batch_size: Of all devices.
        tensorboard: Also writes TensorBoard's files.
        main: Whether this process writes; of several, one does.
    """

    def __init__(
        self,
        workdir: Path,
        first: int,
        last: int | None,
        batch_size: int,
        tensorboard: bool = True,
        main: bool = True,
    ):
        self.workdir, self.batch_size, self.main = workdir, batch_size, main
        self.started = self.since = time.monotonic()
        self.first = self.since_step = self.step = first
        self.latest: dict[str, dict[str, float]] = {}
        self.exits = contextlib.ExitStack()
        self.exits.enter_context(logging_redirect_tqdm())
        # disable=None: no bar where nobody watches, as in a file.
        self.bar = tqdm(initial=first, total=last, unit="step", disable=None if main else True)
        self.exits.enter_context(self.bar)
        if main:
            json_lines.repair(workdir / "metrics.jsonl")  # else our first line continues a cut one
        self.file = workdir / "metrics.jsonl" if main else None
        self.board = _board(workdir / "tensorboard", first) if tensorboard and main else None
        if self.board is not None:
            self.exits.callback(self.board.close)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.exits.close()

    def step_started(self) -> None:
        """Counts a step."""
        self.step += 1
        self.bar.update()

    def train(self, figures: dict[str, float]) -> None:
        """Writes the figures of the last step, and the speed since the last such call."""
        now = time.monotonic()
        steps = max(1, self.step - self.since_step)
        seconds = (now - self.since) / steps
        self._pause(now)
        speed = {"images_per_second": self.batch_size / seconds, "step_seconds": seconds}
        self.bar.set_postfix_str(f"{speed['images_per_second']:.1f} images/s", refresh=False)
        self._write("train", {**figures, **speed})

    def validation(self, figures: dict[str, float], pairs: list[np.ndarray]) -> None:
        """Writes figures on the held-out images.

        Args:
            figures: Means over the images.
            pairs: Some of them beside their reconstructions, uint8 `(H, 2 W, 3)`.
        """
        self._write("validation", figures)
        if self.board is not None:
            for i, pair in enumerate(pairs):
                self.board.picture(f"original_and_decoded/{i}", pair, self.step)
        self._pause(time.monotonic())

    def summary(self, reason: str, folder: Path) -> None:
        """Logs a few lines at the end.

        Args:
            reason: Why the run has ended.
            folder: Of its checkpoints.
        """
        if not self.main:
            return
        minutes, steps = (time.monotonic() - self.started) / 60, self.step - self.first
        logging.info(
            "%s: %d steps in %.1f minutes, now at step %d", reason, steps, minutes, self.step
        )
        for kind, figures in self.latest.items():
            names = ("loss", "bpp", "psnr", "gap")
            text = ", ".join(f"{n} {figures[n]:.4f}" for n in names if n in figures)
            logging.info("last %s figures (step %d): %s", kind, figures["step"], text)
        logging.info("checkpoints: %s", folder)

    def _write(self, kind: str, figures: dict[str, float]) -> None:
        self.latest[kind] = {"step": self.step, **figures}
        if self.file is not None:
            # What is not finite is no JSON.
            entry = {n: v if math.isfinite(v) else None for n, v in figures.items()}
            json_lines.append(self.file, {"kind": kind, "step": self.step, **entry})
            text = " ".join(f"{name} {value:.5g}" for name, value in figures.items())
            logging.info("%s step %d: %s", kind, self.step, text)
        if self.board is not None:
            named = {f"{kind}/{name}": value for name, value in figures.items()}
            self.board.scalars(named, self.step)

    def _pause(self, now: float) -> None:
        """Time before `now` does not count as training."""
        self.since, self.since_step = now, self.step


def read_metrics(workdir: str | Path, kind: str) -> list[dict[str, Any]]:
    """The entries of one kind in a run's `metrics.jsonl`.

    Args:
        workdir: The run.
        kind: "train" or "validation".

    Returns:
        By step; where a run went back to an earlier checkpoint, the later entry of a step counts.
    """
    entries: dict[int, dict[str, Any]] = {}
    for entry in json_lines.read(Path(workdir) / "metrics.jsonl", skip_damaged=True):
        if entry["kind"] == kind:
            entries[entry["step"]] = entry
    return [entries[step] for step in sorted(entries)]


def _board(folder: Path, first: int) -> TensorBoard | None:
    try:
        return TensorBoard(folder, first)
    except ImportError:
        logging.warning("tensorboardX is not installed, so there will be no TensorBoard files.")
        return None
