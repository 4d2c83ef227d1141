import numpy as np
import pytest

from llic_jax.data import augmentation
from llic_jax.data.augmentation import Crop, RandomCrop, Window, cut


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)


def test_the_eight_symmetries_are_eight_pictures_of_the_same_pixels(image):
    crops = [cut(image, Crop(24, 30, 3, 5, symmetry), 16) for symmetry in range(8)]
    assert len({crop.tobytes() for crop in crops}) == 8
    assert len({np.sort(crop.ravel()).tobytes() for crop in crops}) == 1
    np.testing.assert_array_equal(crops[0], image[3:19, 5:21])
    np.testing.assert_array_equal(crops[1], crops[0][:, ::-1])
    np.testing.assert_array_equal(crops[2], crops[0][::-1])
    np.testing.assert_array_equal(crops[4], crops[0].swapaxes(0, 1))


def test_all_symmetries_are_drawn(image):
    rng = np.random.default_rng(1)
    drawn = [RandomCrop(16, symmetries=True).plan(image.shape, rng).symmetry for _ in range(400)]
    counts = np.bincount(drawn, minlength=8)
    assert counts.min() > 20 and len(counts) == 8


def test_gains_scale_channels_and_stay_in_range(image):
    crop = cut(image, Crop(24, 30, 0, 0, gains=(128, 256, 512)), 16)
    plain = image[:16, :16].astype(int)
    np.testing.assert_array_equal(crop[..., 0], (plain[..., 0] + 1) // 2)
    np.testing.assert_array_equal(crop[..., 1], plain[..., 1])
    np.testing.assert_array_equal(crop[..., 2], np.minimum(2 * plain[..., 2], 255))
    rng = np.random.default_rng(2)
    gains = np.array([RandomCrop(16, gain=0.25).plan((24, 30), rng).gains for _ in range(300)])
    assert gains.min() >= 204 and gains.max() <= 320
    assert gains.min() < 215 and gains.max() > 305


def test_channels_are_exchanged_as_often_as_asked(image):
    rng = np.random.default_rng(3)
    orders = [RandomCrop(16, exchange=0.5).plan(image.shape, rng).order for _ in range(600)]
    assert len(set(orders)) == 6
    changed = sum(order != (0, 1, 2) for order in orders)
    assert 190 < changed < 310  # half of them, and one in six of these stays as it was
    crop = cut(image, Crop(24, 30, 0, 0, order=(2, 0, 1)), 16)
    np.testing.assert_array_equal(crop, image[:16, :16][..., [2, 0, 1]])


def test_everything_off_is_a_plain_crop(image):
    rng = np.random.default_rng(4)
    for _ in range(20):
        crop = RandomCrop(16, flip=False).plan(image.shape, rng)
        pixels = cut(image, crop, 16)
        rows, columns = slice(crop.top, crop.top + 16), slice(crop.left, crop.left + 16)
        np.testing.assert_array_equal(pixels, image[rows, columns])


def test_a_window_holds_the_other_crop_and_nothing_else():
    mine, other = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 9, np.uint8)
    pasted = augmentation.paste(mine, other, Window(2, 6, 3, 11))
    assert (pasted[2:6, 3:11] == 9).all() and pasted.sum() == 4 * 8 * 3 * 9
    rng = np.random.default_rng(5)
    for _ in range(100):
        top, bottom, left, right = augmentation.random_window(16, rng)
        assert 0 <= top < bottom <= 16 and 0 <= left < right <= 16
        assert 4 <= bottom - top <= 12 and 4 <= right - left <= 12
