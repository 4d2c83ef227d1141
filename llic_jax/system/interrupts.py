"""Ctrl-C while the modules of a command load.

Python's own answer is a traceback of its imports. Other programs just end.
"""

import signal


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
