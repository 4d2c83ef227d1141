"""The report: what is measured is in it, nothing else is, and it opens without a network."""

import dataclasses
import math
import re

import numpy as np
import pytest

from llic_jax.evaluation import published
from llic_jax.evaluation.baselines import Baseline
from llic_jax.evaluation.image_sets import ImageSet
from llic_jax.evaluation.llic_system import LlicSystem
from llic_jax.evaluation.measure import measure
from llic_jax.evaluation.output import Output
from llic_jax.evaluation.results import Result
from llic_jax.evaluation.trials import Trial
from llic_jax.report.markdown import markdown_text
from llic_jax.report.per_image import by_image
from llic_jax.report.report import ReportOptions, write_report
from llic_jax.report.side_by_side import busiest, side_by_side


def _record(codec: str, quality: float, bpp: float, psnr: float, **more) -> Result:
    values = dict(
        codec=codec,
        version=f"{codec} 1.0",
        setting=f"quality {quality:g}",
        quality=quality,
        image="a.png",
        digest="",
        width=768,
        height=512,
        bytes=round(bpp * 768 * 512 / 8),
        bpp=bpp,
        bpp_estimated=bpp,
        psnr=psnr,
        psnr_y=psnr + 1,
        ms_ssim=0.95,
        ms_ssim_db=13.0 + quality,
        encode_seconds=0.5,
        encode_network_seconds=0.4,
        decode_seconds=0.25,
        decode_network_seconds=0.2,
        peak_memory=300 << 20,
        identical=True,
    )
    return Result(**(values | more))


OURS = [(1.0, 0.12, 28.5), (2.0, 0.25, 31.0), (3.0, 0.5, 34.0), (4.0, 0.9, 37.2)]
AVIF = [(1.0, 0.12, 27.5), (2.0, 0.25, 30.2), (3.0, 0.5, 33.1), (4.0, 0.9, 36.3)]


class _Named(LlicSystem):
    """A system of which a report needs the name alone."""

    version = "1.0"


def _write(folder, records, dataset=None, name="mine", **more):
    images = ImageSet("three <photographs>", dataset, [])
    trials = [Trial(_Named(folder / name), ())]
    options = ReportOptions(inspect=False, **more)
    return write_report(records, images, trials, Output(folder, images), options)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    records = [_record("mine", *point) for point in OURS]
    records += [_record("AVIF", *point) for point in AVIF]
    return _write(folder, records, "kodak", command="python eval.py --dataset kodak")


def test_the_page_stands_on_its_own(written):
    html = written.read_text()
    loaded = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert loaded and all(source.startswith("data:image/") for source in loaded)
    assert "<script" not in html and "@import" not in html and "url(" not in html
    assert "three &lt;photographs&gt;" in html
    assert "python eval.py --dataset kodak" in html


def test_every_measured_point_is_in_both_reports(written):
    for text in (written.read_text(), (written.parent / "report.md").read_text()):
        for _, bpp, psnr in OURS + AVIF:
            assert f"{bpp:.4f}" in text and f"{psnr:.2f}" in text


def test_bd_rates_are_those_of_the_comparison(written):
    from llic_jax.metrics.bd_rate import Curve, bd_rate

    kodak = published.curves("kodak")
    own = Curve("mine", tuple(p[1] for p in OURS), tuple(p[2] for p in OURS))
    text = (written.parent / "report.md").read_text()
    anchor = kodak[published.ANCHOR].curve()
    assert f"| mine | ours | {bd_rate(anchor, own).value:+.2f} |" in text
    over_avif = bd_rate(Curve("AVIF", *zip(*(p[1:] for p in AVIF), strict=True)), own).value
    (line,) = [line for line in text.splitlines() if line.startswith("| AVIF | measured")]
    assert line.endswith(f"| {over_avif:+.2f} |")
    (line,) = [line for line in text.splitlines() if line.startswith("| MLIC++ | published")]
    assert "| -13.39 |" in line
    for entry in kodak.values():
        assert entry.source in text


def test_figures_are_written_as_svg_and_png(written):
    names = {path.name for path in (written.parent / "figures").iterdir()}
    for figure in ("psnr", "ms_ssim", "rate_saving", "memory"):
        assert {f"{figure}.svg", f"{figure}.png"} <= names
        assert f"figures/{figure}.svg" in (written.parent / "report.md").read_text()


def test_figures_are_the_same_every_time(written, tmp_path):
    records = [_record("mine", *point) for point in OURS]
    records += [_record("AVIF", *point) for point in AVIF]
    again = _write(tmp_path, records, "kodak")
    for name in ("psnr.svg", "rate_saving.svg"):
        first, second = (path.parent / "figures" / name for path in (written, again))
        assert first.read_bytes() == second.read_bytes()


