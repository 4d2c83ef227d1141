"""The platform that layers are traced for.

Some layers are written differently for CPUs and for accelerators. `jax.default_backend()` names the
platform of this process, which is another one where a program is compiled ahead of time for a
device that is absent, or where arrays are placed elsewhere. JAX keeps traces and finds them again
by its mesh and its default device, so a trace for one platform is never used for another.
"""

import jax


def target_platform() -> str:
    """The platform of the computation that is being traced: "cpu", "gpu" or "tpu" (our choice).

    Returns:
        The platform of the devices of the current mesh, which `jax.pmap`, `jax.shard_map` and
        `jax.sharding.use_abstract_mesh` set; without one, that of `jax.default_device`; without
        either, that of the process. JAX before 0.8 does not tell the devices of a mesh.
    """
    current_mesh = getattr(jax.sharding, "get_abstract_mesh", None)  # since JAX 0.5.4
    device = getattr(current_mesh(), "abstract_device", None) if current_mesh else None
    if device is not None and device.platform:
        return device.platform
    default = jax.config.jax_default_device  # type: ignore[attr-defined]
    if default is None:
        return jax.default_backend()
    return default if isinstance(default, str) else default.platform
