"""Kills training runs and takes their disk away, at random moments: nothing may be lost.

    python benchmarks/kills.py --kills 50 --disks 20

A tiny model (configs/smoke.py) is trained on scikit-image's photographs, once without a break.
Then again and again, through these, in a random order:

    SIGKILL   at a random moment from the start of the process on
    SIGTERM   likewise; two seconds later SIGKILL, if the process is still there
    full      a file takes the disk's space, but for a random rest; it goes when the run has ended
    gone      an empty file system that cannot be written to covers the run's folder, likewise

After each of them every record of the run must be whole, no finished checkpoint may be missing, and
the next start must go on from the last one. A run that has come to its last step must have the
state of the uninterrupted one, bit for bit, and its figures. `full` and `gone` need root on Linux,
for they mount small file systems of their own.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # for a machine where nothing is installed

import numpy as np
from PIL import Image

from llic_jax.evaluation.image_sets import load_images
from llic_jax.system import json_lines
from llic_jax.training.log import read_metrics

ROOT = Path(__file__).parents[1]
DISK_BYTES = 64 << 20
HANGS = "the process hangs\n"
GRACE = 2.0  # seconds between SIGTERM and SIGKILL
PATIENCE = 600.0  # seconds after which a process hangs
CLOCKED = ("images_per_second", "step_seconds")  # figures that are of the clock


class Start(NamedTuple):
    """How one process ended.

    Attributes:
      how: What was done to it; None if it was left alone.
      status: Its exit status.
      first: The step that it went on from; None if it did not come so far.
      output: What it printed.
    """

    how: str | None
    status: int
    first: int | None
    output: str


class Disk:
    """A small file system of its own, if that can be had; a folder if not."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.mounted = _mount(folder, f"size={DISK_BYTES}")

    def fill(self, rest: int) -> None:
        """Takes all space but `rest` bytes."""
        space = os.statvfs(self.folder)
        with (self.folder / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - rest))

    def free(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    def go(self) -> bool:
        """Covers the disk by an empty one that cannot be written to."""
        return _mount(self.folder, "ro,size=4k")

    def come_back(self) -> None:
        subprocess.run(["umount", self.folder], check=True)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)


def _mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "llic", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


class Trial:
    """Runs of one config.

    Args:
      folder: For photographs, compiled programs and runs.
      steps: Of a run.
      seed: Of the moments.
    """

    def __init__(self, folder: Path, steps: int, seed: int):
        self.folder, self.steps = folder, steps
        self.random = np.random.default_rng(seed)
        photographs = folder / "photographs"
        photographs.mkdir()
        for name, image in load_images().images:
            Image.fromarray(image).save(photographs / f"{name}.png")
        fields = {
            "data.source": photographs,
            "data.held_back": 1,
            "data.gap_images": 0,
            "data.threads": 1,
            "train.batch_size": 4,
            "train.steps": steps,
            "train.decoder_steps": steps // 4,  # a second program
            "train.log_every": 1,
            "train.checkpoint_every": 5,
            "train.eval_every": 15,
        }
        self.flags = [f"--config.{name}={value}" for name, value in fields.items()]
        self.whole = folder / "whole"
        self.environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
        self.log = folder / "log.txt"  # of the last process
        self.start(folder / "first")  # compiles, and opens what is read for the first time

    def measure(self) -> tuple[float, float]:
        """Trains without a break; returns seconds of a start, and of a step."""
        started = time.monotonic()
        process = self._process(self.whole)
        _wait_for_figures(process, self.whole / "metrics.jsonl")
        begun = time.monotonic()
        self._result(None, process)
        seconds = begun - started, (time.monotonic() - begun) / self.steps
        compare(self.folder / "first", self.whole, self.steps)  # two runs without a break are equal
        return seconds

    def start(self, run: Path) -> Start:
        """Starts a run and leaves it alone."""
        return self._result(None, self._process(run))

    def interrupted(self, run: Path, disk: Disk, how: str, times: tuple[float, float]) -> Start:
        """Starts a run and does something to it, unless it has ended.

        Args:
          run: Its folder.
          disk: On which that lies.
          how: What is done.
          times: Seconds of a start and of a step. A quarter of the moments lie in the start, the
            others within 25 steps from the first new figures on: a busy machine starts slowly.
        """
        process = self._process(run)
        early = self.random.random() < 0.25
        if early:
            until = time.monotonic() + self.random.uniform(0, times[0])
        else:
            _wait_for_figures(process, run / "metrics.jsonl")
            until = time.monotonic() + self.random.uniform(0, 25 * times[1])
        try:
            process.wait(max(0.0, until - time.monotonic()))
            return self._result(None, process)
        except subprocess.TimeoutExpired:
            pass
        if how == "full":
            disk.fill(rest=int(self.random.choice([0, self.random.integers(1 << 20)])))
        elif how == "gone":
            disk.go()
        elif how == "SIGTERM":
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            process.kill()
        else:
            process.kill()
        try:
            return self._result(how, process)
        finally:
            if how == "full":
                disk.free()
            elif how == "gone":
                disk.come_back()

    def _process(self, run: Path) -> subprocess.Popen:
        command = [sys.executable, "train.py", "--config", "configs/smoke.py", *self.flags]
        with self.log.open("wb") as file:
            return subprocess.Popen(
                [*command, "--workdir", str(run)],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def _result(self, how: str | None, process: subprocess.Popen) -> Start:
        hangs = ""
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            status, hangs = process.wait(), HANGS
        output = hangs + self.log.read_text(errors="replace")
        found = re.search(r"going on from step (\d+)", output)
        return Start(how, status, int(found[1]) if found else None, output)


def _wait_for_figures(process: subprocess.Popen, metrics: Path) -> None:
    """Waits until a process adds figures to the file, or ends."""
    size = metrics.stat().st_size if metrics.exists() else 0
    while process.poll() is None and (metrics.stat().st_size if metrics.exists() else 0) <= size:
        time.sleep(0.02)


def finished(run: Path) -> list[int]:
    """The steps of a run's finished checkpoints."""
    folder = run / "checkpoints"
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())


