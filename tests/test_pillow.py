"""The plugin, as Pillow's own tests look at theirs."""

import copy
import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from llic_jax.bitstream.file import LlicFile
from llic_jax.bitstream.tags import ALPHA
from llic_jax.errors import InputError, PillowError
from llic_jax.images import colour
from llic_jax.pillow import LlicImageFile
from llic_jax.zoo import library

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def installed(tiny_release, tiny_codec, monkeypatch):
    """The tiny model is the one that the plugin's library loads."""
    monkeypatch.setenv("LLIC_MODELS", str(tiny_release))
    monkeypatch.setattr(library, "DEFAULT_FOLDER", tiny_release)
    shared = library.ModelLibrary(load=lambda folder: tiny_codec)
    monkeypatch.setattr(library, "shared_library", lambda: shared)


@pytest.fixture
def picture(photograph) -> Image.Image:
    return Image.fromarray(photograph[:50, :60])


@pytest.fixture
def coded(picture, tiny_codec) -> bytes:
    return tiny_codec.compress(picture)


def _saved(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "LLIC", **options)
    return buffer.getvalue()


def _opened(image: Image.Image, **options) -> Image.Image:
    return Image.open(io.BytesIO(_saved(image, **options)))


def test_opening_loads_no_model(tmp_path, coded):
    path = tmp_path / "a.llic"
    path.write_bytes(coded)
    code = (
        "import sys, llic_jax.pillow; from PIL import Image\n"
        f"image = Image.open({str(path)!r}); print(image.format, image.mode, *image.size)\n"
        "image.verify(); assert 'jax' not in sys.modules, 'JAX'"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and run.stdout.split() == ["LLIC", "RGB", "60", "50"], run.stderr


def test_pixels_are_the_codecs(tmp_path, coded, tiny_codec):
    path = tmp_path / "a.llic"
    path.write_bytes(coded)
    with Image.open(path) as image:
        assert isinstance(image, LlicImageFile)
        assert image.get_format_mimetype() == "image/x-llic"
        assert image.header.quality == tiny_codec.default_quality
        np.testing.assert_array_equal(np.asarray(image), tiny_codec.decompress(coded))
        assert image.load()[0, 0] == tuple(np.asarray(image)[0, 0])  # and again
    path.unlink()  # nothing holds it


def test_save_takes_the_codecs_options(tmp_path, picture, tiny_codec):
    picture.save(tmp_path / "a.llic", quality=1.5)
    assert (tmp_path / "a.llic").read_bytes() == tiny_codec.compress(picture, 1.5)
    assert _saved(picture, quality=2.0, model=tiny_codec) == tiny_codec.compress(picture, 2.0)
    small = _saved(picture, target_bpp=4.0)
    assert 8 * len(small) <= 4.0 * 3000
    with pytest.raises(InputError, match="1 to 2"):
        _saved(picture, quality=75.0)
    with pytest.raises(InputError, match="not both"):
        _saved(picture, quality=1.0, target_psnr=30.0)
    with pytest.raises(InputError, match="quality is 9"):
        picture.save(tmp_path / "b.llic", quality=9.0)
    assert not (tmp_path / "b.llic").exists()  # Pillow removes what it has begun


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("1", "L"),
        ("L", "L"),
        ("LA", "LA"),
        ("P", "RGB"),
        ("RGBA", "RGBA"),
        ("CMYK", "RGB"),
        ("YCbCr", "RGB"),
    ],
)
def test_modes(picture, mode, expected):
    image = picture.convert("RGBA") if mode in ("LA", "RGBA") else picture
    if mode in ("LA", "RGBA"):
        ramp = np.arange(3000, dtype=np.uint16).reshape(50, 60).astype(np.uint8)
        image.putalpha(Image.fromarray(ramp))
    opened = _opened(image.convert(mode))
    assert opened.mode == expected and opened.size == (60, 50)
    opened.load()
    assert opened.mode == opened.im.mode == expected
    if "A" in expected:
        np.testing.assert_array_equal(np.asarray(opened)[..., -1], ramp)


def test_a_palette_with_transparency_and_opaque_alpha(picture):
    palette = picture.quantize(16)
    palette.info["transparency"] = 3
    assert _opened(palette).mode == "RGBA"
    assert _opened(picture.convert("RGBA")).mode == "RGB"  # nothing is transparent


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused(mode):
    with pytest.raises(OSError, match=f"cannot write mode {mode} as LLIC"):
        _saved(Image.new(mode, (8, 8)))


