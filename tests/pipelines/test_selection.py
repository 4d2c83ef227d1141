"""Which photographs are taken, and that their records are what they were, reduced."""

import io

import numpy as np
import pytest
from PIL import Image

from llic_jax.errors import PipelineError
from llic_jax.pipelines.selection import Selection
from llic_jax.pipelines.work import SkipError
from tests.pipelines.pictures import smooth


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def pixels(record: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record)).convert("RGB"))


def reason(selection: Selection, data: bytes) -> str:
    with pytest.raises(SkipError) as caught:
        selection.record(data, "a.png")
    assert not caught.value.message.startswith("a.png")
    return caught.value.kind


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_lossless_records_have_the_photographs_pixels(kind):
    image = smooth(1, 90, 70)
    record = Selection(least=64, format=kind).record(encoded(image), "a.png")
    assert Image.open(io.BytesIO(record)).format == kind.upper()
    assert np.array_equal(pixels(record), np.asarray(image))


def test_reducing_is_lanczos_and_stops_at_the_shorter_side():
    image = smooth(1, 300, 200)
    half = Selection(least=64, reduce=2.0).record(encoded(image), "a.png")
    expected = image.resize((150, 100), Image.Resampling.LANCZOS)
    assert np.array_equal(pixels(half), np.asarray(expected))
    stopped = Selection(least=160, reduce=2.0).record(encoded(image), "a.png")
    assert pixels(stopped).shape == (160, 240, 3)


def test_lossy_records_are_smaller_and_near():
    image = smooth(1, 200, 200)
    lossy = Selection(least=64, format="jpeg", quality=90).record(encoded(image), "a.png")
    assert Image.open(io.BytesIO(lossy)).format == "JPEG"
    error = pixels(lossy).astype(float) - np.asarray(image)
    assert 0 < np.sqrt(np.mean(error**2)) < 4


def test_what_is_not_taken_has_a_reason():
    selection = Selection(least=64, max_pixels=10_000, drawings=False)
    assert reason(selection, encoded(smooth(1, 63, 90))) == "too small"
    assert reason(selection, encoded(smooth(1, 101, 100))) == "too large"
    assert reason(selection, encoded(smooth(1, 90, 90))[:500]) == "cannot be read"
    assert reason(selection, b"words") == "cannot be read"
    clear = smooth(1, 90, 90)
    clear.putalpha(7)
    assert reason(selection, encoded(clear)) == "transparent"
    flat = Image.new("RGB", (90, 90), "white")
    flat.paste((200, 30, 30), (10, 10, 40, 40))
    assert reason(selection, encoded(flat)) == "drawing"
    assert Selection(least=64).record(encoded(flat), "a.png")  # kept unless asked otherwise
    noisy = np.asarray(smooth(1, 90, 90), np.int16)
    noisy = noisy + np.random.default_rng(0).integers(-6, 7, noisy.shape)
    photograph = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    assert selection.record(encoded(photograph), "a.png")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "avif"}, "avif is lossy; name a --quality"),
        ({"format": "png", "quality": 9}, "png is lossless; leave --quality out"),
        ({"reduce": 0.5}, "--reduce is 0.5; it takes a factor of 1 or more"),
    ],
)
def test_choices_that_do_not_go_together(fields, message):
    with pytest.raises(PipelineError, match=message):
        Selection(**fields)
