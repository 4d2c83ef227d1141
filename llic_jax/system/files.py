"""Files, standard input and output, FIFOs: reading them, and writing them whole or not at all."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import select
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llic_jax.errors import LlicError

STANDARD = Path("-")  # this very object stands for standard input and standard output
_PATIENCE = 2.0  # seconds to wait for somebody who writes into a FIFO
_unfinished: set[Path] = set()
_swept: set[Path] = set()  # folders in which this process has looked for what others left
_TEMPORARY = re.compile(r"\.([0-9a-f]{8})-([0-9]+)-[0-9a-f]{16}\.part")
_LONGEST = 24 * 3600.0  # seconds that a file may take to be written, on a machine unknown to us


def print_any_name() -> None:
    """Lets names be printed that the terminal's encoding does not have, or that are no text."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def path_argument(text: str) -> Path:
    """A path on the command line: `-` is `STANDARD`, `./-` a file, `~` the home folder.

    Args:
        text: The argument.

    Raises:
        LlicError: The home folder is not known.
    """
    if text == "-":
        return STANDARD
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise LlicError(f"{text}: the home folder is not known; write the path out.") from error
    return path.absolute() if path == STANDARD else path


def read(source: Path) -> bytes:
    """The bytes of an input. Nobody may be writing into a FIFO: it is waited for, but not for ever.

    Args:
        source: A path, or `STANDARD`.

    Raises:
        OSError: It cannot be read.
        LlicError: A FIFO into which nobody writes; standard input is closed.
    """
    if source is STANDARD:
        if sys.stdin is None:
            raise LlicError("Standard input is closed; pipe a file into it.")
        return sys.stdin.buffer.read()
    if not stat.S_ISFIFO(source.stat().st_mode):
        return source.read_bytes()
    chunks: list[bytes] = []
    deadline = time.monotonic() + _PATIENCE
    descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                chunk = os.read(descriptor, 1 << 16)
            except BlockingIOError:  # a writer that has nothing yet
                select.select([descriptor], [], [])
                continue
            if chunk:
                chunks.append(chunk)
            elif chunks:
                return b"".join(chunks)
            elif time.monotonic() > deadline:
                raise LlicError(f"{source} is a FIFO into which nobody writes.")
            else:
                time.sleep(0.01)
    finally:
        os.close(descriptor)


def name_of(path: Path, standard: str) -> str:
    """How messages call a path.

    Args:
        path: Of a file, or `STANDARD`.
        standard: The name of `STANDARD`.
    """
    return standard if path is STANDARD else str(path)


def said(source: Path, error: Exception) -> str:
    """An error of one file as a line that names the file once.

    Args:
        source: The file, or `STANDARD`.
        error: What was raised.
    """
    name = name_of(source, "standard input")
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        if error.filename is not None and str(error.filename) != name:
            text = f"{error.filename}: {text}"
    elif not isinstance(error, LlicError):  # out of memory, mostly
        text = f"{type(error).__name__}: {text}"
    return text if text.startswith(name) else f"{name}: {text}"


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary file whose bytes get to `path` if the block succeeds, and vanish if not.

    A regular file appears at once and whole. A file that is replaced keeps its permissions; a
    symbolic link stays, and the file that it points to is replaced. FIFOs, devices and standard
    output (`STANDARD`) get the bytes when the block has ended.

    Args:
        path: The output.

    Yields:
        The temporary file's path: beside a regular output, or else in the folder for these.

    Raises:
        OSError: The output cannot be written.
    """
    stream = path is STANDARD or is_stream(Path(path))
    target = Path(path) if stream else Path(os.path.realpath(path))
    if not stream and target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    folder = Path(tempfile.gettempdir()) if stream else target.parent
    if folder not in _swept:
        _swept.add(folder)
        _sweep(folder)
    # A short name: the output's own may have as many bytes as a name can have.
    temporary = folder / f".{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.part"
    mode = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
    _unfinished.add(temporary)
    try:
        # The system applies the umask, which can be read only by setting it for all threads.
        os.close(os.open(temporary, mode, 0o600 if stream else 0o666))
        yield temporary
        if stream:
            _pour(temporary, path)
            return
        with contextlib.suppress(FileNotFoundError):
            before = target.stat()
            # Courtesies: a file may be another's, and not every file system has permissions.
            with contextlib.suppress(OSError):
                os.chown(temporary, before.st_uid, before.st_gid)
            with contextlib.suppress(OSError):
                temporary.chmod(stat.S_IMODE(before.st_mode))
        temporary.replace(target)
    except OSError as error:
        if error.filename is None:  # a write that failed: the system does not say of what
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # else it would hide the error that is on its way
            temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def _sweep(folder: Path) -> None:
    """Removes the temporary files of `whole_file` in a folder whose processes have ended.

    Process ids mean nothing on another machine or in another container that shares the folder: what
    was made there is removed when it is a day old.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    if match[1] == _machine():
                        left = not _is_running(int(match[2]))
                    else:
                        left = time.time() - entry.stat().st_mtime > _LONGEST
                    if left:
                        os.unlink(entry.path)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


@functools.cache
def _machine() -> str:
    """Eight digits for the machine and, on Linux, the container that process ids belong to."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def discard_unfinished() -> None:
    """Removes the temporary files of outputs that are being written, before the process ends."""
    for path in list(_unfinished):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Whether bytes are to be written into what is there: a FIFO, a device, an open descriptor.

    Args:
        path: Of an output.
    """
    try:
        kind = path.stat().st_mode
    except OSError:
        return False
    descriptor = os.path.realpath(path.parent).startswith(("/proc/", "/dev/fd"))
    named = path.parent == Path("/dev") and path.name in ("stdin", "stdout", "stderr")
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)) or descriptor or named


def _pour(temporary: Path, path: str | Path) -> None:
    with temporary.open("rb") as source:
        if path is STANDARD:
            try:
                shutil.copyfileobj(source, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                # What is left in the buffer must not be tried again when Python ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise
        else:
            with open(path, "wb") as target:
                shutil.copyfileobj(source, target)


def user_cache_folder() -> Path | None:
    """The package's folder for what can be made or fetched again, where the system keeps such.

    Returns:
        On Linux `$XDG_CACHE_HOME/llic_jax`, or `~/.cache/llic_jax`. None where no home folder is
        known, or where a carried run (`accelerate.py`) has no platformdirs.
    """
    try:
        from platformdirs import user_cache_path

        folder = user_cache_path("llic_jax", appauthor=False)
    except (ImportError, RuntimeError):
        return None
    return folder if folder.is_absolute() else None


def cache_folder() -> Path:
    """The folder of fetched data: LLIC_CACHE, else below the user's cache folder.

    Raises:
        LlicError: No home folder is known.
    """
    if "LLIC_CACHE" in os.environ:
        return Path(os.environ["LLIC_CACHE"])
    folder = user_cache_folder()
    if folder is None:
        raise LlicError("The home folder is not known; name one for data by LLIC_CACHE.")
    return folder


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Args:
        path: Of the file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file that every reader of JSON takes; whole or not at all.

    Args:
        path: Of the file.
        content: Without NaN and infinities.
    """
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