def test_profile_and_metadata(picture):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    exif[ExifTags.Base.Orientation] = 6
    grey_profile = colour.of_png({b"gAMA": (50000).to_bytes(4, "big")}, None, True)
    kept = {"exif": exif, "xmp": b"<x:xmpmeta/>", "dpi": (300, 200)}
    image = _opened(picture, icc_profile=b"a profile", **kept)
    assert image.size == (50, 60)  # upright, and so it stays
    assert image.getexif()[ExifTags.Base.Make] == "a camera"
    assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert ImageOps.exif_transpose(image).size == (50, 60)
    assert image.info["xmp"] == b"<x:xmpmeta/>" and image.info["dpi"] == (200, 300)
    assert image.info["icc_profile"] == b"a profile"

    picture.info |= {"icc_profile": b"its own", "exif": exif.tobytes()}
    image = _opened(picture)
    assert image.info == {"icc_profile": b"its own"}  # metadata goes along when it is asked for
    assert "icc_profile" not in _opened(picture, icc_profile=None).info
    assert _opened(picture.convert("L"), icc_profile=grey_profile).info["icc_profile"]


def test_what_pillow_does_with_images(coded):
    image = Image.open(io.BytesIO(coded))
    image.thumbnail((20, 20))
    assert image.size == (20, 17) == image.copy().size
    image = Image.open(io.BytesIO(coded))
    whole = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(ImageOps.mirror(image)), whole[:, ::-1])
    assert image.crop((10, 0, 30, 20)).size == image.resize((20, 20)).size == (20, 20)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(buffer)), whole)


def test_pickled_and_copied(coded):
    lazy, loaded = (Image.open(io.BytesIO(coded)) for _ in range(2))
    loaded.load()
    for image in (lazy, loaded):
        for other in (pickle.loads(pickle.dumps(image)), copy.copy(image), copy.deepcopy(image)):
            assert other.tobytes() == loaded.tobytes() and other.mode == "RGB"


def test_verify_finds_a_damaged_alpha_channel(coded):
    image = Image.open(io.BytesIO(coded))
    image.verify()
    file = LlicFile.from_bytes(coded)
    file.sections[ALPHA] = b"no PNG"
    damaged = file.to_bytes()
    with pytest.raises(PillowError, match="alpha"):
        Image.open(io.BytesIO(damaged)).verify()
    with pytest.raises(OSError, match="alpha"):
        Image.open(io.BytesIO(damaged)).load()


def test_truncated_damaged_and_foreign(coded, monkeypatch):
    for end in (5, len(coded) // 2, len(coded) - 1):
        with pytest.raises(OSError, match="ends"):
            Image.open(io.BytesIO(coded[:end]))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    start = Image.open(io.BytesIO(coded[: len(coded) // 2]))
    assert start.size == (60, 50) and np.asarray(start).std() > 1
    monkeypatch.undo()
    changed = bytearray(coded)
    changed[len(coded) // 2] ^= 1
    with pytest.raises(OSError, match="checksum"):
        Image.open(io.BytesIO(changed))
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"LLI, and something else"))


def test_a_part_of_a_progressive_file(picture, monkeypatch):
    image = picture.convert("RGBA")
    ramp = np.arange(3000, dtype=np.uint16).reshape(50, 60).astype(np.uint8)
    image.putalpha(Image.fromarray(ramp))
    kept = {"icc_profile": b"a profile", "xmp": b"<x:xmpmeta/>", "progressive": True}
    data = _saved(image, **kept)
    assert LlicFile.from_bytes(data).version == 5
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    start = Image.open(io.BytesIO(data[:-200]))
    assert start.mode == "RGBA" and start.info["icc_profile"] == b"a profile"
    assert start.info["xmp"] == b"<x:xmpmeta/>"
    np.testing.assert_array_equal(np.asarray(start)[..., 3], ramp)
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert 0 < np.abs(np.asarray(start.convert("RGB")) - whole).mean() < whole.std()


def test_a_model_that_is_not_here(coded):
    file = LlicFile.from_bytes(coded)
    unknown = LlicFile(**{**vars(file), "fingerprint": b"unknown."}).to_bytes()
    image = Image.open(io.BytesIO(unknown))
    for _ in range(2):
        with pytest.raises(PillowError, match="neither installed"):
            image.load()
    assert image.size == (60, 50)


def test_many_threads(coded):
    def mean(_: int) -> float:
        return float(np.asarray(Image.open(io.BytesIO(coded))).mean())

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(mean, range(8)))) == 1


def test_imageio_and_scikit_image(tmp_path, photograph, coded, tiny_codec):
    imageio = pytest.importorskip("imageio.v3")
    skimage_io = pytest.importorskip("skimage.io")
    path = tmp_path / "a.llic"
    path.write_bytes(coded)
    expected = tiny_codec.decompress(coded)
    np.testing.assert_array_equal(imageio.imread(path, plugin="pillow"), expected)
    assert imageio.immeta(path, plugin="pillow")["mode"] == "RGB"
    imageio.imwrite(tmp_path / "b.llic", photograph[:50, :60], plugin="pillow", quality=2.0)
    assert LlicFile.from_bytes((tmp_path / "b.llic").read_bytes()).quality == 2
    np.testing.assert_array_equal(skimage_io.imread(path), expected)
