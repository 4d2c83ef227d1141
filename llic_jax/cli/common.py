"""What the subcommands of `llic` share."""

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llic_jax.errors import LlicError
from llic_jax.system import files

if TYPE_CHECKING:
    from llic_jax.codec.codec import Codec
    from llic_jax.codec.model import Limits
    from llic_jax.zoo.library import ModelLibrary


def open_codec(args: argparse.Namespace, coder: str | None = None) -> "Codec":
    """Loads the codec that the command line names.

    Args:
        args: With `checkpoint`, `memory_gb` and `max_pixels`.
        coder: The range coder to write with; the first that is installed by default.

    Raises:
        LlicError: JAX finds no device, or the folder holds no released model.
    """
    from llic_jax.execution import program_cache
    from llic_jax.zoo.folder import load_codec

    program_cache.enable()
    check_devices()
    return load_codec(args.checkpoint, coder, _limits(args))


def open_library(args: argparse.Namespace) -> "ModelLibrary":
    """The installed models, or the one that the command line names.

    Args:
        args: As for `open_codec`.

    Raises:
        LlicError: As `open_codec`.
    """
    from llic_jax.execution import program_cache
    from llic_jax.zoo.folder import load_codec
    from llic_jax.zoo.library import ModelLibrary

    if args.checkpoint is not None:
        return ModelLibrary(only=open_codec(args))
    program_cache.enable()
    check_devices()
    return ModelLibrary(lambda folder: load_codec(folder, limits=_limits(args)))


def _limits(args: argparse.Namespace) -> "Limits":
    from llic_jax.codec.model import USUAL, Limits

    return Limits(args.max_pixels or USUAL.max_pixels, args.memory_gb)


def check_devices() -> None:
    """Raises LlicError if JAX finds no device."""
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        remedy = f"JAX_PLATFORMS is {platforms}; unset it, or install" if platforms else "Install"
        reason = str(error).splitlines()[0].rstrip(".")
        raise LlicError(
            f"JAX finds no device: {reason}. {remedy} what the device needs."
        ) from error


def check_output(args: argparse.Namespace) -> None:
    """Checks that no image would be printed on a terminal.

    Args:
        args: With `output`.

    Raises:
        LlicError: Standard output is the output, and a terminal.
    """
    if args.output == "-" and sys.stdout.isatty():
        raise LlicError("Standard output is a terminal; redirect it into a file or a pipe.")


def image_source(path: Path) -> Path | io.BufferedIOBase:
    """What to read an image from.

    Args:
        path: The input, or `STANDARD`.

    Returns:
        The path; or the bytes, where they can be read only once.
    """
    if path is files.STANDARD or files.is_stream(path):
        return io.BytesIO(files.read(path))
    return path


def rounded_size(size: Callable[[Path], tuple[int, int]]) -> Callable[[Path], tuple[int, int]]:
    """A function that gives the size of a file's image on the networks' grid.

    Args:
        size: Width and height of a file's image, pixels.

    Returns:
        The function: width and height in units of 64 pixels, rounded up. It raises LlicError for
        streams, which can be read only once.
    """
    from llic_jax.ops.sizes import HYPER_STRIDE, round_up

    def rounded(path: Path) -> tuple[int, int]:
        if path is files.STANDARD or files.is_stream(path):
            raise LlicError("a stream is read once")  # so it makes a batch of its own
        width, height = (round_up(side, HYPER_STRIDE) // HYPER_STRIDE for side in size(path))
        return width, height

    return rounded


def elapsed(started: float, count: int) -> str:
    """The end of a line: how long it took.

    Args:
        started: `time.perf_counter()` at the start.
        count: Files that took so long together.
    """
    together = f" ({count} together)" if count > 1 else ""
    return f"  {time.perf_counter() - started:.2f} s{together}"
