"""Compiled programs kept on disk: a second start with the same sizes needs no compilation."""

import os
from pathlib import Path


def enable() -> None:
    """Keeps them in JAX_COMPILATION_CACHE_DIR, or else below the user's cache folder.

    An empty JAX_COMPILATION_CACHE_DIR switches the cache off.
    """
    import jax

    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        chosen = str(Path(home) / "llic_jax" / "compiled")
    if chosen:
        jax.config.update("jax_compilation_cache_dir", chosen)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
