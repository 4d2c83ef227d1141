"""What the subcommands of `llic` share."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llic_jax.cli.main import check_devices
from llic_jax.errors import LlicError
from llic_jax.system import files

if TYPE_CHECKING:
    from llic_jax.codec.codec import Codec


def open_codec(args: argparse.Namespace, coder: str | None = None) -> "Codec":
    """The codec that the command line names."""
    from llic_jax.execution import program_cache
    from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec

    program_cache.enable()
    check_devices()
    codec = load_codec(args.checkpoint or DEFAULT_FOLDER, coder, args.memory_gb)
    codec.max_pixels = args.max_pixels or codec.max_pixels
    return codec


def rounded_size(size: Callable[[Path], tuple[int, int]]) -> Callable[[Path], tuple[int, int]]:
    """The size of a file's image, (width, height), as the networks see it."""
    from llic_jax.ops.sizes import DOWNSAMPLING

    def rounded(path: Path) -> tuple[int, int]:
        if path is files.STANDARD or files.is_stream(path):
            raise LlicError("a stream is read once")  # so it makes a batch of its own
        width, height = (-(-side // DOWNSAMPLING) for side in size(path))
        return width, height

    return rounded


def elapsed(started: float, count: int) -> str:
    """A line's end: how long it took, if several files took it together."""
    together = f" ({count} together)" if count > 1 else ""
    return f"  {time.perf_counter() - started:.2f} s{together}"
