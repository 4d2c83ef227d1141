"""Numbers on a command line: what cannot be is bad usage, before any work."""

import argparse
import math


def positive(text: str) -> int:
    """An integer, 1 or more.

    Args:
        text: From the command line.

    Raises:
        ArgumentTypeError: It is less.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def not_negative(text: str) -> int:
    """An integer, 0 or more.

    Args:
        text: From the command line.

    Raises:
        ArgumentTypeError: It is less.
    """
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value


def effort(text: str) -> tuple[int, float]:
    """How long to search: steps ("60"), or a time ("30s").

    Args:
        text: From the command line.

    Returns:
        Steps, 0 for as many as the time allows; and seconds, infinite where steps are named.

    Raises:
        ArgumentTypeError: It is neither, or less than 0.
    """
    try:
        return (0, seconds(text[:-1])) if text.endswith("s") else (not_negative(text), math.inf)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no effort; name steps, such as 60, or a time, such as 30s"
        ) from error


def seconds(text: str) -> float:
    """A time, 0 or more.

    Args:
        text: From the command line.

    Raises:
        ArgumentTypeError: It is less, or no finite number.
    """
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no time of 0 seconds or more")
    return value


def above_zero(text: str) -> float:
    """A finite number above 0.

    Args:
        text: From the command line.

    Raises:
        ArgumentTypeError: It is none.
    """
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return value
