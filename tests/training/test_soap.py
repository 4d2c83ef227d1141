"""SOAP: what it promises is independence of the coordinates, and speed where they are bad."""

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from llic_jax.errors import ConfigError
from llic_jax.training import soap
from llic_jax.training.settings import RunSettings

ENABLE_X64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64


def directions(tree, gradients, **options):
    """The directions that SOAP takes for a sequence of gradients, as trees."""
    vector, unravel = ravel_pytree(tree)
    optimizer = soap.scale_by_soap(unravel, **options)
    state, update = optimizer.init(vector), jax.jit(optimizer.update)
    found = []
    for gradient in gradients:
        direction, state = update(ravel_pytree(gradient)[0], state)
        found.append(jax.tree.map(np.asarray, unravel(direction)))
    return found


def rotation(side, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(side, side)))[0]


@pytest.mark.parametrize("shape", [(5, 5), (3, 3, 4, 5), (5, 1, 4, 7)])
def test_a_turned_problem_has_the_turned_solution(shape):
    """What Adam lacks: with outputs in other coordinates, the direction is the same in those."""
    rng = np.random.default_rng(0)
    scales = np.linspace(0.2, 3.0, shape[-1])
    gradients = [{"w": rng.normal(size=shape) * scales} for _ in range(25)]
    turn = rotation(shape[-1], 1)
    # In double precision: eigenvectors magnify rounding.
    with ENABLE_X64(True):
        start = {"w": jnp.zeros(shape, jnp.float64)}
        plain = directions(start, gradients, every=5)
        turned = directions(start, [{"w": g["w"] @ turn} for g in gradients], every=5)
    for a, b in zip(plain, turned, strict=True):
        np.testing.assert_allclose(a["w"] @ turn, b["w"], atol=1e-6)
    assert not plain[0]["w"].any() and np.abs(plain[-1]["w"]).max() > 0.1


def test_vectors_are_adam_s():
    """Biases have no sides to turn. The first gradient counts for nothing, so Adam starts later."""
    rng = np.random.default_rng(0)
    tree = {"bias": jnp.zeros(5), "scale": jnp.zeros((1, 1, 1, 3)), "w": jnp.zeros((3, 4))}
    gradients = [jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), tree)] * 4
    found = directions(tree, gradients, b1=0.9, b2=0.99)
    adam = optax.scale_by_adam(0.9, 0.99)
    state = adam.init(tree)
    for direction, gradient in zip(found[1:], gradients[1:], strict=True):
        expected, state = adam.update(gradient, state)
        for name in ("bias", "scale"):
            np.testing.assert_allclose(direction[name], expected[name], rtol=1e-5)


def test_no_gradient_no_direction():
    """A kernel that stands still, as in a stage of training that leaves it out."""
    zero = {"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}
    for direction in directions(zero, [zero] * 12, every=4):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(direction))


def test_it_is_ahead_of_adam_on_a_badly_conditioned_problem():
    """Least squares whose inputs and outputs are strongly correlated, at equal steps and rates."""
    inputs = rotation(8, 2) * np.logspace(0, -2, 8) @ rotation(8, 3)
    outputs = rotation(8, 4) * np.logspace(0, -1, 8) @ rotation(8, 5)
    target = np.random.default_rng(6).normal(size=(8, 8))

    def loss(w):
        return jnp.sum(jnp.square(inputs @ (w - target) @ outputs))

    def after(optimizer, steps=300):
        optimizer = optax.chain(optimizer, optax.scale_by_learning_rate(1e-2))

        def step(carry, _):
            w, state = carry
            updates, state = optimizer.update(jax.grad(loss)(w.reshape(8, 8)).reshape(-1), state)
            return (w + updates, state), None

        start = jnp.zeros(64)
        (w, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
        return float(loss(w.reshape(8, 8)))

    def unravel(vector):
        return {"w": vector.reshape(8, 8)}

    assert after(soap.scale_by_soap(unravel)) < 0.5 * after(optax.scale_by_adam(0.95, 0.95))


def test_kernels_come_back_from_their_groups():
    tree = {
        "a": jnp.arange(24.0).reshape(2, 2, 2, 3),
        "b": {"w": jnp.arange(6.0).reshape(2, 3), "v": jnp.arange(6.0, 12).reshape(2, 3)},
        "c": jnp.arange(4.0),
        "d": jnp.float32(7.0),
        "e": jnp.arange(3.0).reshape(1, 1, 3),
    }
    groups = soap._gather(tree)
    assert sorted(group.shape for group in groups) == [(1, 4, 2, 3), (1, 8), (2, 2, 3)]
    for a, b in zip(
        jax.tree.leaves(tree), jax.tree.leaves(soap._scatter(groups, tree)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_long_sides_keep_their_coordinates():
    _, unravel = ravel_pytree({"w": jnp.zeros((4, soap.MAX_SIDE + 1))})
    state = soap.scale_by_soap(unravel).init(jnp.zeros(4 * (soap.MAX_SIDE + 1)))
    assert [basis.shape for basis in state.groups[0].bases] == [(1, 4, 4)]


def test_an_unknown_optimizer_is_refused(tiny_config):
    config = tiny_config.copy_and_resolve_references()
    config.train.optimizer = "sgd"
    with pytest.raises(ConfigError, match="'sgd'; known are adam, soap"):
        RunSettings.of(config)
