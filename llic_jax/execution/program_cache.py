"""Compiled programs on disk and in memory: a second start with the same sizes compiles nothing.

JAX's own persistent cache saves compiling only: a program is traced and lowered before it can be
looked up, which takes longer than to code a photograph. So `cached_jit` stores whole executables as
well. Their key holds all that they depend on: the function's identity and arguments, the device,
this package's source code, the versions of JAX, and the processor.

`jax.export` with JAX's cache would need no executables of our own. But an exported program is
lowered again before it is looked up, and what JAX stores has no checksum.

A stored program is executable code. It is read only from a folder that nobody else can write to,
and only if its checksum is right.

JAX before 0.6.2 loses a loop when it loads a CPU's program from disk, if the number of its rounds
is not known when it is compiled (`lax.while_loop`): the loop runs no round, and nothing is said. So
on these versions JAX's own cache, which would hold any program of the process, is left as it is,
and a program with such a loop is not stored. This package's programs have none.
"""

import collections
import contextlib
import functools
import hashlib
import inspect
import logging
import math
import os
import pickle
import platform
import stat
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from llic_jax.execution.placement import committed, computing_on, default_device
from llic_jax.system.files import user_cache_folder, whole_file

_LOADS_LOOPS = (0, 6, 2)  # the first JAX that does
_folder: Path | None = None  # of stored programs
_MAX_BYTES = 1 << 30  # on disk; a codec has some sixty programs for a size of images, 10 MB
_MAX_SIZES = 6  # in memory, of each function; a portrait and a landscape are two
_CHECKSUM_BYTES = 32

_listeners: list[Callable[[bool], None]] = []  # see `on_compile`

# A lock for each program that is being made: threads that need the same one make it once.
_locks: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()
_locks_lock = threading.Lock()


def enable() -> None:
    """Stores programs in JAX_COMPILATION_CACHE_DIR, or else below the user's cache folder.

    An empty JAX_COMPILATION_CACHE_DIR switches this off. Without a folder, nothing is stored. For
    the main thread of a command: it changes settings of JAX for all of the process.
    """
    global _folder
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None:
        home = user_cache_folder()
        if home is None:
            return
        chosen = str(home / "compiled")
        with contextlib.suppress(OSError):
            Path(chosen).mkdir(mode=0o700, parents=True, exist_ok=True)
    if not chosen:
        return
    if _loads_loops():
        enable_jax_cache(chosen)
    _folder = Path(chosen) / "whole"


def enable_jax_cache(folder: str) -> None:
    """Switches JAX's own cache on, for all programs of this process.

    Args:
        folder: Where it lies.
    """
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # JAX warns of every program that it cannot write.
    writable = os.access(folder, os.W_OK) or not Path(folder).exists()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1 if writable else math.inf)
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")


def _loads_loops() -> bool:
    """Whether this JAX loads programs from disk with all their loops."""
    return jax.__version_info__ >= _LOADS_LOOPS


def folder() -> Path | None:
    """Where programs are stored; None where they are not."""
    return None if _folder is None else _folder.parent


def on_compile(listener: Callable[[bool], None]) -> None:
    """Tells a command that it takes long because programs are compiled.

    Args:
        listener: Called when the compiling of a program begins (True) and ends (False), in whatever
            thread.
    """
    _listeners.append(listener)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    for listener in _listeners:
        listener(True)
    try:
        yield
    finally:
        for listener in _listeners:
            listener(False)


def enable_by_default() -> None:
    """As `enable`, unless this process has chosen a compilation cache of its own, or none."""
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if _folder is None and chosen == os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        enable()


class _Size(NamedTuple):
    """The programs of one function for one size of images.

    Attributes:
        jitted: `jax.jit` of the function for this size alone; freed with its programs.
        programs: By arguments; they are called with all arguments but the static ones.
    """

    jitted: Callable
    programs: dict[Any, Callable]


