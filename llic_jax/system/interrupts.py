"""Ctrl-C while the modules of a command load, and while a search goes on.

Python's own answer to the former is a traceback of its imports. Other programs just end.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


def end_at_once() -> None:
    """Makes Ctrl-C end the process without a word, until `raise_again`.

    For the first line of a script, before its imports. Does nothing where Ctrl-C is ignored, as in
    a job that a shell put into the background.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_again() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt again, if `end_at_once` changed that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Search:
    """A search that Ctrl-C ends with the best that it has found.

    Attributes:
        begun: Set by the search when it has something to keep. Before that Ctrl-C raises
            KeyboardInterrupt as ever.
        ended: Set by the first Ctrl-C after that. The second one raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def answers_interrupts(self) -> Iterator[None]:
        """Ctrl-C goes to the search; outside the main thread, or where it is ignored, as ever."""

        def answer(number: int, frame: FrameType | None) -> None:
            if not self.begun.is_set() or self.ended.is_set():
                raise KeyboardInterrupt
            self.ended.set()

        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, answer)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