def check_records(run: Path) -> Iterator[str]:
    """What is wrong with a run's files."""
    for name in ("config.json", "held_back.json"):
        if (run / name).exists():
            try:
                json.loads((run / name).read_text())
            except ValueError as error:
                yield f"{name}: {error}"
    for name in ("metrics.jsonl", "runs.jsonl"):
        if (run / name).exists():
            try:
                json_lines.read(run / name)
            except ValueError as error:
                yield str(error)


def compare(one: Path, other: Path, steps: int) -> None:
    """Raises RuntimeError unless two runs ended with the same state and have the same figures."""
    import jax
    import orbax.checkpoint as ocp

    states = []
    for run in (one, other):
        manager = ocp.CheckpointManager(run.absolute() / "checkpoints")
        states.append(manager.restore(steps, args=ocp.args.StandardRestore()))
        manager.close()
    first, second = map(jax.tree.leaves, states)
    equal = [
        a.tobytes() == b.tobytes()
        for a, b in zip(map(np.asarray, first), map(np.asarray, second), strict=True)
    ]
    if not all(equal):
        raise RuntimeError(f"{equal.count(False)} of {len(equal)} arrays differ")
    for kind in ("train", "validation"):
        figures = [
            {
                e["step"]: {k: v for k, v in e.items() if k not in CLOCKED}
                for e in read_metrics(run, kind)
            }
            for run in (one, other)
        ]
        if wrong := [step for step, entry in figures[1].items() if entry != figures[0][step]]:
            raise RuntimeError(f"{kind} figures differ at steps {wrong}")
        missing = sorted(figures[0].keys() - figures[1].keys())
        if kind == "train" and missing:
            raise RuntimeError(f"figures of steps {missing} are missing")


def curve_steps(run: Path) -> list[int] | None:
    """The steps that TensorBoard shows; None where it is not installed."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        return None
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [event.step for event in events.Scalars("train/loss")]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="SIGKILL and SIGTERM, half each")
    parser.add_argument("--disks", type=int, default=20, help="full and gone disks, half each")
    parser.add_argument("--steps", type=int, default=60, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        return _try(Path(name), args)


def _try(folder: Path, args: argparse.Namespace) -> int:
    trial = Trial(folder, args.steps, args.seed)
    start_seconds, step_seconds = trial.measure()
    print(f"a start takes {start_seconds:.1f} s, a step {step_seconds:.2f} s")
    disk = Disk(folder / "disk")
    planned = ["SIGKILL", "SIGTERM"] * (args.kills // 2)
    if disk.mounted:
        planned += ["full", "gone"] * (args.disks // 2)
    else:
        print("no file system can be mounted here: the disks stay")
    planned = list(trial.random.permutation(planned))
    counts: collections.Counter[str] = collections.Counter()
    problems: list[str] = []
    lost: list[int] = []
    runs = 0
    try:
        while planned:
            run, known = disk.folder / f"run{runs}", 0
            runs += 1
            done = False
            while not done:
                how = planned.pop() if planned else None
                if how is None:
                    start = trial.start(run)
                else:
                    start = trial.interrupted(run, disk, how, (start_seconds, step_seconds))
                    if start.how is None:
                        planned.append(how)  # the run was done before
                where = f"run {runs}, {start.how or 'left alone'} from step {known}"
                problems += [f"{where}: {problem}" for problem in check_records(run)]
                last = max(finished(run), default=0)
                if last < known:
                    problems.append(f"{where}: checkpoint {known} is missing")
                if known and start.first is not None and start.first != known:
                    problems.append(f"{where}: it went on from {start.first}")
                # Orbax logs the traceback of its own threads; what ends the run is a line.
                told = start.status == 0 or "\ntrain.py: " in "\n" + start.output
                if HANGS in start.output or (start.how in ("full", "gone") and not told):
                    problems.append(f"{where}: not ended by a line\n{start.output[-3000:]}")
                if start.how is None and start.status != 0:
                    problems.append(f"{where}: exit status {start.status}\n{start.output[-3000:]}")
                    return _report(counts, runs, problems, lost)
                if start.how is not None:
                    counts[start.how] += 1
                    steps = (
                        [e["step"] for e in read_metrics(run, "train")]
                        if (run / "metrics.jsonl").exists()
                        else []
                    )
                    if start.how in ("SIGKILL", "SIGTERM"):
                        lost.append(max(0, max(steps, default=0) - last))
                    print(
                        f"{where} to {last}, exit status {start.status}: "
                        + (start.output.strip().splitlines() or [""])[-1][-150:],
                        flush=True,
                    )
                known, done = last, start.how is None
            try:
                compare(trial.whole, run, args.steps)
                shown = curve_steps(run)
                if shown is not None and shown != sorted(set(shown)):
                    problems.append(f"run {runs}: TensorBoard shows {shown}")
            except RuntimeError as error:
                problems.append(f"run {runs}: {error}")
            print(f"run {runs} has come to step {known}", flush=True)
            shutil.rmtree(run)  # the disk is small
    finally:
        disk.close()
    return _report(counts, runs, problems, lost)


def _report(counts: Any, runs: int, problems: list[str], lost: list[int]) -> int:
    listed = ", ".join(f"{count} {how}" for how, count in sorted(counts.items()))
    print(f"{runs} runs, {listed}; steps lost by a kill: {max(lost, default=0)} at most")
    print("\n".join(problems) if problems else "nothing was lost, the ends are equal bit for bit")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