class cached_jit:  # noqa: N801 (it stands in for jax.jit)
    """`jax.jit` whose programs are stored on disk once `enable` was called.

    Takes arrays, and trees of them, by position. A program computes on the device that arguments
    are committed to, else on the default one; parameters (any dictionary) follow. Arguments on
    several devices are left to `jax.jit`. The programs of the `_MAX_SIZES` sizes of images that
    were used last stay in memory.

    Args:
        function: A pure function.
        identity: Stands for everything that the function's programs depend on beside its name, its
            arguments and this package's source code; for parameters (any dictionary) as well. None:
            they are not stored.
        static_argnums: As for `jax.jit`.
    """

    def __init__(
        self, function: Callable, identity: str | None = "", static_argnums: tuple[int, ...] = ()
    ):
        self.function, self.name = function, f"{function.__module__}.{function.__qualname__}"
        self.identity, self.static = identity, static_argnums
        self._inner = jax.jit(function, static_argnums=static_argnums)
        self._sizes: collections.OrderedDict[Any, _Size] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __get__(self, instance: Any, owner: type | None = None) -> Callable:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any) -> Any:
        no_jit = jax.config.jax_disable_jit  # type: ignore[attr-defined]
        static = tuple(args[i] for i in self.static)
        rest = tuple(arg for i, arg in enumerate(args) if i not in self.static)
        # Parameters are as the identity has them; there are too many to look at in every call.
        leaves, tree = jax.tree.flatten([arg for arg in rest if not isinstance(arg, dict)])
        if no_jit or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self._inner(*args)  # a part of another program
        devices = {d for leaf in leaves if committed(leaf) for d in leaf.devices()}
        if len(devices) > 1:
            return self._inner(*args)
        (device,) = devices or (default_device(),)
        shapes = tuple((x.shape, x.dtype) for x in leaves)
        with computing_on(device):
            result = self._run((static, tree, shapes, str(device)), device, args, rest)
        # As JAX has it: results stay where arguments have to stay.
        return jax.device_put(result, device) if devices else result

    def _run(
        self, key: Any, device: jax.Device, args: tuple[Any, ...], rest: tuple[Any, ...]
    ) -> Any:
        """What the program of this key returns; it is made if there is none yet."""
        size = self._size(key[2])
        if (program := size.programs.get(key)) is not None:
            return program(*rest)
        store = _folder is not None and self.identity is not None
        digest = self._digest(key) if store else None
        with _lock_of(digest or (id(size.programs), key)):
            program = size.programs.get(key)
            if program is not None:
                return program(*rest)
            if digest:
                program = self._stored(digest, args, device)
                result = program(*rest)
            else:
                program = self._jitted(size, args)
                with _told():
                    result = program(*rest)  # `jax.jit` compiles in its first call
            size.programs[key] = program
        return result

    def count(self) -> int:
        """Number of programs in memory."""
        return sum(len(size.programs) for size in self._sizes.values())

    def _size(self, shapes: tuple[Any, ...]) -> _Size:
        """The programs for the height and width of the first array that has them."""
        at = next((shape[1:3] for shape, _ in shapes if len(shape) == 4), shapes)
        with self._lock:
            if at not in self._sizes:
                self._sizes[at] = _Size(_independent_jit(self.function, self.static), {})
            self._sizes.move_to_end(at)
            while len(self._sizes) > _MAX_SIZES:
                self._sizes.popitem(last=False)
            return self._sizes[at]

    def _digest(self, key: Any) -> str:
        text = "\n".join((self.name, self.identity or "", repr(key), _environment_key()))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _jitted(self, size: _Size, args: tuple[Any, ...]) -> Callable:
        """`size.jitted` as a function of the arguments that are not static."""
        static = {i: args[i] for i in self.static}

        def program(*rest: Any) -> Any:
            dynamic = iter(rest)
            count = len(rest) + len(static)
            return size.jitted(*(static[i] if i in static else next(dynamic) for i in range(count)))

        return program if static else size.jitted

    def _stored(self, digest: str, args: tuple[Any, ...], device: jax.Device) -> Callable:
        """The program from disk; or else compiled, and stored if that is possible."""
        assert _folder is not None
        path = _folder / f"{self.function.__name__}-{digest}"
        if not _private(_folder):
            return self._compile(args, digest)
        program = _read(path, device)
        if program is None:
            program = self._compile(args, digest)
            if _loads_loops() or not has_open_loop(program):
                _write(path, program)
        return program

    def _compile(self, args: tuple[Any, ...], digest: str) -> Any:
        """Compiles without JAX's persistent cache.

        An executable that was loaded from it cannot be serialized again. Under this name JAX's
        cache has none, as it is kept from storing it.
        """
        jitted = _independent_jit(self.function, self.static, f"{self.function.__name__}_{digest}")
        # Without values: a program made of committed arrays would commit its results for ever.
        shapes = [
            arg if i in self.static else jax.tree.map(_shape, arg) for i, arg in enumerate(args)
        ]
        with _told(), _kept_from_jax_cache():
            return jitted.lower(*shapes).compile()


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _independent_jit(function: Callable, static: tuple[int, ...], name: str = "") -> Any:
    """`jax.jit` that shares nothing with others of its function; its programs are freed with it."""

    def independent(*args: Any) -> Any:
        return function(*args)

    independent.__name__ = name or function.__name__
    return jax.jit(independent, static_argnums=static)


