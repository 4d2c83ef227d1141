"""Trains for a few minutes on a machine without internet, from a package that was carried there.

    python -m llic_jax.accelerate pack PHOTOGRAPHS PACKAGE --validation FOLDER --mib 34
    python -m llic_jax.accelerate config configs/llic_elic_small.py run.json train.batch_size=32
    python -m llic_jax.accelerate compile PACKAGE run.json --target h200
    python -m llic_jax.accelerate run PACKAGE run.json OUTPUT --minutes 12
    python -m llic_jax.accelerate unpack OUTPUT RUN

`pack`, `config` and `compile` run at home. `compile` writes the programs of the run's steps to
`PACKAGE/programs`, for a GPU that is absent (docs/ahead_of_time.md) or for the devices that are
there; `run` uses them where they fit. PACKAGE may be several, with commas in between. `run` needs
JAX, Flax, optax, orbax, jaxtyping, Pillow, safetensors, SciPy and tqdm, and neither ml_collections
nor TensorFlow. It ends within the given
minutes, all included, with a learning rate of zero; on SIGTERM it ends at once. OUTPUT then holds
a few files of limited size: `manifest.json` and `state.*` (weights, see `training/transfer.py`),
`metrics.jsonl`, `runs.jsonl`, `log.txt`. They are written before anything is compiled, and anew
every `--export_minutes`, so there is something to take home whatever happens. `unpack` makes a run
folder of them, which `train.py`, `release` and `run --start_from` take.
"""

import argparse
import importlib.util
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llic_jax.configs.upgrade import upgrade
from llic_jax.errors import ConfigError, LlicError, OutOfTimeError, TrainingError
from llic_jax.system.arguments import above_zero, positive
from llic_jax.system.files import write_json
from llic_jax.system.streams import run_command

_MIB = 2**20
_PROGRAMS = "programs"  # folder in a package
# After a loss that is not finite: from the last checkpoint, with so much of the learning rate.
_RETRIES = (0.5, 0.2)
_HISTORY_FILES = 4  # manifest.json, metrics.jsonl, runs.jsonl, log.txt