def test_without_published_figures_another_codec_is_the_anchor(tmp_path):
    records = [_record("mine", *point) for point in OURS]
    records += [_record("AVIF", *point) for point in AVIF]
    text = _write(tmp_path, records).with_name("report.md").read_text()
    assert "## BD-rate over AVIF" in text
    assert "VTM" not in text and "MLIC" not in text


def test_images_are_listed_with_the_worst_first(tmp_path):
    """Each with its own BD-rate over every codec that was measured on it."""
    images = {"good.png": 1.5, "bad.png": -1.0, "middling.png": 0.5}  # dB more than AVIF there
    records = [_record("AVIF", *point, image=image) for image in images for point in AVIF]
    for image, more in images.items():
        records += [_record("mine", q, bpp, psnr + more, image=image) for q, bpp, psnr in AVIF]
    records += [_record("JPEG", q, 2 * bpp, psnr, image="bad.png") for q, bpp, psnr in AVIF]
    rows = by_image(records, "mine", ["AVIF", "JPEG"])
    assert [row.image for row in rows] == ["bad.png", "middling.png", "good.png"]
    assert rows[0].rates[0] > 0 > rows[1].rates[0] > rows[2].rates[0]
    assert rows[0].rates[1] < rows[0].rates[0] and rows[1].rates[1] is None
    assert by_image(records, "mine", []) == []
    text = _write(tmp_path, records).with_name("report.md").read_text()
    assert f"| bad.png | {rows[0].rates[0]:+.1f} | {rows[0].rates[1]:+.1f} |" in text
    assert f"| good.png | {rows[2].rates[0]:+.1f} | - |" in text


def test_what_cannot_be_compared_is_said_not_invented(tmp_path):
    records = [_record("mine", 1.0, 0.2, 30.0), _record("mine", 2.0, 0.3, 29.0)]
    records += [_record("AVIF", *point) for point in AVIF]
    path = _write(tmp_path, records)
    text = path.with_name("report.md").read_text()
    assert "mine is not monotone: 30.0000 dB at 0.20000 bpp" in text
    assert "| mine | ours |" not in text
    assert "0.2000 | 30.00" in text  # the points themselves are there all the same


def test_a_single_point_gives_a_report_too(tmp_path):
    path = _write(tmp_path, [_record("mine", *OURS[0], ms_ssim=None, ms_ssim_db=None)])
    assert "two or more" in path.read_text()
    assert {p.stem for p in (tmp_path / "figures").iterdir()} == {"psnr"}


def test_a_decoder_that_went_astray_is_said(tmp_path):
    records = [_record("mine", *OURS[0], identical=False), _record("mine", *OURS[1])]
    assert "Not every decoded image" in _write(tmp_path, records).read_text()


def test_a_picture_that_is_coded_exactly_leaves_every_mean_of_psnr(tmp_path):
    """Means over finite values alone would be of other images at each quality."""
    records = [_record("mine", *point) for point in OURS] + [_record("AVIF", *p) for p in AVIF]
    flat = dict(image="flat.png", bpp=0.01, psnr_y=60.0)
    records += [_record("mine", q, **flat | {"psnr": 50.0 + q}) for q, _, _ in OURS]
    records += [_record("AVIF", q, **flat | {"psnr": math.inf}) for q, _, _ in AVIF[:1]]
    records += [_record("AVIF", q, **flat | {"psnr": 60.0}) for q, _, _ in AVIF[1:]]
    path = _write(tmp_path, records)
    without = _write(tmp_path / "without", [r for r in records if r.image != "flat.png"])
    line = next(n for n in path.with_name("report.md").read_text().splitlines() if "| ours |" in n)
    assert line in without.with_name("report.md").read_text()
    for text in (path.read_text(), path.with_name("report.md").read_text()):
        assert "Means of PSNR" in text and "1 of 2 images" in text and "flat.png" in text
        assert f"{OURS[0][1]:.4f}" in text  # the rate of the image that PSNR is of


def test_rates_above_what_is_drawn_are_drawn_all_the_same(tmp_path):
    records = [_record("mine", q, bpp + 5, psnr) for q, bpp, psnr in OURS]
    assert _write(tmp_path, records).is_file()


