"""Where arrays lie, and so where JAX computes.

JAX makes new arrays on its default device, and computes there unless an array is committed to
another one. `on_device_of` makes the device of given arrays the default one for a while: whatever
is computed with them, parameters too, is then on their device, and nothing moves between devices.
Layers are traced for the default device's platform as well (`layers/platform.py`).
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from llic_jax.errors import InputError


def default_device() -> jax.Device:
    """The device that new arrays are made on: `jax.default_device`, or else the first one."""
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    if chosen is None:
        return jax.local_devices()[0]
    return jax.local_devices(backend=chosen)[0] if isinstance(chosen, str) else chosen


def committed(x: Any) -> bool:
    """Whether this is a JAX array that was put onto its device, so that JAX keeps it there."""
    return isinstance(x, jax.Array) and x.committed


def device_of(arrays: Iterable[Any]) -> jax.Device | None:
    """The one device that all JAX arrays among these lie on, committed to it or not.

    Args:
        arrays: Of JAX, or anything else.

    Returns:
        None without a JAX array.

    Raises:
        InputError: They lie on several devices.
    """
    devices = {d: None for x in arrays if isinstance(x, jax.Array) for d in x.devices()}
    if len(devices) > 1:
        raise InputError(
            f"Found arrays on {len(devices)} devices ({', '.join(map(str, devices))}); expected "
            "all that goes through the networks together on one, whole. Move it there with "
            "jax.device_put(array, device), or code it apart."
        )
    return next(iter(devices), None)


@contextlib.contextmanager
def computing_on(device: jax.Device | None) -> Iterator[None]:
    """Has this thread compute, and make new arrays, on a device.

    Args:
        device: None for the default one.
    """
    # To set the device that is the default anyway would make JAX trace its programs again.
    if device is None or device == default_device():
        yield
    else:
        with jax.default_device(device):
            yield


def on_device_of(arrays: Iterable[Any]) -> contextlib.AbstractContextManager[None]:
    """Has this thread compute where these arrays lie (see `device_of`); else as before.

    Args:
        arrays: Of JAX, or anything else.

    Raises:
        InputError: They lie on several devices.
    """
    return computing_on(device_of(arrays))
