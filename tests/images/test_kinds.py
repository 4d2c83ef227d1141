"""One row for each kind of file that people have, with the value that is right for it."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from llic_jax.errors import ImageFileError
from llic_jax.images import colour, metadata
from llic_jax.images.photograph import Photograph, fill_hidden
from llic_jax.images.read import image_size, read_image, read_photograph, read_rgb
from llic_jax.images.write import write_photograph

HEIGHT, WIDTH = 24, 32
RGB = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = RGB[..., 0]
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
)


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(pixels: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG of `(H, W, C)` values of 8 or 16 bits, with chunks before the pixels."""
    height, width, channels = pixels.shape
    header = struct.pack(
        ">IIBBBBB", width, height, 8 * pixels.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0
    )
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    pieces = (
        chunk(b"IHDR", header),
        *chunks,
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"any\0\0" + zlib.compress(profile))


def saved(pixels: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes, **options) -> Photograph:
    return read_photograph(io.BytesIO(data), name="it", **options)


def shown(photograph: Photograph) -> np.ndarray:
    """What a screen shows of it: sRGB."""
    if photograph.icc is None:
        return photograph.rgb
    profile = ImageCms.ImageCmsProfile(io.BytesIO(photograph.icc))
    grey = profile.profile.xcolor_space.strip() == "GRAY"
    pixels = Image.fromarray(photograph.rgb).convert("L" if grey else "RGB")
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        pixels.mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    return np.asarray(transform.apply(pixels))


def of_linear(linear: np.ndarray) -> np.ndarray:
    """sRGB's 8 bits of linear light."""
    low, high = 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    return np.round(255 * np.where(linear <= 0.0031308, low, high))


GAMMA_22 = chunk(b"gAMA", struct.pack(">I", 45455))
SRGB_CHRM = chunk(
    b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
)
P3_CHRM = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
LINEAR_NAMED_SRGB = colour._rgb_profile("sRGB, linear", colour.SRGB, colour._gamma_curve(1.0))
SRGB_NAMED_OTHERWISE = colour._rgb_profile("Camera", colour.SRGB, colour._srgb_curve())
LITTLE_CMS_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3_NAMED_SRGB = colour._rgb_profile("sRGB", colour._PRIMARIES[12], colour._srgb_curve())
GREY_GAMMA = colour._profile(b"GRAY", "grey", {b"kTRC": colour._gamma_curve(1.8)})


@pytest.mark.parametrize(
    ("chunks", "right"),
    [
        ((), RGB),
        ((iccp(LITTLE_CMS_SRGB),), RGB),
        ((iccp(SRGB_NAMED_OTHERWISE),), RGB),
        ((GAMMA_22,), RGB),
        ((GAMMA_22, SRGB_CHRM), RGB),
        ((chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 100000))), RGB),
        ((chunk(b"cICP", bytes([1, 13, 0, 1])), iccp(LINEAR_NAMED_SRGB)), RGB),
        ((iccp(LINEAR_NAMED_SRGB),), of_linear(RGB / 255)),
        ((chunk(b"gAMA", struct.pack(">I", 100000)),), of_linear(RGB / 255)),
        ((chunk(b"gAMA", struct.pack(">I", 55556)),), of_linear((RGB / 255) ** 1.8)),
        ((chunk(b"cICP", bytes([1, 8, 0, 1])),), of_linear(RGB / 255)),
        ((chunk(b"cICP", bytes([1, 4, 0, 1])),), of_linear((RGB / 255) ** 2.2)),
    ],
)
def test_colours_are_those_that_the_file_states(chunks, right):
    photograph = read(png(RGB, *chunks))
    np.testing.assert_array_equal(photograph.rgb, RGB)
    assert (photograph.icc is None) == (right is RGB)
    assert np.abs(shown(photograph).astype(int) - right).max() <= 2


