"""Standard output and error of a command that must finish although nobody reads them.

`command | head -1` closes the pipe after a line, and `command 2>&-` starts without standard error.
Both are about what is shown, not about the files that the command is asked to make.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from llic_jax.errors import LlicError
from llic_jax.system import interrupts


class _Unbreakable:
    """A text stream that discards everything after its reader has gone."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            # What is left in the buffer must not be tried again when Python ends.
            self._discard()
            if not isinstance(error, BrokenPipeError):  # a full disk
                raise

    def _discard(self) -> None:
        # The descriptor itself: libraries, and Python as it exits, use it without this object.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Closed(io.TextIOBase):
    """A standard stream that was closed before the command started: text goes nowhere."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        return len(text)

    def fileno(self) -> int:
        return self._descriptor

    @property
    def buffer(self) -> Any:
        """Raises OSError: data, unlike messages, must not be lost without a word."""
        raise OSError(errno.EBADF, "it is closed", "standard output")


@contextlib.contextmanager
def unbreakable() -> Iterator[None]:
    """Makes `sys.stdout` and `sys.stderr` swallow broken pipes, and opens those that are closed.

    For the main thread of a command line, around everything that it does.

    Raises:
        OSError: At the end, something could not be written for another reason: a disk is full.
    """
    before = sys.stdout, sys.stderr
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            _occupy(descriptor)
            if name != "stdin":  # stays None: nothing can be read
                setattr(sys, name, _Closed(descriptor))
    opened = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Unbreakable(stream) for stream in opened)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            sys.stdout, sys.stderr = (b or o for b, o in zip(before, opened, strict=True))


def _occupy(descriptor: int) -> None:
    """Takes a closed descriptor for good.

    A file that is opened later must not get it: what libraries write to standard error would go
    into that file.
    """
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


def run_command(name: str, work: Callable[[], int | None]) -> int:
    """Runs a command line that finishes although nobody reads what it shows.

    Args:
        name: Of the command; messages begin with it.
        work: What it does; returns the exit status, None for 0.

    Returns:
        The exit status: 1 for an error that a user can mend, told in one line; 130 for Ctrl-C.
    """
    try:
        interrupts.raise_again()
        with unbreakable():
            return work() or 0
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except OSError as error:
        described = error.strerror and not isinstance(error, LlicError)
        text = f"{error.filename}: {error.strerror}" if described and error.filename else str(error)
        message, status = text, 1
    except LlicError as error:
        message, status = str(error), 1
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"{name}: {message}", file=sys.stderr)
    return status
