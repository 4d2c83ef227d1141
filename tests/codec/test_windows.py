"""Windows of an image: every block is one window's own, with a margin inside the image."""

import numpy as np
import pytest

from llic_jax.codec.windows import LEAST_BLOCKS, MARGIN, windows
from llic_jax.models.llic import Latents


@pytest.mark.parametrize("most", [LEAST_BLOCKS, 10, 12, 17, 30, 64])
@pytest.mark.parametrize("rows, columns", [(1, 1), (1, 40), (40, 1), (3, 11), (8, 8), (13, 7)])
def test_own_parts_are_the_image(rows, columns, most):
    found = windows(rows, columns, most)
    sizes = {(window.rows.length, window.columns.length) for window in found}
    assert len(sizes) == 1 and np.prod(sizes.pop()) <= most
    owners = np.zeros((rows, columns), int)
    for window in found:
        for span, length in zip(window, (rows, columns), strict=True):
            assert span.start >= 0 and span.start + span.length <= length
            assert 0 <= span.first < span.last <= span.length
            assert span.first >= MARGIN or span.start == 0
            assert span.length - span.last >= MARGIN or span.start + span.length == length
        part = owners[window.rows.window(1), window.columns.window(1)]
        part += window.own_blocks()[0, :, :, 0].astype(int)
    np.testing.assert_array_equal(owners, 1)
    assert (len(found) == 1) == (rows * columns <= most)


def test_arrays_are_cut_and_written_at_their_scales():
    rng = np.random.default_rng(0)
    y, z = rng.normal(size=(1, 20, 24, 3)), rng.normal(size=(1, 5, 6, 2))
    x = rng.normal(size=(1, 320, 384, 3))
    whole = Latents(np.zeros_like(y), np.zeros_like(z))
    for window in windows(5, 6, 12):
        part = window.latents(Latents(y, z))
        assert part.y.shape[1:3] == tuple(4 * side for side in part.z.shape[1:3])
        assert window.pixels(x).shape[1:3] == tuple(64 * side for side in part.z.shape[1:3])
        window.write(part, whole)
    np.testing.assert_array_equal(whole.y, y)
    np.testing.assert_array_equal(whole.z, z)
