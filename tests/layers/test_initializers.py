"""Initial parameters depend on seed and path alone, and on no other thread."""

import hashlib
import json
import threading
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import Scope

from llic_jax.configs.upgrade import upgrade
from llic_jax.layers.convolutions import Conv
from llic_jax.layers.initializers import init_params
from llic_jax.models.build import build_model, initialize

GOLDEN = Path(__file__).parents[1] / "golden" / "models"
# Number of parameters and SHA-256 of their paths, types, shapes and values, with seed 3.
HASHES = {
    "elic": (351, "55ccf319ec66859d365a1d848e080d7409fe15ffcd24d665ff7bbbcd63b312b1"),
    "stf": (373, "baf228fb92efe923163a556d4fe06d8ca795bf9d48925e5f96108fbef283fcae"),
    "tcm": (765, "7f7ed9b0bbd5e20dbc97c3c317cccd3129e7daf80a25d2f8cd55dbb23d586343"),
}
INPUT = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)


@pytest.mark.parametrize("name", HASHES)
def test_initial_parameters_of_a_seed_are_always_the_same(name):
    config = json.loads((GOLDEN / name / "config.json").read_text())
    model = build_model(upgrade(config)["model"])
    params = traverse_util.flatten_dict(initialize(model, 3), sep="/")
    digest = hashlib.sha256()
    for path in sorted(params):
        value = np.asarray(params[path])
        digest.update(f"{path} {value.dtype} {value.shape}\n".encode() + value.tobytes())
    assert (len(params), digest.hexdigest()) == HASHES[name]


class _Meets(nn.Module):
    """While it is traced, another thread initializes, and this one waits for it."""

    other: threading.Thread
    entered: threading.Event

    @nn.compact
    def __call__(self, x):
        self.entered.set()
        self.other.join(0.5)
        return Conv(4, 3, name="conv")(x)


def test_threads_that_initialize_at_once_do_not_mix_their_initializers():
    entered, alone = threading.Event(), init_params(Conv(5, 1), 1, INPUT)
    found = {}

    def meanwhile():
        entered.wait()
        found["flax"] = Conv(7, 1).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
        found["ours"] = init_params(Conv(5, 1), 1, INPUT)

    before = Scope.param
    thread = threading.Thread(target=meanwhile)
    thread.start()
    params = init_params(_Meets(thread, entered), 0, INPUT)
    thread.join()
    assert Scope.param is before
    assert params["conv"]["conv"]["kernel"].shape == (3, 3, 3, 4)
    assert found["flax"]["params"]["conv"]["kernel"].shape == (3, 7)
    for one, other in zip(jax.tree.leaves(found["ours"]), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_error_in_a_module_leaves_flax_as_it_was():
    before = Scope.param
    with pytest.raises(TypeError):
        init_params(Conv(5, 1), 1)
    assert Scope.param is before
