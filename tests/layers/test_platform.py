"""Layers are written for the platform that they are traced for, and JAX keeps such traces apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.layers.chain import mean_over_positions
from llic_jax.layers.platform import target_platform

tells_devices = pytest.mark.skipif(
    not hasattr(jax.sharding, "AbstractDevice"),
    reason="this JAX's meshes do not tell their devices",
)


def absent_gpu():
    """A mesh of one GPU that is not there."""
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    return jax.sharding.use_abstract_mesh(
        jax.sharding.AbstractMesh((1,), ("device",), abstract_device=device)
    )


def test_the_process_s_own_platform_without_more(monkeypatch):
    assert target_platform() == jax.default_backend() == "cpu"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert target_platform() == "gpu"
    with jax.default_device(jax.devices("cpu")[0]):
        assert target_platform() == "cpu"
    with jax.default_device("tpu"):
        assert target_platform() == "tpu"


@pytest.mark.parametrize("transform", [jax.jit, lambda f: jax.pmap(f, devices=jax.devices())])
def test_of_what_is_traced(transform):
    seen = []

    def function(x):
        seen.append(target_platform())
        return x

    transform(function)(jnp.ones((jax.device_count(), 1)))
    assert seen and set(seen) == {"cpu"}


@tells_devices
def test_the_mesh_s_device_and_no_trace_in_common():
    """Also in gradients that JAX traces later, and after a trace for another platform."""
    x = jnp.asarray(np.random.default_rng(0).random((2, 5, 7, 3)), jnp.float32)

    @jax.jit
    def gradient(x):
        return jax.grad(lambda x: mean_over_positions(x).sum())(x), mean_over_positions(x)

    def products():
        return str(gradient.trace(x).jaxpr).count("dot_general")

    here = products()
    with absent_gpu():
        assert target_platform() == "gpu"
        there = products()
    assert here > there == 0 and products() == here
    assert target_platform() == "cpu"
    np.testing.assert_allclose(gradient(x)[1], x.mean((1, 2)), rtol=1e-6)