@pytest.mark.parametrize(
    "chunks",
    [
        (P3_CHRM,),
        (GAMMA_22, P3_CHRM),
        (chunk(b"cICP", bytes([12, 13, 0, 1])),),
        (iccp(P3_NAMED_SRGB),),
    ],
)
def test_wide_primaries_say_the_same_in_whatever_way(chunks):
    """A green of Display P3 that is within sRGB: linear light times P3's matrix to sRGB."""
    matrix = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    stored = np.full((4, 4, 3), (140, 180, 120), np.uint8)
    linear = ((stored[0, 0] / 255 + 0.055) / 1.055) ** 2.4
    found = shown(read(png(stored, *chunks)))[0, 0]
    assert np.abs(found - of_linear(matrix @ linear)).max() <= 2
    assert np.abs(found.astype(int) - stored[0, 0]).max() > 5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(RGB, chunk(b"cICP", bytes([9, 16, 0, 1]))), "PQ.*convert it to sRGB"),
        (png(RGB, chunk(b"cICP", bytes([9, 18, 0, 1]))), "HLG.*convert it to sRGB"),
        (png(RGB, chunk(b"cICP", bytes([77, 13, 0, 1]))), "not known.*convert it to sRGB"),
        (png(RGB.astype(np.uint16) * 257), r"more than 8 bits.*--to_8bit"),
        (png(np.dstack([RGB, GREY]).astype(np.uint16) * 257), r"more than 8 bits.*--to_8bit"),
        (png(RGB[..., :2].astype(np.uint16) * 257), r"more than 8 bits.*--to_8bit"),
        (png(RGB[..., :1].astype(np.uint16) * 257), r"more than 8 bits.*--to_8bit"),
        (b"P6 2 1 65535\n" + bytes(12), r"more than 8 bits.*--to_8bit"),
        (saved(GREY.astype(np.uint16) * 257, "TIFF"), r"more than 8 bits.*--to_8bit"),
        (saved(GREY.astype(np.float32), "TIFF"), "convert it to 8 bits"),
        (saved(GREY.astype(np.uint16) * 257, "JPEG2000"), r"more than 8 bits.*--to_8bit"),
        (png(RGB)[:8] + chunk(b"IHDR", bytes(10)) + png(RGB)[33:], "cannot be read as an image"),
        (png(RGB)[:60], "cannot be read as an image"),
        (b"", "cannot be read as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read as an image"),
    ],
)
def test_refusals_name_the_file_and_a_reason(data, message):
    with pytest.raises(ImageFileError, match=rf"^it .*{message}"):
        read(data)
    with pytest.raises(ImageFileError, match=r"^it "):
        read_rgb(io.BytesIO(data), name="it")


DEEP = np.random.default_rng(5).integers(0, 65536, (HEIGHT, WIDTH, 4), np.uint16)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_become_the_nearest_8_when_told_to(channels):
    deep = DEEP[..., :channels]
    right = np.round(deep / 257).astype(np.uint8)
    photograph = read(png(deep), to_8bit=True)
    colours = right[..., :1].repeat(3, -1) if channels < 3 else right[..., :3]
    np.testing.assert_array_equal(photograph.rgb, colours)
    assert photograph.grey == (channels < 3)
    if channels in (2, 4):
        np.testing.assert_array_equal(photograph.alpha, right[..., -1])
    assert "16 bits" in photograph.notes[0]
    if channels in (1, 3):
        key = chunk(b"tRNS", deep[5, 7].astype(">u2").tobytes())
        alpha = read(png(deep, key), to_8bit=True).alpha
        np.testing.assert_array_equal(alpha == 0, (deep == deep[5, 7]).all(-1))


@pytest.mark.parametrize(
    ("icc", "kept"),
    [(GREY_GAMMA, b"GRAY"), (SRGB_NAMED_OTHERWISE, None), (LINEAR_NAMED_SRGB, b"GRAY")],
)
@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_profiles_fit_the_pixels_that_are_written(tmp_path, icc, kept, with_alpha, suffix):
    pixels = np.dstack([GREY, np.maximum(GREY, 1)]) if with_alpha else GREY[..., None]
    photograph = read(png(pixels, iccp(icc)))
    assert photograph.grey
    write_photograph(tmp_path / f"x{suffix}", photograph)
    with Image.open(tmp_path / f"x{suffix}") as written:
        if suffix == ".webp":
            assert written.mode == ("RGBA" if with_alpha else "RGB")
            kept = kept and b"RGB "
        else:
            assert written.mode == ("LA" if with_alpha else "L")
        found = written.info.get("icc_profile")
    assert (found and found[16:20]) == kept
    if found:
        again = read_photograph(tmp_path / f"x{suffix}")
        # On average: of grey profiles, LittleCMS samples the dark end of a curve coarsely.
        assert np.abs(shown(again).astype(int) - shown(photograph)).mean() <= 0.5


