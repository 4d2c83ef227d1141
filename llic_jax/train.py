"""Trains a codec: `python -m llic_jax.train --config llic_elic_small --workdir RUN`.

A config is a file, or the name of one of the package's own (`llic_jax/configs`).
"""

import logging
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

import llic_jax.configs
from llic_jax.configs.rules import RULES, unknown_field
from llic_jax.configs.upgrade import RENAMED
from llic_jax.errors import LlicError
from llic_jax.system.streams import run_command, unbreakable

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The config: a file, or a name of the package's."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs; goes on from it.")
_MAX_MINUTES = flags.DEFINE_float("max_minutes", None, "Save and end after so many minutes.")
_COMPILE_ONLY = flags.DEFINE_bool(
    "compile_only", False, "Compile what the run needs, into the program cache or --programs; end."
)
_TARGET = flags.DEFINE_enum(
    "target", None, ["h100", "h200"], "With --compile_only: a GPU that is absent. Needs --programs."
)
_PROGRAMS = flags.DEFINE_string(
    "programs", None, "Folder of compiled steps: used where they fit; with --compile_only, written."
)
_FROM_STEP = flags.DEFINE_integer("from_step", None, "Go on from this checkpoint, not the last.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, for several hosts."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes train together.")
_PROCESS = flags.DEFINE_integer("process", None, "Number of this one, from 0.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Several hosts that find each other (TPU).")
flags.mark_flag_as_required("config")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line, for `app.run`: what is wrong with it is told in one line.

    Fields of a config by the names that they had in older versions are accepted, with a warning.

    Args:
        argv: The command line, with the program's name.

    Returns:
        The arguments that are no flags.
    """
    argv = [argv[0], *map(_renamed, argv[1:])]
    for i, argument in enumerate(argv):
        if argument in ("--config", "-config") and i + 1 < len(argv):
            argv[i + 1] = _config_file(argv[i + 1])
        elif argument.startswith(("--config=", "-config=")):
            argv[i] = f"--config={_config_file(argument.partition('=')[2])}"
    sys.argv[:] = argv  # where a config file looks for its overrides
    try:
        with unbreakable():  # --help ends in a pager or in `head`
            return flags.FLAGS(argv)
    except Exception as error:  # absl's own errors, and whatever a config's overrides raise
        cause = error.__cause__ or error.__context__
        text = " ".join(str(error).split())
        if not isinstance(error, flags.Error):
            text = _config_error(argv, text or repr(cause))
        print(f"train.py: {text}", file=sys.stderr)
        sys.exit(1)


def _renamed(argument: str) -> str:
    prefix, equals, value = argument.partition("=")
    for old, new in RENAMED.items():
        if prefix.lstrip("-") == f"config.{old}":
            print(f"train.py: {old} is {new} now.", file=sys.stderr)
            return f"--config.{new}{equals}{value}"
    return argument


def _config_file(name: str) -> str:
    """The file of a config: that of the package where there is no file of this name."""
    own = Path(llic_jax.configs.__file__).with_name(f"{Path(name).stem}.py")
    return str(own) if own.exists() and not Path(name).exists() else name


def _config_error(argv: list[str], text: str) -> str:
    """Names the first field of the command line that no config has."""
    for argument in argv:
        name = argument.partition("=")[0].lstrip("-")
        if name.startswith("config.") and name.removeprefix("config.") not in RULES:
            return unknown_field(name.removeprefix("config."))
    return f"the config cannot be read: {text}"


def main(argv: list[str]) -> int:
    """Trains, or compiles what the training needs.

    Args:
        argv: The arguments that are no flags.

    Returns:
        The exit status.

    Raises:
        app.UsageError: Flags that do not go together.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    if not (_WORKDIR.value or _COMPILE_ONLY.value):
        raise app.UsageError("--workdir is needed: the folder of checkpoints and logs.")
    if _TARGET.value and not (_COMPILE_ONLY.value and _PROGRAMS.value):
        raise app.UsageError("--target needs --compile_only and --programs, a folder to write to.")
    return run_command("train.py", _train)


def _train() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    for talkative in ("absl", "jax"):  # orbax tells every file that it opens
        logging.getLogger(talkative).setLevel(logging.WARNING)
    from llic_jax.system.memory import keep_freed_memory

    keep_freed_memory()
    import jax

    from llic_jax.execution import program_cache
    from llic_jax.training.loop import train

    if _DISTRIBUTED.value or _COORDINATOR.value:
        jax.distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if _COMPILE_ONLY.value:
        _compile()
        return
    program_cache.enable()
    workdir, programs = str(_WORKDIR.value), _PROGRAMS.value
    train(_CONFIG.value, workdir, _MAX_MINUTES.value, _FROM_STEP.value, programs)


def _compile() -> None:
    """Compiles what the run needs, into a folder of programs or JAX's compilation cache."""
    import jax

    from llic_jax.execution import ahead_of_time, program_cache
    from llic_jax.training import carried_programs
    from llic_jax.training.settings import RunSettings

    autotune = ahead_of_time.AUTOTUNE / _TARGET.value if _TARGET.value else None
    if _TARGET.value:
        ahead_of_time.prepare_environment()
        devices = [ahead_of_time.target_device(_TARGET.value, autotune)]
    else:
        devices = jax.local_devices()
    if _PROGRAMS.value:
        folder = Path(_PROGRAMS.value).expanduser()
        carried_programs.save_programs(folder, _CONFIG.value, devices, autotune)
    else:
        program_cache.enable()
        if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
            raise LlicError(
                f"JAX {jax.__version__} keeps no compilation cache here, so that what is compiled "
                "would be lost. Name a folder to write to: --programs FOLDER."
            )
        carried_programs.compile_steps(RunSettings.of(_CONFIG.value), devices)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
