"""Effort: never worse than without, the decoder unchanged, steps and seconds respected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.bitstream.file import LlicFile
from llic_jax.codec import refinement
from llic_jax.codec.codec import Codec
from llic_jax.codec.rate_control import Quality
from llic_jax.errors import InputError

QUALITY = 1.5
STEPS = 40


def refined_file(codec, image, **limits):
    return codec.encode([image], Quality(QUALITY), refinement.Refinement(**limits))[0]


@pytest.fixture(scope="module")
def image(photograph):
    """Not of a size that needs no padding."""
    return photograph[:60, :50]


@pytest.fixture(scope="module")
def plain(tiny_codec, image):
    return tiny_codec.encode([image], Quality(QUALITY))[0]


@pytest.fixture(scope="module")
def refined(tiny_codec, image):
    return refined_file(tiny_codec, image, steps=STEPS)


def cost(codec, image, encoded) -> float:
    """Of the real file and the decoded image, in bits."""
    lmbda = np.sqrt(np.prod(codec.model.lambdas))  # half way between the two levels
    error = image.astype(float) - codec.decompress(encoded.data)
    return 8 * len(encoded.data) + lmbda * image.shape[0] * image.shape[1] * np.mean(error**2)


def test_refined_files_cost_less_and_decode(tiny_codec, image, plain, refined):
    assert cost(tiny_codec, image, refined) < cost(tiny_codec, image, plain)
    assert LlicFile.from_bytes(refined.data).quality == QUALITY
    np.testing.assert_array_equal(
        tiny_codec.decompress(refined.data), tiny_codec.reconstruct(refined)
    )


def test_equal_steps_make_equal_files(tiny_codec, image, refined):
    calls = []
    again = refined_file(tiny_codec, image, steps=STEPS, progress=lambda *call: calls.append(call))
    assert again.data == refined.data
    assert calls == [(done, STEPS) for done in range(1, STEPS + 1)]


@pytest.mark.parametrize("limit", [{"steps": 0}, {"steps": STEPS, "seconds": 0.0}])
def test_no_effort_changes_nothing(tiny_codec, image, plain, limit):
    assert refined_file(tiny_codec, image, **limit).data == plain.data


def test_a_time_limit_ends_the_search(tiny_codec, image, plain, monkeypatch):
    """On a clock that a step moves on by one second."""
    now = [0.0]
    monkeypatch.setattr(refinement.time, "perf_counter", lambda: now[0])

    def tick(done: int, steps: int) -> None:
        now[0] = float(done)

    limited = refined_file(tiny_codec, image, steps=1000, seconds=float(STEPS), progress=tick)
    assert now[0] == STEPS
    assert cost(tiny_codec, image, limited) < cost(tiny_codec, image, plain)


def test_a_search_that_makes_things_worse_is_thrown_away(tiny_codec, image, plain, monkeypatch):
    monkeypatch.setattr(refinement, "_LEARNING_RATE", -1.0)  # uphill
    assert refined_file(tiny_codec, image, steps=6).data == plain.data


def test_soft_rounding_becomes_rounding():
    x = jnp.linspace(-3, 3, 601).reshape(1, 601)
    x = x[jnp.abs(x - jnp.floor(x) - 0.5) > 0.1]
    soft = refinement._soft_round(x, jax.random.key(0), jnp.float32(1e-3))
    np.testing.assert_allclose(soft, jnp.round(x), atol=1e-3)
    warm = refinement._soft_round(x, jax.random.key(0), jnp.float32(0.5))
    assert jnp.all((warm >= jnp.floor(x)) & (warm <= jnp.floor(x) + 1))
    assert jnp.max(jnp.abs(warm - jnp.round(x))) > 0.5  # draws that went to the farther one


def test_what_cannot_be_refined_is_refused(tiny_codec, image, monkeypatch):
    with pytest.raises(InputError, match="below 0"):
        refined_file(tiny_codec, image, steps=-1)
    model = tiny_codec.model._replace(lambdas=())
    with pytest.raises(InputError, match="no lambda"):
        refined_file(Codec(model), image, steps=1)
    monkeypatch.setattr(refinement, "MAX_PIXELS", 100)
    with pytest.raises(InputError, match="50 x 60 are more"):
        refined_file(tiny_codec, image, steps=1)
