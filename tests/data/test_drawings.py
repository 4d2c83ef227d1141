"""Drawings for training: of every kind, full and faded, the same from the same seed."""

import numpy as np
import pytest

from llic_jax.data import drawings

SLOPE = np.arange(96, dtype=np.uint8)
PHOTOGRAPH = np.stack([*np.meshgrid(SLOPE, SLOPE), np.full((96, 96), 90, np.uint8)], -1)


@pytest.mark.parametrize("size", [64, 96, 256])
@pytest.mark.parametrize("kind", {kind.__name__: kind for kind in drawings._KINDS if kind}.values())
def test_every_kind_fills_its_size_and_is_no_two_times_the_same(kind, size):
    found = [kind(np.random.default_rng(seed), size) for seed in (*range(30), 0)]
    assert {(image.shape, str(image.dtype)) for image in found} == {((size, size, 3), "uint8")}
    assert len({image.tobytes() for image in found[:30]}) > 25
    np.testing.assert_array_equal(found[0], found[30])


def test_drawings_are_full_or_faded_and_some_keep_the_photograph():
    rng = np.random.default_rng(0)
    found = [drawings.draw(rng, PHOTOGRAPH) for _ in range(300)]
    assert {(image.shape, str(image.dtype)) for image in found} == {((96, 96, 3), "uint8")}
    kept = [np.mean(np.all(image == PHOTOGRAPH, axis=2)) for image in found]
    assert 10 < sum(share > 0.1 for share in kept) < 150
    # Pixel by pixel black beside white: what no photograph shows.
    steps = [np.abs(np.diff(image.astype(int), axis=1)).max() for image in found]
    assert 30 < sum(step == 255 for step in steps) < 250


def test_none_are_drawn_without_a_share():
    rng = np.random.default_rng(0)
    assert drawings.sometimes_drawn(0.0, PHOTOGRAPH, rng) is PHOTOGRAPH
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
