"""Compiled programs kept on disk: a second start with the same sizes compiles nothing.

JAX's own cache saves compiling, but a program is traced and lowered before it can be looked up
there, which takes longer than to code a photograph. So the codec's programs are kept whole as well
(`jit`), found by all that they depend on: the function's identity and arguments, the source code of
this package, the versions of JAX, and the processor.
"""

import contextlib
import functools
import hashlib
import math
import os
import pickle
import platform
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

_folder: Path | None = None  # of whole programs
_MOST_BYTES = 1 << 30  # of them; a codec has some sixty for a size of images, 10 MB


def enable() -> None:
    """Keeps them in JAX_COMPILATION_CACHE_DIR, or else below the user's cache folder.

    An empty JAX_COMPILATION_CACHE_DIR switches the cache off.
    """
    global _folder
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        chosen = str(Path(home) / "llic_jax" / "compiled")
    if chosen:
        jax.config.update("jax_compilation_cache_dir", chosen)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
        _folder = Path(chosen) / "whole"


class jit:  # noqa: N801 (it stands in for jax.jit)
    """`jax.jit` whose programs are kept on disk once `enable` was called. Takes arrays, and trees
    of them, by position.

    identity: stands for everything that the function's programs depend on beside its name, its
        arguments and this package's source code; for parameters (any dictionary) as well. None:
        they are not kept.
    """

    def __init__(
        self, function: Callable, identity: str | None = "", static_argnums: tuple[int, ...] = ()
    ):
        self.function, self.name = function, f"{function.__module__}.{function.__qualname__}"
        self.identity, self.static = identity, static_argnums
        self.jitted = jax.jit(function, static_argnums=static_argnums)
        self.programs: dict[Any, Callable] = {}

    def __get__(self, instance: Any, owner: type | None = None) -> Callable:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any) -> Any:
        no_jit = jax.config.jax_disable_jit  # type: ignore[attr-defined]
        if _folder is None or self.identity is None or no_jit:
            return self.jitted(*args)
        static = tuple(args[i] for i in self.static)
        rest = tuple(arg for i, arg in enumerate(args) if i not in self.static)
        # Parameters are as the identity has them; there are too many to look at in every call.
        leaves, tree = jax.tree.flatten([arg for arg in rest if not isinstance(arg, dict)])
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self.jitted(*args)  # a part of another program
        key = static, tree, tuple((x.shape, x.dtype) for x in leaves)
        if key not in self.programs:
            self.programs[key] = self._program(args, repr(key))
        return self.programs[key](*rest)

    def _program(self, args: tuple[Any, ...], key: str) -> Callable:
        from jax.experimental import serialize_executable

        assert _folder is not None
        said = "\n".join((self.name, self.identity or "", key, _surroundings()))
        digest = hashlib.sha256(said.encode()).hexdigest()[:32]
        path = _folder / f"{self.function.__name__}-{digest}"
        # Whatever is wrong with what lies there, or with writing it: compiling always works.
        with contextlib.suppress(Exception):
            program = serialize_executable.deserialize_and_load(*pickle.loads(path.read_bytes()))
            path.touch()
            return program
        program = self._compile(args)
        with contextlib.suppress(Exception):
            _folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_bytes(pickle.dumps(serialize_executable.serialize(program)))
            temporary.replace(path)
            _make_room(_folder)
        return program

    def _compile(self, args: tuple[Any, ...]) -> Any:
        """Past JAX's own cache: what comes out of it cannot be written whole again."""

        def fresh(*args: Any) -> Any:
            return self.function(*args)

        fresh.__name__ = f"{self.function.__name__}_{secrets.token_hex(8)}"  # unknown to the cache
        setting = "jax_persistent_cache_min_compile_time_secs"
        before = jax.config.values[setting]
        jax.config.update(setting, math.inf)
        try:
            return jax.jit(fresh, static_argnums=self.static).lower(*args).compile()
        finally:
            jax.config.update(setting, before)


def _make_room(folder: Path) -> None:
    """Removes the programs that were used longest ago, as far as all together take too much."""
    total = 0
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
        total += path.stat().st_size
        if total > _MOST_BYTES:
            path.unlink(missing_ok=True)


@functools.cache
def _surroundings() -> str:
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
    """A hash of this package's files of these patterns, hexadecimal."""
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
