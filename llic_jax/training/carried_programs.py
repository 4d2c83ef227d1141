"""Training steps that were compiled elsewhere, kept in a folder and carried to where they run.

An accelerator's minutes are not for compiling: `save_programs` compiles the steps that a run needs,
for devices that are there or for an absent GPU (`execution/ahead_of_time.py`), and
`CarriedPrograms` loads them in the run. What does not match, or fails, is compiled as ever: a
carried program saves time and nothing depends on it.

A folder has `manifest.json` and one file for each program, its pickled executable. Unpickling runs
code: load only folders that you trust.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from llic_jax.configs.config import Config, as_dict
from llic_jax.execution.ahead_of_time import compiler_options
from llic_jax.execution.program_cache import processor, source_hash
from llic_jax.models.build import build_model
from llic_jax.native import library as native
from llic_jax.training.objective import Objective
from llic_jax.training.phases import Phase
from llic_jax.training.settings import RunSettings
from llic_jax.training.state import create_state
from llic_jax.training.step import Step, make_step, step_arguments
from llic_jax.training.time_schedule import TimeSchedule

MANIFEST = "manifest.json"
_CUDNN = "__cudnn$"
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision")
# Fields of `train` that only the host looks at.
_ON_HOST = {
    "start", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints", "tensorboard",
    "eval_minutes", "checkpoint_minutes",
}  # fmt: skip
# And these when the learning rate is an argument of the step.
_ON_HOST_BY_TIME = {
    "minutes", "learning_rate", "decoder_learning_rate", "final_factor", "steps", "warmup_steps",
    "transforms_from", "decoder_steps", "schedule_boundaries", "schedule_factors",
    "warmup_fraction", "decay_fraction", "transforms_from_fraction", "decoder_fraction",
}  # fmt: skip


class PlannedStep(NamedTuple):
    """A training step that a run needs.

    Attributes:
        phase: Of the training.
        crop: Side of its crops, pixels.
    """

    phase: Phase
    crop: int

    @property
    def name(self) -> str:
        """Its name in a folder of programs."""
        return f"{self.phase.name.lower()}-{self.crop}"


class CompiledStep(NamedTuple):
    """A compiled step.

    Attributes:
        planned: What it is.
        program: JAX's executable.
        seconds: Wall time of tracing and compiling.
    """

    planned: PlannedStep
    program: Any
    seconds: float


def planned_steps(settings: RunSettings) -> list[PlannedStep]:
    """The steps that a run needs, in the order in which it comes to them.

    Args:
        settings: Of the run.
    """
    train, data = settings.train, settings.data
    if train.by_time:
        programs = TimeSchedule.of(settings).programs()
        return [PlannedStep(phase, data.crops[crops]) for phase, crops in programs]
    begins = (0, *data.crop_boundaries)
    changes = {*begins, train.transforms_from, train.steps - train.decoder_steps}
    planned: dict[PlannedStep, None] = {}
    for step in sorted(change for change in changes if change < train.steps):
        crop = [c for begin, c in zip(begins, data.crops, strict=True) if begin <= step][-1]
        planned[PlannedStep(Phase.at(step, train), crop)] = None
    return list(planned)


def compile_steps(
    settings: RunSettings, devices: Sequence[jax.Device], autotune: Path | None = None
) -> list[CompiledStep]:
    """Compiles all planned steps of a run for these devices.

    Where they are there and JAX's compilation cache is on, a run finds the programs in it
    afterwards.

    Args:
        settings: Of the run.
        devices: All of the run's, of one process; or an absent one (`ahead_of_time.target_device`).
        autotune: As in `ahead_of_time.compiler_options`.
    """
    model = build_model(settings.model)
    state, optimizer, unravel = create_state(model, settings.train, settings.seed)
    compiled = []
    for planned in planned_steps(settings):
        started = time.perf_counter()
        objective = Objective(model, settings.train, planned.phase, settings.options)
        step: Any = make_step(objective, optimizer, unravel, settings.seed, devices)
        lowered = step.lower(*step_arguments(state, settings.train, planned.crop, len(devices)))
        options = compiler_options(devices[0], autotune)
        program = lowered.compile(options or None)
        if options and _CUDNN in program.as_text():
            logging.warning(
                "%s has convolutions of cuDNN, whose algorithms are not known ahead of time: it is "
                "likely to fail on the GPU", planned.name,
            )  # fmt: skip
        seconds = time.perf_counter() - started
        logging.info("%s: compiled in %.0f s", planned.name, seconds)
        compiled.append(CompiledStep(planned, program, seconds))
    return compiled


def save_programs(
    folder: Path, config: Config, devices: Sequence[jax.Device], autotune: Path | None = None
) -> None:
    """Compiles all planned steps of a config and writes them into a folder, with a manifest.

    Args:
        folder: Made if need be.
        config: A whole config.
        devices: As for `compile_steps`.
        autotune: As for `compile_steps`.
    """
    from jax.experimental import serialize_executable

    folder.mkdir(parents=True, exist_ok=True)
    settings = RunSettings.of(config)
    needed = requirements(settings, devices)  # before sources may change
    entries = {}
    with _without_cache():
        compiled = compile_steps(settings, devices, autotune)
    for planned, program, seconds in compiled:
        data = pickle.dumps(serialize_executable.serialize(program))
        path = folder / f"{planned.name}.program"
        path.write_bytes(data)
        plan = program.memory_analysis()
        entries[planned.name] = {
            "file": path.name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "compile_seconds": round(seconds, 1),
            "temporary_bytes": getattr(plan, "temp_size_in_bytes", None),
        }
    manifest = {
        "requires": needed,
        "programs": entries,
        "autotuned": bool(autotune and (autotune / "results.textproto").exists()),
        "config": as_dict(config),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """JAX's compilation cache is off: what was loaded from it cannot be serialized again."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # else JAX keeps what it decided at its first compilation
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def requirements(settings: RunSettings, devices: Sequence[jax.Device]) -> dict[str, Any]:
    """All that a program depends on beside its phase and crop size.

    Args:
        settings: Of the run.
        devices: That it runs on.

    Returns:
        As JSON has it.
    """
    on_host = _ON_HOST | (_ON_HOST_BY_TIME if settings.train.by_time else set())
    train = {k: v for k, v in dataclasses.asdict(settings.train).items() if k not in on_host}
    first = devices[0]
    needed = {
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "device": first.device_kind,
        "compute_capability": str(getattr(first, "compute_capability", "")),
        "devices": len(devices),
        "sources": source_hash("*.py"),
        "settings": {name: jax.config.values[name] for name in _SETTINGS},
        "pallas": os.environ.get("LLIC_PALLAS", "1"),
        "pallas_fused": os.environ.get("LLIC_PALLAS_FUSED", "0"),
        "model": settings.model,
        "coding": settings.options._asdict(),
        "train": train,
        "seed": settings.seed,
    }
    if first.platform == "cpu":
        # Asking for the native kernel also makes it known to XLA, as programs that call it need.
        kernel, abilities = native.enabled(), hashlib.sha256(processor().encode()).hexdigest()
        needed |= {"native_kernel": kernel, "processor": abilities}
    return json.loads(json.dumps(needed))


