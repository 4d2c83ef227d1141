"""The loop over an entropy model's steps: each is filled once, and y_hat is what was filled."""

import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.entropy.walk import Step, Walk
from llic_jax.errors import WalkError

SHAPE = (1, 2, 4, 3)


class Running:
    """Predicts the sum of what is decoded; adds 100 to each step's values afterwards."""

    steps = (Step(0, 2, parity=0), Step(0, 2, parity=1), Step(2, 3))

    def entropy_params(self, k, hyper, y_hat, carry):
        step = self.steps[k]
        like = step.gather(jnp.zeros_like(y_hat))
        return like + jnp.sum(y_hat) + hyper, like + k, (carry or 0) + 1

    def refine(self, k, hyper, y_hat, carry):
        assert carry == k + 1
        step = self.steps[k]
        return step.scatter(y_hat, 100 * jnp.ones_like(step.gather(y_hat))), carry


def test_each_step_sees_the_steps_before_it_refined():
    walk, sums = Walk(Running(), 0.5, SHAPE), []
    for k, (_, mean, scale) in enumerate(walk):
        assert np.all(np.asarray(scale) == k)
        sums.append(float(mean.ravel()[0]))
        walk.fill(jnp.full(mean.shape, k + 1.0))
    # Eight values each of 1 + 100 and of 2 + 100 before the last step.
    assert sums == [0.5, 8 * 101 + 0.5, 8 * 101 + 8 * 102 + 0.5]
    y_hat = np.asarray(walk.y_hat)
    even = np.indices((2, 4)).sum(0) % 2 == 0
    assert np.all(y_hat[0, even, :2] == 101) and np.all(y_hat[0, ~even, :2] == 102)
    assert np.all(y_hat[..., 2] == 103)


def test_a_step_that_is_not_filled_ends_the_walk():
    with pytest.raises(WalkError, match="Step 0 was not filled"):
        for _ in Walk(Running(), 0.0, SHAPE):
            pass


def test_a_step_is_filled_once():
    walk = Walk(Running(), 0.0, SHAPE)
    with pytest.raises(WalkError, match="No step waits"):
        walk.fill(jnp.zeros((1, 2, 2, 2)))
    for _, mean, _ in walk:
        walk.fill(mean)
        with pytest.raises(WalkError, match="No step waits"):
            walk.fill(mean)
    with pytest.raises(WalkError, match="No step waits"):
        walk.fill(mean)


def test_y_hat_is_there_after_the_loop_only():
    walk = Walk(Running(), 0.0, SHAPE)
    for _, mean, _ in walk:
        with pytest.raises(WalkError, match="after the loop"):
            _ = walk.y_hat
        walk.fill(mean)
    assert walk.y_hat.shape == SHAPE
    with pytest.raises(WalkError, match="begun before"):
        next(iter(walk))
