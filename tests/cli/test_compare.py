"""`llic compare`: one page with the pictures of every codec in it."""

import base64
import io
import re
import webbrowser

import numpy as np
import pytest
from PIL import Image

from llic_jax.cli.main import main
from llic_jax.images.read import read_image
from llic_jax.report.side_by_side import busiest

SIDE = 40


@pytest.fixture
def photo(photograph, tmp_path):
    path = tmp_path / "<b>photo.png"
    Image.fromarray(photograph[:64, :72]).save(path)
    return path


def compare(release, photo, page, *options):
    flags = ("-o", page, "--checkpoint", release, "--quality", 1.5, "--size", SIDE, *options)
    return main([str(x) for x in ("compare", photo, *flags)])


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


@pytest.mark.parametrize("equal", ["bytes", "psnr"])
def test_a_page_of_one_photograph(equal, tiny_release, photo, tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: not opened.append(address))
    path = tmp_path / "page.html"
    options = ("--codecs", "jpeg", "webp", "--equal", equal)
    assert compare(tiny_release, photo, path, *options) == 0
    assert opened == [path.as_uri()]
    lines = capsys.readouterr().out.splitlines()
    figures = [re.search(r"(LLIC|JPEG|WebP) +(\d+) bytes +([\d.]+) dB", line) for line in lines[:3]]
    assert [found[1] for found in figures] == ["LLIC", "JPEG", "WebP"]
    page = path.read_text()
    original, *decoded = pictures(page)
    image = read_image(photo)
    np.testing.assert_array_equal(original, image[busiest(image, SIDE)])
    assert [one.shape for one in decoded] == [(SIDE, SIDE, 3)] * 3
    # Its own file: no address but those of the pictures, and names are text.
    assert not re.search(r"(src|href)=.(?!data:|\{)", page)
    assert "&lt;b&gt;photo.png" in page and "<b>photo" not in page


def test_what_is_wrong_is_said(tiny_release, photo, tmp_path, capsys):
    path = tmp_path / "page.html"
    path.write_text("mine")
    assert compare(tiny_release, photo, path, "--no-open") == 1
    assert "page.html exists" in capsys.readouterr().err and path.read_text() == "mine"
    assert compare(tiny_release, photo, path, "--force", "--codecs", "heic") == 1
    assert "No codec 'heic'" in capsys.readouterr().err and path.read_text() == "mine"