def test_a_profile_of_other_pixels_goes():
    photograph = read(png(RGB, iccp(GREY_GAMMA)))
    assert photograph.icc is None and "left out" in photograph.notes[0]
    lab = ImageCms.createProfile("LAB")
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    buffer = io.BytesIO()
    smooth = np.full((8, 8, 3), (120, 90, 60), np.uint8)
    to_lab.apply(Image.fromarray(smooth)).save(
        buffer, "TIFF", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes()
    )
    photograph = read(buffer.getvalue())
    assert photograph.icc is None
    assert np.abs(photograph.rgb.astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("suffix", [".bmp", ".ppm"])
def test_what_a_format_cannot_hold_is_said(tmp_path, suffix):
    whole = Photograph(RGB, icc=P3_NAMED_SRGB, exif=exif(), xmp=XMP)
    notes = write_photograph(tmp_path / f"x{suffix}", whole)
    assert [note.split(" ")[0] for note in notes] == ["the", "EXIF", "XMP"]
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}"), RGB)


def exif(orientation: int = 1, size: int = 0) -> bytes:
    """EXIF with a maker, an orientation and a comment of so many bytes."""
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "a camera"
    tags[ExifTags.Base.Orientation] = orientation
    if size:
        tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = bytes(size)
    return tags.tobytes()


FLOAT_UNIT = (
    b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2)
    + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    + struct.pack("<HHIf", 0x0128, 11, 1, 2.0) + bytes(4)
)  # fmt: skip


