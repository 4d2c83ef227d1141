"""README's picture: names beside its lines do not overlap, and its points are the model card's."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def picture(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import readme_picture

    return readme_picture


def test_names_keep_their_order_and_distance(picture):
    heights = [37.7, 33.0, 37.4, 37.5, 20.0]
    moved = picture.apart(heights, 0.5)
    np.testing.assert_array_equal(np.argsort(moved), np.argsort(heights))
    assert np.diff(sorted(moved)).min() >= 0.5 - 1e-9
    assert moved[1] == 33.0 and moved[4] == 20.0  # where there is room, nothing moves
    np.testing.assert_allclose(np.mean([moved[i] for i in (0, 2, 3)]), np.mean([37.7, 37.4, 37.5]))


def test_the_points_are_those_of_the_released_model(picture):
    points = picture.released_points((picture.DEFAULT_FOLDER / "README.md").read_text())
    assert len(points) == 8 and points == sorted(points)
    with pytest.raises(ValueError, match="no table"):
        picture.released_points("# A card")
