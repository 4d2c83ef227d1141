"""Windows of an image: every block is one window's own, with a margin inside the image."""

import numpy as np
import pytest

from llic_jax.codec.windows import LEAST_BLOCKS, MARGIN, windows


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
        part[window.rows.own(1), window.columns.own(1)] += 1
    np.testing.assert_array_equal(owners, 1)
    assert (len(found) == 1) == (rows * columns <= most)


def test_arrays_are_cut_and_written_at_their_scales():
    rng = np.random.default_rng(0)
    y, x = (rng.random(shape, np.float32) for shape in ((1, 20, 24, 3), (1, 320, 384, 3)))
    whole = np.zeros_like(y)
    for window in windows(5, 6, 12):
        part, shown = window.latent(y), window.pixels(x)
        assert shown.shape[1:3] == tuple(16 * side for side in part.shape[1:3])
        assert (part == y[:, window.rows.window(4), window.columns.window(4)]).all()
        assert (shown == x[:, window.rows.window(64), window.columns.window(64)]).all()
        window.write(part, whole)
    np.testing.assert_array_equal(whole, y)
