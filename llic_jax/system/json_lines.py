"""Files of JSON lines: one object a line, read up to the last whole line, appended whole.

A process can be killed, or a disk can fill, while a line is written. The unfinished line is
ignored by `read` and removed by `repair`, so that the next line never continues it.
"""

import contextlib
import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llic_jax.errors import JsonLinesError


def read(path: str | Path, skip_damaged: bool = False) -> list[dict[str, Any]]:
    """Reads every whole line of a file.

    Args:
      path: The file. An unfinished last line is ignored.
      skip_damaged: Leaves damaged lines out, with a warning, in place of an error: for figures that
        are looked at only.

    Returns:
      One dictionary a line, in order.

    Raises:
      JsonLinesError: A whole line is not UTF-8, not JSON, or no object. The message has its number.
      OSError: The file cannot be read.
    """
    entries = []
    for number, line in enumerate(_whole_lines(Path(path).read_bytes()).splitlines(), 1):
        try:
            entries.append(_parse(line, f"{path}, line {number}, is no JSON"))
        except JsonLinesError as error:
            if not skip_damaged:
                raise
            logging.warning("Left out: %s", error)
    return entries


def _parse(line: bytes, complaint: str) -> dict[str, Any]:
    try:
        entry = json.loads(line.decode())
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
        raise JsonLinesError(f"{complaint}: {error}.") from error
    if not isinstance(entry, dict):
        raise JsonLinesError(f"{complaint} object.")
    return entry


def repair(path: str | Path) -> None:
    """Removes an unfinished last line, in place. A file that does not exist stays so.

    Args:
      path: The file.
    """
    path = Path(path)
    if path.is_file():
        data = path.read_bytes()
        whole = len(_whole_lines(data))
        if whole < len(data):
            os.truncate(path, whole)


def append(path: str | Path, entry: Mapping[str, Any]) -> None:
    """Appends one line, or leaves the file as it was.

    Args:
      path: The file, made if need be. Call `repair` before the first line.
      entry: The object. It must not hold numbers that are not finite: these are no JSON.

    Raises:
      OSError: The line could not be written.
      ValueError: A number in `entry` is not finite.
    """
    line = (json.dumps(entry, allow_nan=False) + "\n").encode()
    # Unbuffered: a buffer would be written again, in part, when the file is closed.
    with Path(path).open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            error.filename = str(path)
            with contextlib.suppress(OSError):  # would hide the error that is on its way
                file.truncate(before)
            raise


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]
