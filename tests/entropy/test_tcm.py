"""TCM's entropy model: what the attention acts on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.configs import default
from llic_jax.entropy.tcm import ChannelAttentionModel, HyperAnalysis, build
from llic_jax.entropy.walk import Walk
from llic_jax.errors import ConfigError

MODEL = ChannelAttentionModel(1, 2, 1, (4,), attention_channels=4, window=2, head_dim=2)
SHAPE = (1, 2, 4, 2)


@pytest.fixture(scope="module")
def setup():
    rng = np.random.default_rng(0)
    mean, scale, y = (jnp.asarray(rng.standard_normal(SHAPE), jnp.float32) for _ in range(3))

    def along(model, hyper, y):
        walk, params = Walk(model, hyper, y.shape), []
        for step, mean, scale in walk:
            params.append((mean, scale))
            walk.fill(step.gather(y))
        return walk.y_hat, params

    params = MODEL.lazy_init(jax.random.key(0), (mean, scale), y, method=along)["params"]
    return jax.jit(lambda p: MODEL.apply({"params": p}, (mean, scale), y, method=along)), params


@pytest.mark.parametrize(
    ("attention", "moves"),
    [("attend_mean_0", ["mean", "y_hat"]), ("attend_scale_0", ["scale"])],
)
def test_each_support_has_its_attention_and_refinement_takes_the_means(setup, attention, moves):
    run, params = setup

    def named(params: dict) -> dict[str, np.ndarray]:
        y_hat, [(mean, scale)] = run(params)
        return {"mean": np.asarray(mean), "scale": np.asarray(scale), "y_hat": np.asarray(y_hat)}

    before = named(params)
    after = named(params | {attention: jax.tree.map(lambda p: 1.5 * p, params[attention])})
    assert [name for name in before if np.any(before[name] != after[name])] == moves


def test_the_hyper_latent_is_a_quarter():
    y = jax.ShapeDtypeStruct((1, 4, 8, 8), jnp.float32)
    h_a = HyperAnalysis(4, window=4, head_dim=3)
    z, _ = jax.eval_shape(lambda y: h_a.init_with_output(jax.random.key(0), y), y)
    assert z.shape == (1, 1, 2, 4)


@pytest.mark.parametrize(
    "wrong", [{"head_dims": (48, 16)}, {"attention_channels": 100}, {"hyper_channels": 190}]
)
def test_heads_have_to_divide_what_they_attend_to(wrong: dict):
    config = default.get_config().model.to_dict() | {"slices": 5} | wrong
    with pytest.raises(ConfigError, match="must divide"):
        build(config, jnp.float32)
