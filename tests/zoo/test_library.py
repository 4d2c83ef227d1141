"""One call from an image to bytes and back."""

import numpy as np
import pytest
from PIL import Image

import llic_jax
from llic_jax.bitstream.file import LlicFile
from llic_jax.bitstream.tags import EXIF, GREY, ICC
from llic_jax.codec.rate_control import Quality
from llic_jax.errors import ImageFileError, InputError
from llic_jax.zoo import library


@pytest.fixture(autouse=True)
def installed(tiny_codec, monkeypatch):
    shared = library.ModelLibrary(only=tiny_codec)
    monkeypatch.setattr(library, "shared_library", lambda: shared)


def test_files_pillow_images_and_arrays(tmp_path, photograph, tiny_codec):
    pixels = photograph[:50, :60]
    expected = tiny_codec.compress(pixels, 2.0)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    for given in (pixels, image, tmp_path / "a.png", str(tmp_path / "a.png")):
        assert llic_jax.compress(given, 2.0) == expected
    (tmp_path / "a.llic").write_bytes(expected)
    for coded in (expected, tmp_path / "a.llic", str(tmp_path / "a.llic")):
        np.testing.assert_array_equal(llic_jax.decompress(coded), tiny_codec.decompress(expected))


def test_what_goes_along(photograph):
    image = Image.fromarray(photograph[:50, :60])
    image.info |= {"icc_profile": b"a profile", "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0"}
    file = LlicFile.from_bytes(llic_jax.compress(image))
    assert ICC in file.sections and EXIF not in file.sections
    assert GREY in LlicFile.from_bytes(llic_jax.compress(photograph[:50, :60, 0])).sections


def test_rates_and_refusals(tmp_path, photograph, tiny_codec):
    pixels = photograph[:50, :60]
    assert 8 * len(llic_jax.compress(pixels, target_bpp=4.0)) <= 4.0 * 3000
    with pytest.raises(InputError, match="not both"):
        llic_jax.compress(pixels, 1.0, target_psnr=30.0)
    with pytest.raises(ImageFileError, match="8 bits"):
        llic_jax.compress(Image.new("I;16", (8, 8)))
    with pytest.raises(FileNotFoundError):
        llic_jax.compress(tmp_path / "none.png")


def test_results(photograph, tiny_codec):
    pixels = photograph[:50, :60]
    (result,) = tiny_codec.encode([pixels], Quality(2))
    assert result.bpp == 8 * len(result.data) / 3000
    error = np.square(pixels.astype(float) - tiny_codec.decompress(result.data)).mean()
    assert tiny_codec.psnr(pixels, result) == pytest.approx(10 * np.log10(255**2 / error), 1e-4)


def test_public_names_show():
    assert {*llic_jax.__all__, "__version__"} == set(dir(llic_jax))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        llic_jax.nothing  # noqa: B018
