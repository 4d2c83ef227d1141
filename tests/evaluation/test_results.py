"""Results: what a file gives back, and means of the same images."""

import dataclasses
import json
import math

import pytest

from llic_jax.evaluation.results import Result, ResultsFile, average, averages, notes, points, table


def _result(image="a.png", codec="c", setting="s", bpp=1.0, psnr=30.0, ms_ssim=0.97, db=15.0):
    return Result(
        codec, "v", setting, 1.0, image, "d", 500, 500, 1, bpp, None, psnr, psnr, ms_ssim, db,
        0.0, None, 0.0, None, None, None,
    )  # fmt: skip


def _refuse(name):
    raise AssertionError(name)


@pytest.mark.parametrize(
    "result",
    [
        _result(),
        _result(psnr=math.inf),
        _result(ms_ssim=None, db=None),
        _result(psnr=math.inf, ms_ssim=1.0, db=math.inf),
        dataclasses.replace(_result(), psnr_y=math.inf),
    ],
)
def test_a_file_gives_results_back_and_is_json_for_every_reader(result, tmp_path):
    path = tmp_path / "results.jsonl"
    ResultsFile(path).add(result)
    json.loads(path.read_text(), parse_constant=_refuse)
    assert list(ResultsFile(path).results.values()) == [result]
    # As files were written before.
    path.write_text(json.dumps(dataclasses.asdict(result)) + "\n")
    assert list(ResultsFile(path).results.values()) == [result]


def test_ms_ssim_stands_over_the_rate_of_the_images_that_it_is_of():
    small = _result("small", bpp=3.0, ms_ssim=None, db=None)
    (means,) = averages([small, _result("large", bpp=0.2)])["c"]
    assert points([means], "ms_ssim_db").rates == (0.2,)
    assert points([means]).rates == (1.6,) and means["bpp"] == 1.6
    assert means["ms_ssim_db_images"] == 1 and means["psnr_images"] == means["images"] == 2


def test_an_image_without_a_finite_psnr_is_left_out_of_all_means_of_it():
    flat = [_result("flat", codec="x", psnr=math.inf, bpp=0.1), _result("flat", psnr=60.0, bpp=0.1)]
    every = averages([*flat, _result("a", codec="x", psnr=31.0), _result("a", psnr=30.0)])
    for codec, psnr in (("x", 31.0), ("c", 30.0)):
        (means,) = every[codec]
        assert means["psnr"] == means["psnr_y"] == psnr
        assert means["psnr_images"] == 1 and means["psnr_bpp"] == 1.0 and means["bpp"] == 0.55
        assert points([means]).rates == (1.0,)
    json.loads(json.dumps(every), parse_constant=_refuse)
    (note,) = notes([*flat, _result("a")])
    assert "PSNR" in note and "1 of 2 images" in note and "flat" in note


def test_a_set_of_flat_images_alone_has_no_mean():
    results = [_result("flat", psnr=math.inf, ms_ssim=None, db=None)]
    means = average(results)
    assert means["psnr"] is None and means["psnr_bpp"] is None and means["bpp"] == 1.0
    assert points([means]).rates == points([means], "ms_ssim_db").rates == ()
    assert "0 of 1 images" in table(results)


def test_points_of_a_summary_of_before():
    """It does not tell the rate of a figure's images."""
    means = {"codec": "c", "bpp": 0.5, "psnr": 30.0}
    assert points([means]).rates == (0.5,)