ODD_EXIF = [  # a segment, whether it turns the image, whether it is kept
    (exif(6), True, True),
    (exif(1), False, True),
    (FLOAT_UNIT, True, True),
    (b"Exif\0\0this is no TIFF", False, False),
    (b"Exif\0\0", False, False),
    (b"Exif\0\0II*\0\xff\xff\xff\xff", False, False),
    (b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", False, False),
]


@pytest.mark.parametrize(
    ("segment", "turned", "kept", "kind"),
    [
        (*case, kind)
        for case in ODD_EXIF
        for kind in ("JPEG", "PNG", "WEBP", "AVIF")
        if not (kind == "AVIF" and case[1])  # an AVIF's orientation is a property of its own
    ],
)
def test_odd_exif_is_no_reason_to_refuse(segment, turned, kept, kind):
    smooth = np.full((HEIGHT, WIDTH, 3), (120, 90, 60), np.uint8)
    if kind == "PNG":
        data = png(smooth, chunk(b"eXIf", segment[6:]))
    elif kind == "AVIF":
        # Pillow's writer refuses odd EXIF: it is put in afterwards, in equally many bytes.
        tags = Image.Exif()
        tags[ExifTags.Base.Make] = "a camera" + 90 * " "
        sound = tags.tobytes()
        data = saved(smooth, "AVIF", exif=sound, quality=90)
        assert data.count(sound[6:]) == 1
        data = data.replace(sound[6:], segment[6:].ljust(len(sound) - 6, b"\0"))
    else:
        data = saved(smooth, kind, exif=segment, quality=90)
    photograph = read(data)
    assert photograph.rgb.shape == ((WIDTH, HEIGHT, 3) if turned else (HEIGHT, WIDTH, 3))
    assert (photograph.exif is not None) == kept
    size = image_size(io.BytesIO(data))
    assert size == photograph.rgb.shape[1::-1]
    if kept:
        again, _, _ = metadata.split_orientation(photograph.exif, None)
        assert again == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_every_orientation_is_applied_as_pillow_does(orientation, kind):
    from PIL import ImageOps

    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    data = saved(RGB, kind, exif=tags)
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        right = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(read(data).rgb, right)
    assert image_size(io.BytesIO(data)) == right.shape[1::-1]


def test_large_comments_are_no_reason_to_refuse():
    information = PngImagePlugin.PngInfo()
    information.add_text("workflow", "node " * 700_000, zip=True)
    photograph = read(saved(RGB, "PNG", pnginfo=information))
    np.testing.assert_array_equal(photograph.rgb, RGB)
    assert photograph.comments == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_metadata_comes_back(tmp_path, suffix):
    whole = Photograph(RGB, exif=exif(), xmp=XMP, dpi=(300.0, 300.0))
    notes = write_photograph(tmp_path / f"x{suffix}", whole)
    found = read_photograph(tmp_path / f"x{suffix}")
    assert found.xmp == XMP and b"a camera" in found.exif
    assert (found.dpi, notes) == (
        (None, ["the resolution is left out: .webp does not hold it"])
        if suffix == ".webp"
        else ((300.0, 300.0), [])
    )


def test_metadata_that_does_not_fit_is_left_out_and_said(tmp_path):
    large = Photograph(
        RGB, icc=P3_NAMED_SRGB.ljust(3 << 20, b"\0"), exif=exif(size=80_000), xmp=XMP
    )
    (note,) = write_photograph(tmp_path / "x.png", large)
    assert "colour profile" in note
    with Image.open(tmp_path / "x.png") as opened:
        np.testing.assert_array_equal(np.asarray(opened), RGB)
    (note,) = write_photograph(tmp_path / "x.jpg", large)
    assert note.startswith("EXIF of 80") and read_photograph(tmp_path / "x.jpg").xmp == XMP
    odd = Photograph(RGB, exif=b"Exif\0\0 this is none")
    (note,) = write_photograph(tmp_path / "x.tif", odd)
    assert "EXIF" in note
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), RGB)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "AVIF"])
def test_further_pictures_are_mentioned(kind):
    frames = [Image.fromarray(RGB[..., k : k + 1].repeat(3, -1)) for k in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    assert "only the first of 3" in read(buffer.getvalue()).notes[0]


def test_heic_is_read_where_its_plugin_is_installed(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    from llic_jax.data.image_files import image_files

    smooth = np.full((HEIGHT, WIDTH, 3), (120, 90, 60), np.uint8)
    path = tmp_path / "x.HEIC"
    heif.from_pillow(Image.fromarray(smooth)).save(path, quality=95)
    photograph = read_photograph(path)
    assert photograph.icc is None and image_size(path) == (WIDTH, HEIGHT)
    assert np.abs(photograph.rgb.astype(int) - smooth).max() <= 4
    assert [found.name for found in image_files(tmp_path)] == ["x.HEIC"]


def test_the_limit_on_pixels_is_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("PNG", "TIFF", "GIF", "WEBP"):
            read(saved(RGB, kind))
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ImageFileError, match="at most 700 are allowed"):
        read(png(RGB), max_pixels=700)


def test_hidden_colours_are_filled_smoothly():
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[4:12, 4:12] = 200
    smooth = np.full((HEIGHT, WIDTH, 3), (120, 90, 60), np.uint8)
    noisy = np.where(alpha[..., None] > 0, smooth, RGB)
    np.testing.assert_array_equal(fill_hidden(noisy, alpha), smooth)
    np.testing.assert_array_equal(fill_hidden(RGB, np.maximum(alpha, 1)), RGB)
    assert fill_hidden(RGB, np.zeros_like(alpha)).std() == 0
    filled = fill_hidden(RGB, alpha)
    np.testing.assert_array_equal(filled[4:12, 4:12], RGB[4:12, 4:12])
    # One rule for what is learned from as well.
    data = png(np.dstack([noisy, alpha]))
    np.testing.assert_array_equal(read_rgb(io.BytesIO(data)), smooth)
    np.testing.assert_array_equal(read(data).visible, alpha > 0)