def _lock_of(program: Any) -> Any:
    with _locks_lock:
        return _locks.setdefault(program, threading.Lock())


@contextlib.contextmanager
def _kept_from_jax_cache() -> Iterator[None]:
    """Keeps JAX from storing what this thread compiles.

    `jax.config.update` would change the setting for all threads, and JAX has no public way to
    change it for one.
    """
    try:
        from jax._src.config import persistent_cache_min_compile_time_secs as least_seconds
    except ImportError:  # JAX then stores it too, and `_write` finds out what cannot be stored
        yield
        return
    with least_seconds(math.inf):
        yield


def _private(folder: Path) -> bool:
    """Whether nobody but this user, root, and whoever installed this package can write to a folder.

    A folder that does not exist is made for its owner alone.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return True  # Windows: the user's profile is the user's own
    trusted = {os.getuid(), 0, Path(__file__).stat().st_uid}
    for place in (folder, folder.parent):
        status = place.stat()
        # In a folder with the sticky bit others can add files, but cannot replace this one.
        shared = place == folder.parent and status.st_mode & stat.S_ISVTX
        if status.st_uid not in trusted or (status.st_mode & 0o022 and not shared):
            _warn_of(place)
            return False
    return True


@functools.cache
def _warn_of(folder: Path) -> None:
    logging.warning(
        "Compiled programs in %s are not used, as others can write there. Take that right from "
        "them (chmod go-w), or choose another folder by JAX_COMPILATION_CACHE_DIR.",
        folder,
    )


def has_open_loop(program: Any) -> bool:
    """Whether a compiled program has a loop whose number of rounds was not known to the compiler.

    Args:
        program: From `jax.jit(...).lower(...).compile()`.
    """
    lines = program.as_text().splitlines()
    return any(" while(" in line and "known_trip_count" not in line for line in lines)


def _read(path: Path, device: jax.Device) -> Any:
    """A stored program of a device; None if there is none that is sound."""
    from jax.experimental.serialize_executable import deserialize_and_load

    # Whatever is wrong with what lies there, compiling always works.
    with contextlib.suppress(Exception):
        data = path.read_bytes()
        checksum, content = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
        if hashlib.sha256(content).digest() != checksum:
            return None
        where: dict[str, Any] = {"backend": device.client}
        # Newer versions of JAX take all devices of the process, unless they are told.
        if "execution_devices" in inspect.signature(deserialize_and_load).parameters:
            where["execution_devices"] = [device]
        program = deserialize_and_load(*pickle.loads(content), **where)
        with contextlib.suppress(OSError):  # a cache that may only be read
            path.touch()
        return program
    return None


def _write(path: Path, program: Any) -> None:
    """Stores a program, if that is possible."""
    from jax.experimental import serialize_executable

    with contextlib.suppress(Exception):
        content = pickle.dumps(serialize_executable.serialize(program))
        with whole_file(path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
        _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Removes the programs that were used longest ago, as far as all together take too much."""
    total = 0
    programs = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in sorted(programs, key=lambda path: path.stat().st_mtime, reverse=True):
        total += path.stat().st_size
        if total > _MAX_BYTES:
            path.unlink(missing_ok=True)


@functools.cache
def _environment_key() -> str:
    """What a program depends on that is the same for all of this process."""
    import jaxlib

    from llic_jax.native import library as native

    kernel = native.enabled()  # which also makes it known to XLA, as programs that call it need
    sources = source_hash("*.py", "*.so")
    variables = "XLA_FLAGS", "LLIC_PALLAS", "LLIC_PALLAS_FUSED"
    flags = [f"{name}={os.environ.get(name)}" for name in variables]
    names = "jax_enable_x64", "jax_default_matmul_precision"
    settings = [jax.config.values[name] for name in names]
    devices = [f"{d.platform} {d.device_kind}" for d in jax.devices()]
    versions = jax.__version__, jaxlib.__version__, platform.platform(), processor()
    return repr((*versions, sources, flags, settings, devices, kernel))


def source_hash(*patterns: str) -> str:
    """Hashes this package's files.

    Args:
        *patterns: Of their names, e.g. "*.py".

    Returns:
        SHA-256, hexadecimal.
    """
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in package.rglob(pattern)):
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def processor() -> str:
    """What the processor is able to do, where the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()
