import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from llic_jax.errors import ImageFileError
from llic_jax.images.photograph import Photograph
from llic_jax.images.read import read_image, read_photograph
from llic_jax.images.write import write_image, write_photograph
from llic_jax.system.files import whole_file


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".bmp", ".ppm"])
def test_lossless_formats_round_trip(tmp_path, rgb, suffix):
    path = tmp_path / f"image{suffix}"
    write_image(path, rgb)
    np.testing.assert_array_equal(read_image(path), rgb)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_grey_palette_and_opaque_alpha_become_rgb(tmp_path, rgb):
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    grey = read_image(tmp_path / "grey.png")
    np.testing.assert_array_equal(grey, np.repeat(rgb[..., :1], 3, -1))
    Image.fromarray(rgb).quantize(16).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == rgb.shape
    Image.fromarray(rgb).convert("RGBA").save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), rgb)


def test_exif_orientation_is_applied(tmp_path, rgb):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(rgb, -1))


def test_what_cannot_be_kept_is_refused_with_a_remedy(tmp_path, rgb):
    transparent = Image.fromarray(rgb).convert("RGBA")
    transparent.putpixel((0, 0), (1, 2, 3, 100))
    transparent.save(tmp_path / "transparent.png")
    with pytest.raises(ImageFileError, match="flatten"):
        read_image(tmp_path / "transparent.png")
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ImageFileError, match="convert it to 8 bits"):
        read_image(tmp_path / "deep.png")
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.jpg")
    with pytest.raises(ImageFileError, match="CMYK"):
        read_image(tmp_path / "print.jpg")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageFileError, match="cannot be read"):
        read_image(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageFileError, match="suffix"):
        write_image(tmp_path / "image.xyz", rgb)
    with pytest.raises(ImageFileError, match=r"write \.png"):
        write_photograph(tmp_path / "x.jpg", Photograph(rgb, alpha=rgb[..., 0]))
    with pytest.raises(ImageFileError, match="cannot be written"):
        write_photograph(tmp_path / "x.jpg", Photograph(rgb, exif=bytes(100_000)))
    assert not (tmp_path / "x.jpg").exists()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("grey", [False, True])
def test_what_belongs_to_a_photograph_round_trips(tmp_path, rgb, suffix, grey):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 200
    if grey:
        rgb = np.repeat(rgb[..., :1], 3, -1)
    icc = b"not really a profile"
    whole = Photograph(rgb, grey, alpha=rgb[..., 0], icc=icc, exif=exif.tobytes())
    path = tmp_path / f"image{suffix}"
    write_photograph(path, whole)
    found = read_photograph(path)
    np.testing.assert_array_equal(found.rgb, rgb)
    np.testing.assert_array_equal(found.alpha, rgb[..., 0])
    assert found.icc == icc
    if suffix == ".tif":
        return  # its metadata are tags among those of the image
    kept = Image.Exif()
    kept.load(found.exif)
    assert kept[ExifTags.Base.Make] == "a camera"
    assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 200


def test_grey_images_stay_grey(tmp_path, rgb):
    write_photograph(tmp_path / "grey.png", Photograph(rgb[..., :1].repeat(3, -1), True))
    assert Image.open(tmp_path / "grey.png").mode == "L"
    found = read_photograph(tmp_path / "grey.png")
    assert found.grey and found.alpha is None and found.exif is None
    np.testing.assert_array_equal(found.rgb, rgb[..., :1].repeat(3, -1))


def test_srgb_profiles_are_left_out(tmp_path, rgb):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgb).save(tmp_path / "srgb.png", icc_profile=profile)
    assert read_photograph(tmp_path / "srgb.png").icc is None


def test_an_applied_orientation_is_not_kept(tmp_path, rgb):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    assert read_photograph(tmp_path / "turned.png").exif is None


def test_an_output_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("the disk is full")
    assert path.read_bytes() == b"before"
    with whole_file(path) as temporary:
        temporary.write_bytes(b"after")
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]
