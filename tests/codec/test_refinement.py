"""Effort: never worse than without, the decoder unchanged, steps and seconds respected."""

import numpy as np
import pytest

from llic_jax.bitstream.file import LlicFile
from llic_jax.codec import effort, refinement, windows
from llic_jax.codec.codec import Codec
from llic_jax.codec.model import Limits
from llic_jax.codec.rate_control import Quality, TargetBpp, TargetPsnr
from llic_jax.errors import ImageSizeError, InputError
from llic_jax.metrics.distortion import image_psnr
from llic_jax.zoo.folder import load_codec

QUALITY = 1.5
STEPS = 10


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


def psnr(codec, image, encoded) -> float:
    """Of the real file."""
    return image_psnr(image, codec.decompress(encoded.data))


def test_a_refined_file_is_smaller_at_the_same_psnr(tiny_codec, image, plain, refined):
    before, after = (psnr(tiny_codec, image, encoded) for encoded in (plain, refined))
    assert len(refined.data) < len(plain.data) and before <= after < before + 0.3
    assert refined.effort.bytes_before == len(plain.data)
    np.testing.assert_allclose((refined.effort.psnr_before, refined.effort.psnr), (before, after))
    assert LlicFile.from_bytes(refined.data).quality == refined.quality < QUALITY
    np.testing.assert_array_equal(
        tiny_codec.decompress(refined.data), tiny_codec.reconstruct(refined)
    )


def test_with_a_target_psnr_the_file_is_smaller_and_reaches_it(tiny_codec, image, plain):
    target = TargetPsnr(psnr(tiny_codec, image, plain) - 0.02)
    found, searched = (
        tiny_codec.encode([image], target, refinement.Refinement(steps))[0] for steps in (0, STEPS)
    )
    assert len(searched.data) < len(found.data)
    assert psnr(tiny_codec, image, searched) >= target.value


def test_with_a_target_psnr_only_visible_pixels_count(tiny_codec, image):
    visible = np.zeros(image.shape[:2], bool)
    visible[:, :30] = True
    full = tiny_codec.encode([image], Quality(QUALITY))[0]
    target = TargetPsnr(image_psnr(image, tiny_codec.reconstruct(full), visible) - 0.02, visible)
    searched = tiny_codec.encode([image], target, refinement.Refinement(STEPS))[0]
    assert image_psnr(image, tiny_codec.reconstruct(searched), visible) >= target.value
    assert searched.effort.psnr >= target.value


def test_little_memory_refuses_no_small_image(tiny_codec, image):
    codec = Codec(tiny_codec.model, tiny_codec.options, Limits(memory_gb=1.01))
    found = refined_file(codec, image, steps=STEPS)
    assert len(found.data) < found.effort.bytes_before


def test_in_windows_the_file_is_smaller_too(tiny_codec, photograph, monkeypatch):
    """An image of twelve blocks in windows of nine."""
    image = photograph[:190, :250]
    (plain,) = tiny_codec.encode([image], Quality(QUALITY))
    blocks = []
    monkeypatch.setattr(refinement, "_SMALL_WINDOW", 9)
    monkeypatch.setattr(refinement, "_WINDOW_BYTES", (3 << 30) // (19 * 64**2 // 2))
    monkeypatch.setattr(
        refinement, "windows", lambda *args: blocks.append(args) or windows.windows(*args)
    )
    cut = refined_file(tiny_codec, image, steps=STEPS)
    assert blocks == [(3, 4, 9)]
    assert len(cut.data) < len(plain.data)
    assert psnr(tiny_codec, image, cut) >= psnr(tiny_codec, image, plain)


@pytest.mark.slow
def test_with_a_target_rate_the_psnr_is_higher_within_it(photograph):
    """With the released model: the estimate of one that has learnt nothing is none."""
    codec, image = load_codec(), photograph[:128, :128]
    target = TargetBpp(1.0)
    found, searched = (
        codec.encode([image], target, refinement.Refinement(steps))[0] for steps in (0, STEPS)
    )
    assert searched.bpp <= target.value and found.bpp <= target.value
    assert psnr(codec, image, searched) > psnr(codec, image, found)
    assert searched.effort.psnr > searched.effort.psnr_before


def test_equal_steps_make_equal_files(tiny_codec, image, refined):
    shares = []
    again = refined_file(tiny_codec, image, steps=STEPS, progress=shares.append)
    assert again.data == refined.data
    whole = STEPS + refinement._TRIES_IN_STEPS
    np.testing.assert_allclose(shares, [done / whole for done in range(1, STEPS + 1)])


def test_a_search_that_is_ended_keeps_the_best_so_far(tiny_codec, image, plain, refined):
    shares = []

    def end_at_half(share: float) -> bool:
        shares.append(share)
        return share >= 0.5

    ended = refined_file(tiny_codec, image, steps=STEPS, progress=end_at_half)
    assert 0.5 <= max(shares) < 0.6
    assert ended.data != refined.data and len(ended.data) <= len(plain.data)
    assert psnr(tiny_codec, image, ended) >= psnr(tiny_codec, image, plain)


@pytest.mark.parametrize("limit", [{"steps": 0}, {"steps": STEPS, "seconds": 0.0}])
def test_no_effort_changes_nothing(tiny_codec, image, plain, limit):
    assert refined_file(tiny_codec, image, **limit).data == plain.data


@pytest.mark.parametrize("steps", [0, 1000])
def test_a_time_limit_ends_the_search(tiny_codec, image, plain, monkeypatch, steps):
    """On a clock that a step moves on by one second; a time may be all that is named."""
    now, shares = [0.0], []
    monkeypatch.setattr(refinement.time, "perf_counter", lambda: now[0])

    def tick(share: float) -> None:
        now[0] += 1
        shares.append(share)

    limited = refined_file(tiny_codec, image, steps=steps, seconds=float(STEPS), progress=tick)
    # The first step is for nothing, as it compiles. What is left is for the tries at the end, which
    # take no time on this clock.
    assert now[0] == len(shares) == 1 + STEPS - int(refinement._TRIES_IN_STEPS)
    expected = [max(step - 1, 0) / STEPS for step in range(len(shares))]
    np.testing.assert_allclose(shares, expected, atol=2e-3)
    assert len(limited.data) < len(plain.data)


def test_a_search_that_makes_things_worse_is_thrown_away(tiny_codec, image, plain, monkeypatch):
    monkeypatch.setattr(refinement, "_LENGTH", -10.0)  # uphill
    shown = []
    monkeypatch.setattr(effort.time, "perf_counter", lambda: 100.0 * len(shown))
    found = refined_file(tiny_codec, image, steps=6, progress=shown.append)
    assert found.data == plain.data
    assert found.seconds >= 600  # the search took its time all the same


def test_what_cannot_be_refined_is_refused(tiny_codec, image, monkeypatch):
    with pytest.raises(InputError, match="below 0"):
        refined_file(tiny_codec, image, steps=-1)
    model = tiny_codec.model._replace(lambdas=())
    with pytest.raises(InputError, match="no lambda"):
        refined_file(Codec(model), image, steps=1)
    monkeypatch.setattr(refinement, "_SMALL_IMAGE", 100)
    monkeypatch.setattr(refinement, "_IMAGE_BYTES", 36 * 2**30 // 3000)
    with pytest.raises(
        ImageSizeError, match=r"37\.0 GiB of memory for 50 x 60 pixels; allowed are 4"
    ):
        refined_file(tiny_codec, image, steps=1)