def test_a_codec_stands_where_it_is_tuned_for(tmp_path):
    names = ("mine", "AVIF", "AVIF (slow)", "AVIF (default tuning)", "WebP")
    records = [_record(name, *point) for name in names for point in AVIF]
    text = _write(tmp_path, records).with_name("report.md").read_text()
    by_psnr, _, by_ms_ssim = text.partition(
        "## BD-rate at equal MS-SSIM over AVIF (default tuning)"
    )
    assert "## BD-rate over AVIF\n" in by_psnr and by_ms_ssim
    by_ms_ssim = by_ms_ssim.partition("## How the other codecs were tuned")[0]
    for name in names:
        assert (f"\n| {name} | " in by_psnr) == (name != "AVIF (default tuning)")
        assert (f"\n| {name} | " in by_ms_ssim) == (name not in ("AVIF", "AVIF (slow)"))
    assert "- AVIF: PSNR (tune=psnr)" in text


def test_published_curves_stand_beside_in_both_tables(written):
    text = (written.parent / "report.md").read_text()
    by_psnr, _, by_ms_ssim = text.partition("## BD-rate at equal MS-SSIM over VTM")
    for name in ("AV1", "BPG 4:4:4", "VTM (version not stated)", "bmshj2018-hyperprior"):
        assert f"| {name} | published |" in by_psnr and f"| {name} | published |" in by_ms_ssim


def test_names_are_no_markup(tmp_path):
    name = "a|b <img src=x onerror=alert(1)> [e](f) $x^$ _em_ `c`.png"
    records = [_record("mi|ne $<b>", *point, image=name) for point in OURS]
    records += [_record("AVIF", *point, image=name) for point in AVIF]
    records += [dataclasses.replace(record, image="b.png") for record in records]
    path = _write(tmp_path, records, name="mi|ne $<b>", command="python eval.py `x` <b>")
    text = path.with_name("report.md").read_text()
    assert "<img" not in text and "[e](" not in text and "a|b" not in text and "_em_" not in text
    assert "mi|ne" not in text and "mi\\|ne \\$&lt;b&gt;" in text
    assert "``python eval.py `x` <b>``" in text
    assert "<img src=x" not in path.read_text() and "<b>.png" not in path.read_text()


def test_markdown_text():
    assert markdown_text("llic_elic_small, quality 3") == "llic_elic_small, quality 3"
    assert markdown_text("-0.12 %, 4:4:4 (a/b.png)") == "-0.12 %, 4:4:4 (a/b.png)"
    assert markdown_text("a\nb | *c*") == "a b \\| \\*c\\*"
    assert markdown_text(3) == 3


def test_the_busiest_window_is_found():
    image = np.full((60, 90, 3), 100, np.uint8)
    image[20:36:2, 50:66] = 200
    rows, columns = busiest(image, 20)
    assert rows.start <= 20 and rows.stop >= 35 and rows.stop - rows.start == 20
    assert columns.start <= 50 and columns.stop >= 66
    assert image[busiest(image, 500)].shape == image.shape


@pytest.mark.slow
def test_crops_are_of_equal_size_in_bytes(tiny_release, photograph):
    image = photograph[:180, :170]
    system = LlicSystem(tiny_release)
    ours = system.code(image, 2.0)
    crops = side_by_side(system, 2.0, image, [Baseline("JPEG"), Baseline("AVIF")], size=64)
    assert [crop.label for crop in crops] == ["original", tiny_release.name, "JPEG", "AVIF"]
    assert all(crop.pixels.shape == (64, 64, 3) for crop in crops)
    window = busiest(image, 64)
    np.testing.assert_array_equal(crops[0].pixels, image[window])
    np.testing.assert_array_equal(crops[1].pixels, ours.image[window])
    assert crops[1].bpp == 8 * ours.bytes / (180 * 170)
    for crop in crops[2:]:
        assert crop.bpp == pytest.approx(crops[1].bpp, rel=0.2)
    assert crops[0].bpp is None and 0 < crops[2].ms_ssim < 1


@pytest.mark.slow
def test_the_whole_report_of_a_model(tiny_release, photograph, tmp_path):
    system = LlicSystem(tiny_release)
    image = np.ascontiguousarray(photograph[:180, :170])
    images = [("a.png", image), ("b.png", np.ascontiguousarray(image[::-1]))]
    trials = [Trial(system, (1.0, 2.0)), Trial(Baseline("JPEG"), (20.0, 70.0))]
    image_set = ImageSet("photographs", None, images)
    output = Output(tmp_path, image_set)
    results = measure(trials, image_set, output, progress=False)
    html = write_report(results, image_set, trials, output).read_text()
    for title in (
        "Side by side",
        "Effective receptive field",
        "Bits by channel",
        "Bits over the image",
        "Generated 5x5 kernels",
        "Channel importance factors",
    ):
        assert title in html
