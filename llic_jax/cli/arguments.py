"""What the subcommands make of their arguments: names of files, spelling, completion.

Loads neither JAX nor NumPy.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llic_jax.errors import LlicError
from llic_jax.system import files


def underscored(argv: Sequence[str]) -> list[str]:
    """The arguments with options spelt as the parser has them: `--target-bpp` is `--target_bpp`."""
    options = True
    spelt = []
    for argument in argv:
        options = options and argument != "--"
        if options and argument.startswith("--"):
            name, equals, value = argument.partition("=")
            argument = f"--{name[2:].replace('-', '_')}{equals}{value}"
        spelt.append(argument)
    return spelt


def split_names(
    names: Sequence[str], output: str | None, is_kind: Callable[[str], bool]
) -> tuple[list[Path], str | None]:
    """Tells inputs from the output.

    Args:
        names: As they were given.
        output: Named by an option; without it the last of several names is the output, unless it is
            a file to work on.
        is_kind: Whether a suffix is that of files to work on.

    Returns:
        The inputs; the output, None for files beside their inputs.
    """
    paths = [files.path_argument(name) for name in names]
    last = paths[-1]
    if output is None and len(names) > 1 and not (is_kind(last.suffix) and last.is_file()):
        return paths[:-1], names[-1]
    if output is None and paths == [files.STANDARD]:
        output = "-"
    return paths, output


class PrintCompletion(argparse.Action):
    """Prints a script that completes the command line in a shell, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, __: Any = None) -> None:
        try:
            import shtab
        except ModuleNotFoundError as error:
            raise LlicError("Completion needs shtab: `pip install shtab` brings it.") from error
        _complete_files(parser, shtab.FILE)
        print(shtab.complete(parser, shell))
        parser.exit()


def _complete_files(parser: argparse.ArgumentParser, how: Any) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, how)
        elif action.metavar in ("FILE", "FOLDER", "MODEL", "CLONE"):
            action.complete = how  # type: ignore[attr-defined]
