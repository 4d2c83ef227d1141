"""Standard output and error of a command that must finish although nobody reads them.

`command | head -1` closes the pipe after a line, and `command 2>&-` starts without standard error.
Both are about what is shown, not about the files that the command is asked to make.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


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
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        # The descriptor itself: what is still buffered is flushed once more when Python exits.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def unbreakable() -> Iterator[None]:
    """Makes `sys.stdout` and `sys.stderr` swallow broken pipes, and opens those that are closed.

    For the main thread of a command line, around everything that it does.
    """
    before = sys.stdout, sys.stderr
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # For good: a file that is opened later must not get this descriptor.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    opened = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Unbreakable(stream) for stream in opened)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = (b or o for b, o in zip(before, opened, strict=True))
