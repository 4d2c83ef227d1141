"""ELIC's checkerboard against a loop over single positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.configs import default
from llic_jax.entropy.elic import SpaceChannelModel, build
from llic_jax.entropy.gaussian import SCALE_MIN
from llic_jax.entropy.walk import Walk
from llic_jax.errors import ConfigError

GROUPS, HEIGHT, WIDTH = (2, 3), 3, 4


def conv_at(x: np.ndarray, params: dict, row: int, column: int) -> np.ndarray:
    """A zero-padded convolution of `(H, W, C)` at one position."""
    kernel, bias = (np.asarray(params["conv"][name], float) for name in ("kernel", "bias"))
    if kernel.ndim == 2:
        kernel = kernel[None, None]
    reach = len(kernel) // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    window = padded[row : row + len(kernel), column : column + len(kernel)]
    return np.einsum("ijc,ijco->o", window, kernel) + bias


def stack_at(x: np.ndarray, params: dict, row: int, column: int) -> np.ndarray:
    """Convolutions in a row, ReLU between: each is evaluated at all positions but the last."""
    *inner, last = (params[f"conv_{i}"] for i in range(len(params)))
    for layer in inner:
        every = [[conv_at(x, layer, i, j) for j in range(x.shape[1])] for i in range(x.shape[0])]
        x = np.maximum(np.array(every), 0)
    return conv_at(x, last, row, column)


def test_each_position_sees_what_is_decoded_before_it():
    rng = np.random.default_rng(0)
    model = SpaceChannelModel(GROUPS, (4,))
    hyper = jnp.asarray(rng.standard_normal((1, HEIGHT, WIDTH, 6)), jnp.float32)
    y = jnp.asarray(rng.standard_normal((1, HEIGHT, WIDTH, sum(GROUPS))), jnp.float32)

    def along(model, hyper, y):
        walk, params = Walk(model, hyper, y.shape), []
        for step, mean, scale in walk:
            params.append((step.unpack(mean), scale))
            walk.fill(step.gather(y))
        return params

    params = model.lazy_init(jax.random.key(0), hyper, y, method=along)["params"]
    params = jax.tree.map(
        lambda p: jnp.asarray(rng.standard_normal(p.shape) / 3, jnp.float32), params
    )
    steps = jax.jit(lambda hyper, y: model.apply({"params": params}, hyper, y, method=along))(
        hyper, y
    )

    decoded = np.zeros((HEIGHT, WIDTH, sum(GROUPS)))
    hyper, y = np.asarray(hyper[0], float), np.asarray(y[0], float)
    for group, size in enumerate(GROUPS):
        own = slice(sum(GROUPS[:group]), sum(GROUPS[: group + 1]))
        for parity in (0, 1):
            before = decoded.copy()
            found = np.asarray(steps[2 * group + parity][0][0])
            for row in range(HEIGHT):
                for column in range(WIDTH):
                    if (row + column) % 2 != parity:
                        assert not found[row, column].any()
                        continue
                    known = [hyper[row, column]]
                    if group:
                        earlier = before[..., : own.start]
                        known.append(stack_at(earlier, params[f"g_ch_{group - 1}"], row, column))
                    if parity:
                        spatial = conv_at(before[..., own], params[f"g_sp_{group}"], row, column)
                    else:
                        spatial = np.zeros(2 * size)
                    known = np.concatenate([*known, spatial])[None, None]
                    both = stack_at(known, params[f"aggregate_{group}"]["stack"], 0, 0)
                    np.testing.assert_allclose(found[row, column], both[:size], atol=1e-4)
                    decoded[row, column, own] = y[row, column, own]
            assert float(steps[2 * group + parity][1].min()) >= np.float32(SCALE_MIN)
    np.testing.assert_array_equal(decoded, y)


def test_groups_have_to_add_up():
    config = default.get_config().model.to_dict() | {"groups": (16, 16)}
    with pytest.raises(ConfigError, match="adds up to 32, but the latent has 320"):
        build(config, jnp.float32)