def difference(required: Mapping[str, Any], present: Mapping[str, Any]) -> str | None:
    """The first thing in which what programs were compiled for differs from what is there.

    Args:
        required: From `requirements`, when they were compiled.
        present: From `requirements`, now.

    Returns:
        In words; None if nothing differs.
    """
    for name in present:
        then, now = required.get(name), present[name]
        if then == now:
            continue
        if isinstance(then, dict) and isinstance(now, dict):
            field = next(f for f in {**now, **then} if then.get(f) != now.get(f))
            name, then, now = f"{name}.{field}", then.get(field), now.get(field)
        if name in ("sources", "processor"):
            then, now = (str(value)[:12] for value in (then, now))
        return f"compiled for {name} {then}, here it is {now}"
    return None


class CarriedPrograms:
    """The programs of a folder, for a run on the devices that are there.

    Nothing here raises: one line of the log says why something is not used.

    Args:
        folder: That `save_programs` wrote.
        settings: Of the run.
    """

    def __init__(self, folder: Path, settings: RunSettings):
        self.folder = folder
        self.entries: dict[str, Any] = {}
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            reason = difference(manifest["requires"], requirements(settings, jax.devices()))
            entries = dict(manifest["programs"])
        except Exception as error:
            reason = f"{MANIFEST} cannot be read ({_line(error)})"
        if reason is None and jax.process_count() > 1:
            reason = "a program of one process, here are several"
        if reason is None:
            self.entries = entries
        else:
            logging.warning("carried programs of %s are not used: %s", folder, reason)

    def load(self, name: str) -> Step | None:
        """The program of a planned step's name; None if there is none or it cannot be loaded."""
        from jax.experimental import serialize_executable

        if not self.entries:
            return None
        try:
            if name not in self.entries:
                raise LookupError(f"only {', '.join(self.entries)} were compiled")
            entry = self.entries[name]
            data = (self.folder / entry["file"]).read_bytes()
            if hashlib.sha256(data).hexdigest() != entry["sha256"]:
                raise ValueError("the file is damaged")
            return serialize_executable.deserialize_and_load(*pickle.loads(data))
        except Exception as error:
            logging.warning("carried program %s is not used: %s", name, _line(error))
            return None

    def step(self, phase: Phase, ordinary: Step) -> Step:
        """The step of a phase, by carried programs where there are such.

        A program's first step runs on a copy of the state, which is donated, so that the step can
        be done again if it fails.

        Args:
            phase: Of the training.
            ordinary: The step for sizes of crops that there is no program for.
        """
        chosen: dict[tuple[int, ...], Step] = {}

        def first(name: str, state: Any, images: Any, *rates: Any) -> tuple[Step, Any]:
            program = self.load(name)
            if program is not None:
                try:
                    started = time.perf_counter()
                    result = program(jax.tree.map(jnp.copy, state), images, *rates)
                    loss = np.asarray(jax.block_until_ready(result)[1]["loss"])
                    if not np.isfinite(loss).all():
                        raise FloatingPointError("its first loss is not finite")
                    seconds = time.perf_counter() - started
                    logging.info("carried program %s: first step in %.1f s", name, seconds)
                    return program, result
                except Exception as error:
                    logging.warning("carried program %s is not used: %s", name, _line(error))
            return ordinary, ordinary(state, images, *rates)

        def run(state: Any, images: Any, *rates: Any) -> Any:
            shape = tuple(images.shape)
            if shape in chosen:
                return chosen[shape](state, images, *rates)
            name = PlannedStep(phase, shape[-2]).name
            chosen[shape], result = first(name, state, images, *rates)
            return result

        return run


def _line(error: Exception) -> str:
    """An error as one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
