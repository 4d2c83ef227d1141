"""The other codecs: ladders that rise, settings that are said, sizes that are met."""

import numpy as np
import pytest
from skimage import data

from llic_jax import metrics
from llic_jax.baselines import FORMATS, Baseline, BaselineError, by_names
from llic_jax.measuring import run_jobs

IMAGE = np.ascontiguousarray(data.chelsea()[60:189, 100:261])


@pytest.mark.parametrize("name", FORMATS)
def test_the_ladder_rises_in_rate_and_quality(name):
    codec = Baseline(name)
    coded = [codec.code(IMAGE, quality) for quality in codec.ladder]
    sizes = [c.bytes for c in coded]
    psnr = [metrics.image_psnr(IMAGE, c.image) for c in coded]
    assert all(c.image.shape == IMAGE.shape for c in coded)
    assert sizes == sorted(set(sizes)) and sizes[-1] > 4 * sizes[0]
    assert psnr == sorted(set(psnr)) and psnr[-1] > 33


@pytest.mark.parametrize("name", FORMATS)
def test_settings_and_version_are_said(name):
    codec = Baseline(name)
    assert f"{codec.ladder[0]:g}" in codec.setting(codec.ladder[0])
    assert len({codec.setting(quality) for quality in codec.ladder}) == len(codec.ladder)
    assert any(c.isdigit() for c in codec.version)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_a_wanted_size_is_found(name):
    codec = Baseline(name)
    wanted = codec.code(IMAGE, codec.ladder[4]).bytes
    _, found = codec.at_size(IMAGE, wanted)
    assert len(found) == pytest.approx(wanted, rel=0.03)
    # Out of reach on either side: the end of the span.
    _, smallest = codec.at_size(IMAGE, 1)
    assert len(smallest) <= codec.code(IMAGE, codec.ladder[0]).bytes


def test_names_in_any_spelling():
    assert [codec.name for codec in by_names(["jpeg2000", "JPEG-XL", "avif", "jxl"])] == [
        "JPEG 2000",
        "JPEG XL",
        "AVIF",
        "JPEG XL",
    ]
    assert [codec.name for codec in by_names(None)] == list(FORMATS)
    assert by_names([]) == []
    with pytest.raises(BaselineError, match=r"No codec 'heic'; known are JPEG, "):
        by_names(["heic"])


def test_a_process_of_its_own_gives_the_same_and_its_memory():
    codec = Baseline("JPEG")
    here = codec.code(IMAGE, 40.0)
    (there,) = run_jobs([(codec, 40.0, IMAGE)])
    assert there.bytes == here.bytes
    np.testing.assert_array_equal(there.image, here.image)
    # An interpreter, numpy and Pillow, but no JAX.
    assert there.peak_memory is not None and 10 << 20 < there.peak_memory < 250 << 20
