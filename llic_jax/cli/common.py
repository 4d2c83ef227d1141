"""What the subcommands of `llic` share."""

import argparse
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llic_jax.errors import LlicError
from llic_jax.system import files

if TYPE_CHECKING:
    from llic_jax.codec.codec import Codec
    from llic_jax.codec.model import Limits
    from llic_jax.zoo.library import ModelLibrary


LOG = logging.getLogger("llic_jax")
_PATIENCE = 1.0  # seconds of compiling without a word
_compiling: "Compiling | None" = None


def open_codec(args: argparse.Namespace, coder: str | None = None) -> "Codec":
    """Loads the codec that the command line names.

    Args:
        args: With `checkpoint`, `memory_gb` and `max_pixels`.
        coder: The range coder to write with; the first that is installed by default.

    Raises:
        LlicError: JAX finds no device, or the folder holds no released model.
    """
    from llic_jax.zoo.folder import load_codec
    from llic_jax.zoo.registry import name_of

    prepare(args)
    codec = load_codec(args.checkpoint, coder, _limits(args))
    fingerprint = codec.fingerprint.hex()
    LOG.info("model %s (%s), range coder %s", name_of(fingerprint), fingerprint, codec.coder)
    return codec


def open_library(args: argparse.Namespace) -> "ModelLibrary":
    """The installed models, or the one that the command line names.

    Args:
        args: As for `open_codec`.

    Raises:
        LlicError: As `open_codec`.
    """
    from llic_jax.zoo.folder import load_codec
    from llic_jax.zoo.library import ModelLibrary

    if args.checkpoint is not None:
        return ModelLibrary(only=open_codec(args))
    prepare(args)
    return ModelLibrary(lambda folder: load_codec(folder, limits=_limits(args)))


def _limits(args: argparse.Namespace) -> "Limits":
    from llic_jax.codec.model import USUAL, Limits

    return Limits(args.max_pixels or USUAL.max_pixels, args.memory_gb)


def prepare(args: argparse.Namespace) -> None:
    """Makes the process ready to code: programs are kept, a device is there, long waits are said.

    Args:
        args: With `loudness`.

    Raises:
        LlicError: JAX finds no device.
    """
    import jax

    from llic_jax.execution import program_cache

    program_cache.enable()
    check_devices()
    folder = program_cache.folder()
    LOG.info("device %s; programs are kept in %s", jax.devices()[0], folder or "memory only")
    if args.loudness >= 0:
        global _compiling
        if _compiling is None:
            _compiling = Compiling(f"kept in {folder}" if folder else "kept for this run only")
            program_cache.on_compile(_compiling)


class Compiling:
    """Says that programs are compiled, as soon as one takes longer than a second.

    A line says it once; where there is a terminal, programs are counted.

    Args:
        kept: What becomes of them, in words.
    """

    def __init__(self, kept: str):
        self.kept = kept
        self._lock, self._running, self._count = threading.Lock(), 0, 0
        self._timer: threading.Timer | None = None
        self._said = False
        self._bar: Any = None

    def __call__(self, begins: bool) -> None:
        """Notes that the compiling of a program begins or ends."""
        with self._lock:
            self._running += 1 if begins else -1
            if begins and self._running == 1:
                self._timer = threading.Timer(_PATIENCE, self._say)
                self._timer.daemon = True
                self._timer.start()
            self._count += not begins
            if not self._running:
                assert self._timer is not None
                self._timer.cancel()
                if self._bar is not None:
                    self._bar.close()
                    self._bar = None

    def _say(self) -> None:
        from tqdm import tqdm

        with self._lock:
            if not self._running:
                return
            if not self._said:
                tqdm.write(
                    "llic: compiling programs for images of this size, which takes ten seconds "
                    f"to a minute; they are {self.kept}",
                    file=sys.stderr,
                )
            self._said = True
            said = f"compiling program {self._count + 1}, {{elapsed}}"
            self._bar = tqdm(bar_format=said, leave=False, disable=None)


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


def check_output(output: str | None) -> None:
    """Checks that no image would be printed on a terminal.

    Args:
        output: As `split_names` gives it.

    Raises:
        LlicError: Standard output is the output, and a terminal.
    """
    if output == "-" and sys.stdout.isatty():
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