def overridden(config: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A config with other values in some fields.

    Args:
        config: Plain dictionaries. It is left as it is.
        assignments: "section.field=VALUE"; a value is JSON, or else text.

    Raises:
        ConfigError: No such field, or no value.
    """
    config = json.loads(json.dumps(config))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        *sections, name = path.split(".")
        place: Any = config
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict) or name not in place:
            raise ConfigError(
                f"{assignment!r} sets no field of the config; write for instance "
                "train.learning_rate=1e-4."
            )
        try:
            place[name] = json.loads(text)
        except ValueError:
            place[name] = text
    return config


def resolve_config(path: str | Path, assignments: Sequence[str]) -> dict[str, Any]:
    """The config of a file.

    Args:
        path: Python or JSON, also one of an older version.
        assignments: See `overridden`.

    Returns:
        Plain dictionaries.

    Raises:
        ConfigError: There is no config, or no such field.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            return overridden(upgrade(json.loads(path.read_text())), assignments)
        spec = importlib.util.spec_from_file_location("llic_config", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return overridden(module.get_config().to_dict(), assignments)
    except LlicError:
        raise
    except (OSError, ValueError, ImportError, AssertionError, AttributeError) as error:
        raise ConfigError(f"{path} is no config: {error}") from error


def run(
    package: str | Path,
    config: dict[str, Any],
    output: Path,
    minutes: float,
    *,
    started: float,
    workdir: Path,
    start_from: Path | None = None,
    piece_bytes: int = 15 * _MIB,
    limit_bytes: int = 60 * _MIB,
    export_minutes: float = 2.0,
    programs: Path | None = None,
    least_crops: float = 0.0,
    autotune: bool = False,
    wrap_step: Callable[..., Any] | None = None,
) -> int:
    """Trains on a package until its time is over.

    A loss that is not finite sends the run back to its last checkpoint, with a lower rate, twice at
    most. Errors of validation and of exports are logged and cost nothing else.

    Args:
        package: Of photographs; several with commas in between.
        config: A whole one; see `carried_config`.
        output: Folder for what is to be taken home.
        minutes: Until the end, counted from `started`.
        started: `time.monotonic()`.
        workdir: Folder of the run, on this machine.
        start_from: Pieces of a run to go on from, by its moving average or its whole state.
        piece_bytes: Of a file, at most.
        limit_bytes: Of all pieces together, at most.
        export_minutes: Between two exports.
        programs: Folder of compiled steps.
        least_crops: A second: fewer end the run early (`course.Hooks`).
        autotune: What is compiled on a GPU is autotuned: it takes minutes, and may run faster.
        wrap_step: See `course.Hooks`.

    Returns:
        The last step that was done.

    Raises:
        OutOfTimeError: Compiling took all of the time, or the steps are too slow; `output` holds
            the weights at the start.
        LlicError: Something else ends the run; what was exported before is in `output`.
    """
    from llic_jax.training import loop, transfer
    from llic_jax.training.course import Hooks

    deadline = started + 60 * minutes
    config = carried_config(package, config, minutes, export_minutes)
    if start_from is not None:
        step = transfer.unpack(start_from, workdir)
        logging.info("going on from step %d of %s", step, start_from)
    output.mkdir(parents=True, exist_ok=True)
    peak = config["train"]["learning_rate"], config["train"]["decoder_learning_rate"]

    def export(state: Any) -> None:
        kept = json.loads((workdir / "config.json").read_text())
        new = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        try:
            stem = f"state.{int(state.step)}"
            transfer.write_pieces(workdir, kept, state, new, piece_bytes, limit_bytes, stem)
            _replace(new, output)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        logging.info("step %d is in %s", int(state.step), output)

    hooks = Hooks(
        deadline=deadline,
        compile_quickly=not autotune,
        least_crops=least_crops,
        export=export,
        export_minutes=export_minutes,
        wrap_step=wrap_step,
        tolerant=True,
    )
    for factor in (1.0, *_RETRIES):
        config["train"]["learning_rate"] = factor * peak[0]
        config["train"]["decoder_learning_rate"] = factor * peak[1]
        try:
            return int(loop.train(config, workdir, programs=programs, hooks=hooks).step)
        except OutOfTimeError:
            raise
        except TrainingError as error:
            if factor == _RETRIES[-1] or time.monotonic() > deadline:
                raise
            logging.warning("%s Once more from the last checkpoint, with a lower rate.", error)
            shutil.rmtree(workdir / "checkpoints_failed", ignore_errors=True)
    raise AssertionError("not reached")


def carried_config(
    package: str | Path, config: dict[str, Any], minutes: float, export_minutes: float = 2.0
) -> dict[str, Any]:
    """The config of a run on a package.

    Args:
        package: Of photographs; several with commas in between.
        config: A whole one. Its schedule becomes "time", its data the package. With
            `data.held_back` 0 there is no validation. Where it does not say how many minutes lie
            between checkpoints and between validations, these are `export_minutes` and a quarter of
            `minutes`.
        minutes: Of the run.
        export_minutes: Between two exports.
    """
    config = overridden(config, ())
    packages = str(package).split(",")
    validation = packages if config["data"]["held_back"] else []
    config["data"] |= {
        "source": ",".join(f"package:{folder}:training" for folder in packages),
        "validation": ",".join(f"package:{folder}:validation" for folder in validation),
    }
    train = config["train"]
    train |= {"schedule": "time", "minutes": minutes}
    train["checkpoint_minutes"] = train["checkpoint_minutes"] or export_minutes
    train["eval_minutes"] = train["eval_minutes"] or minutes / 4
    return config


def _replace(new: Path, output: Path) -> None:
    """Puts the files of `new` into `output`, in place of those of an earlier export.

    An invariant: at every moment the manifest names pieces that are there. Pieces have the step in
    their names; the manifest changes after the new ones came, before the old ones go.
    """
    old = {path for path in output.glob("state.*") if not (new / path.name).exists()}
    for path in sorted(new.iterdir(), key=lambda path: path.name == "manifest.json"):
        path.replace(output / path.name)
    for path in old:
        path.unlink()


def _run(args: argparse.Namespace, started: float) -> None:
    args.output.mkdir(parents=True, exist_ok=True)
    log = logging.FileHandler(args.output / "log.txt")
    log.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger().addHandler(log)
    from llic_jax.system.memory import keep_freed_memory

    keep_freed_memory()
    from llic_jax.execution import program_cache

    program_cache.enable()
    pieces = args.files - _HISTORY_FILES
    programs = args.programs or _programs_in(args.package)
    piece = int(args.piece_mib * _MIB)
    try:
        step = run(
            args.package,
            resolve_config(args.config, args.set),
            args.output,
            args.minutes,
            started=started,
            workdir=args.workdir or Path(tempfile.mkdtemp(prefix="llic_run_")),
            start_from=args.start_from,
            piece_bytes=piece,
            limit_bytes=min(int(args.limit_mib * _MIB), pieces * piece),
            export_minutes=args.export_minutes,
            programs=programs if args.programs or programs.is_dir() else None,
            least_crops=args.least_crops,
            autotune=args.autotune,
        )
        logging.info("done: step %d, %.2f minutes", step, (time.monotonic() - started) / 60)
    except Exception:
        logging.exception("the run has ended early; %s holds the last export", args.output)
        raise
    finally:
        logging.getLogger().removeHandler(log)
        log.close()


def _programs_in(package: str) -> Path:
    """The programs that come with packages: with the first."""
    return Path(package.split(",")[0]) / _PROGRAMS


def _compile(args: argparse.Namespace) -> None:
    import jax

    from llic_jax.execution import ahead_of_time
    from llic_jax.training.carried_programs import save_programs

    config = carried_config(args.package, resolve_config(args.config, args.set), minutes=1.0)
    autotune = None
    if args.target:
        ahead_of_time.prepare_environment()
        autotune = ahead_of_time.AUTOTUNE / args.target
        devices = [ahead_of_time.target_device(args.target, autotune)]
    else:
        devices = jax.local_devices()
    save_programs(args.programs or _programs_in(args.package), config, devices, autotune)


def _pack(args: argparse.Namespace) -> None:
    from llic_jax.data.package import Encoding, write_package

    encoding = Encoding(args.format, args.quality, args.reduce, args.least)
    index = write_package(
        args.source,
        args.validation,
        args.package,
        int(args.mib * _MIB),
        int(args.piece_mib * _MIB),
        encoding,
        args.workers,
    )
    for part in ("training", "validation"):
        photos = [p for p in index["photographs"] if p["part"] == part]
        pixels = sum(p["width"] * p["height"] for p in photos) / 1e6
        size = sum(p["bytes"] for p in photos) / _MIB
        print(f"{part}: {len(photos)} photographs, {pixels:.1f} megapixels, {size:.1f} MiB")
    print(f"{len(index['files'])} files, {index['encoding']}; left out: {index['left_out']}")


def _files(text: str) -> int:
    """So many that a piece of the run fits beside its history."""
    value = int(text)
    if value <= _HISTORY_FILES:
        raise argparse.ArgumentTypeError(f"{value} is too few: {_HISTORY_FILES} hold the history")
    return value


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m llic_jax.accelerate", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="photographs to a PACKAGE")
    packing.add_argument("source", help="folders, with commas in between")
    packing.add_argument("package", type=Path)
    packing.add_argument(
        "--validation", default="", help="folders of photographs never to be trained on"
    )
    packing.add_argument("--mib", type=above_zero, default=50, help="of the package, at most")
    packing.add_argument(
        "--piece_mib", type=above_zero, default=15.5, help="of a file of it, at most"
    )
    packing.add_argument("--format", choices=("avif", "webp", "jpeg"), default="avif")
    packing.add_argument("--quality", type=positive, help="default: the best of which all fit")
    packing.add_argument("--reduce", type=above_zero, default=1.0, help="Lanczos factor")
    packing.add_argument("--least", type=positive, default=256, help="pixels of the shorter side")
    packing.add_argument("--workers", type=positive, default=2, help="processes")
    resolving = commands.add_parser("config", help="a config of Python to one of JSON")
    resolving.add_argument("config", type=Path)
    resolving.add_argument("json", type=Path)
    resolving.add_argument("set", nargs="*", help="section.field=VALUE")
    compiling = commands.add_parser("compile", help="a run's programs, into PACKAGE/programs")
    compiling.add_argument("package", help="of photographs; several with commas in between")
    compiling.add_argument("config", type=Path, help="JSON")
    compiling.add_argument("set", nargs="*", help="section.field=VALUE")
    compiling.add_argument("--target", choices=("h100", "h200"), help="default: what is there")
    compiling.add_argument("--programs", type=Path, help="another folder for the programs")
    running = commands.add_parser("run", help="train, within the given minutes")
    running.add_argument("package", help="of photographs; several with commas in between")
    running.add_argument("config", type=Path, help="JSON")
    running.add_argument("output", type=Path)
    running.add_argument("set", nargs="*", help="section.field=VALUE")
    running.add_argument("--minutes", type=above_zero, required=True, help="all included")
    running.add_argument("--start_from", type=Path, help="OUTPUT of an earlier run")
    running.add_argument("--programs", type=Path, help="default: PACKAGE/programs, if it is there")
    running.add_argument("--workdir", type=Path, help="default: a temporary folder")
    running.add_argument(
        "--least_crops", type=above_zero, default=0.0, help="a second: fewer end the run early"
    )
    running.add_argument(
        "--autotune", action="store_true", help="what is compiled on a GPU: minutes, maybe faster"
    )
    running.add_argument("--export_minutes", type=above_zero, default=2.0)
    running.add_argument("--piece_mib", type=above_zero, default=15.5, help="of a file, at most")
    running.add_argument("--limit_mib", type=above_zero, default=60, help="of all pieces, at most")
    running.add_argument("--files", type=_files, default=8, help="in OUTPUT, at most")
    unpacking = commands.add_parser("unpack", help="OUTPUT of a run to a RUN folder")
    unpacking.add_argument("output", type=Path)
    unpacking.add_argument("run", type=Path)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one of the commands: pack, config, compile, run, unpack.

    Args:
        argv: The command line; that of the process by default.

    Returns:
        The exit status.
    """
    started = time.monotonic()
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    for talkative in ("absl", "jax"):
        logging.getLogger(talkative).setLevel(logging.WARNING)

    def work() -> None:
        if args.command == "pack":
            _pack(args)
        elif args.command == "config":
            write_json(args.json, resolve_config(args.config, args.set))
        elif args.command == "compile":
            _compile(args)
        elif args.command == "run":
            _run(args, started)
        else:
            from llic_jax.training.transfer import unpack

            print(f"{args.run}: step {unpack(args.output, args.run)}")

    return run_command("llic_jax.accelerate", work)


def _leave(code: int) -> None:
    """Ends the process, also while XLA compiles in a thread: nothing can interrupt that."""
    logging.shutdown()
    trainer = sys.modules.get("llic_jax.training.trainer")  # loaded by `run` alone
    if trainer and any(thread.name == trainer.COMPILING for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _leave(main())
