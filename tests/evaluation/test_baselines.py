"""The other codecs: qualities that rise, settings that are said, sizes that are met."""

import numpy as np
import pytest
from skimage import data

from llic_jax.errors import BaselineError
from llic_jax.evaluation.baselines import FORMATS, MS_SSIM, PSNR, Baseline, by_names, compared_by
from llic_jax.evaluation.workers import run_tasks
from llic_jax.metrics import distortion

IMAGE = np.ascontiguousarray(data.chelsea()[60:189, 100:261])


@pytest.mark.parametrize("name", FORMATS)
def test_qualities_rise_in_rate_and_psnr(name):
    codec = Baseline(name)
    coded = [codec.code(IMAGE, quality) for quality in codec.qualities]
    sizes = [c.bytes for c in coded]
    psnr = [distortion.image_psnr(IMAGE, c.image) for c in coded]
    assert all(c.image.shape == IMAGE.shape for c in coded)
    assert sizes == sorted(set(sizes)) and sizes[-1] > 4 * sizes[0]
    assert psnr == sorted(set(psnr)) and psnr[-1] > 33


@pytest.mark.parametrize("name", FORMATS)
def test_settings_and_version_are_said(name):
    codec = Baseline(name)
    assert f"{codec.qualities[0]:g}" in codec.setting(codec.qualities[0])
    assert len({codec.setting(quality) for quality in codec.qualities}) == len(codec.qualities)
    assert any(c.isdigit() for c in codec.version)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_a_wanted_size_is_found(name):
    codec = Baseline(name)
    wanted = codec.code(IMAGE, codec.qualities[4]).bytes
    _, found = codec.at_size(IMAGE, wanted)
    assert len(found) == pytest.approx(wanted, rel=0.03)
    # Out of reach on either side: the end of the span.
    _, smallest = codec.at_size(IMAGE, 1)
    assert len(smallest) <= codec.code(IMAGE, codec.qualities[0]).bytes


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_a_wanted_psnr_is_found(name):
    codec = Baseline(name)
    wanted = distortion.image_psnr(IMAGE, codec.code(IMAGE, codec.qualities[4]).image)
    _, found = codec.at_psnr(IMAGE, wanted)
    assert distortion.image_psnr(IMAGE, codec.format.decode(found)) == pytest.approx(
        wanted, abs=0.5
    )


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


def test_each_is_compared_by_what_it_is_tuned_for():
    by_psnr = [name for name in FORMATS if compared_by(name, PSNR)]
    by_ms_ssim = [name for name in FORMATS if compared_by(name, MS_SSIM)]
    both = ["JPEG", "JPEG 2000", "WebP", "JPEG XL"]
    assert sorted(by_psnr) == sorted([*both, "AVIF", "AVIF (slow)"])
    assert sorted(by_ms_ssim) == sorted([*both, "AVIF (default tuning)"])
    assert compared_by("ours", PSNR) and compared_by("ours", MS_SSIM)
    assert by_names(["avif-slow", "AVIF-default"]) == [
        Baseline("AVIF (slow)"),
        Baseline("AVIF (default tuning)"),
    ]


def test_tuning_does_what_it_says():
    """At a size of file each is the better one by its own figure."""
    image = np.ascontiguousarray(data.astronaut()[:256, 100:356])
    tuned, default = Baseline("AVIF"), Baseline("AVIF (default tuning)")
    size = tuned.code(image, 40.0).bytes
    decoded = [codec.format.decode(codec.at_size(image, size)[1]) for codec in (tuned, default)]
    psnr = [distortion.image_psnr(image, d) for d in decoded]
    ms_ssim = [distortion.image_ms_ssim(image, d) for d in decoded]
    assert psnr[0] > psnr[1] + 0.1 and ms_ssim[1] > ms_ssim[0]


def test_a_process_of_its_own_gives_the_same_and_its_memory():
    codec = Baseline("JPEG")
    here = codec.code(IMAGE, 40.0)
    (there,) = run_tasks(codec, [(40.0, IMAGE)])
    assert there.bytes == here.bytes
    np.testing.assert_array_equal(there.image, here.image)
    # An interpreter, numpy and Pillow, but no JAX.
    assert there.peak_memory is not None and 10 << 20 < there.peak_memory < 250 << 20
