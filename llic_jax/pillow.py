"""A plugin for Pillow: after `import llic_jax.pillow`, Pillow opens and saves `.llic` files.

    import llic_jax.pillow
    from PIL import Image

    Image.open("photo.jpg").save("photo.llic", quality=4)
    image = Image.open("photo.llic")  # size, mode, profile and metadata; no model is loaded
    image.thumbnail((256, 256))       # decodes

A file that was cut opens where Pillow's `ImageFile.LOAD_TRUNCATED_IMAGES` is set, as a preview;
one that was saved with `progressive=True` with profile, metadata and alpha.

imageio and scikit-image read and write through Pillow. Opening reads the whole file, whose checksum
is checked; models load with the first pixels and stay loaded. JAX does not survive a fork: see
`llic_jax.codec.codec.Codec`.

Options of `save`:

    quality        1 to the model's number of levels, continuous; the middle by default
    target_bpp     in its place: the best quality within so many bits per pixel
    target_psnr    in its place: the smallest file of so many dB
    effort         gradient steps on the image's latents before they are coded
    effort_seconds bounds them by time; alone, as many as it allows
    strict_llic    code drawings and patterns by the networks, too
    progressive    profile, alpha, metadata and checks before the pixels, for a part of the file
    model          name or folder of a model, or a `Codec`
    icc_profile    that of the image by default; None for sRGB
    exif, xmp, dpi kept if they are given, as for WebP. A file's pixels are upright: an orientation
                   in EXIF or XMP is applied to them

An image of more than 8 bits a channel is refused, as Pillow refuses it for JPEG; CMYK is converted
without its profile.
"""

from typing import Any

from PIL import Image, ImageFile

from llic_jax.bitstream.file import MAGIC, LlicFile
from llic_jax.bitstream.sections import fields_without_pixels, photograph_fields
from llic_jax.bitstream.tags import ALPHA
from llic_jax.errors import LlicError, PillowError
from llic_jax.images.from_pillow import EIGHT_BIT_MODES, photograph_of
from llic_jax.images.write import as_pillow, profile_to_write
from llic_jax.zoo.header import Header, header_of

FORMAT = "LLIC"
_CHOICES = (
    *("quality", "target_bpp", "target_psnr", "effort", "effort_seconds", "strict_llic"),
    *("progressive", "model"),
)


class LlicImageFile(ImageFile.ImageFile):
    """An opened `.llic` file, of mode L, LA, RGB or RGBA.

    Attributes:
        header: What the file says of its model, quality and format.
        info: Pillow's, with `icc_profile`, `exif`, `xmp` and `dpi` as far as the file has them.
    """

    format = FORMAT
    format_description = "LLIC, a learned image codec"
    header: Header
    _data: bytes | None = None  # the file, until its pixels are decoded

    def _open(self) -> None:
        assert self.fp is not None
        data = self.fp.read()
        try:
            file = _parse(data)
            self.header, fields = header_of(file), fields_without_pixels(file)
        except LlicError as error:
            raise PillowError(str(error)) from error
        icc, self._grey = profile_to_write(fields["icc"], fields["grey"])
        kept = {"icc_profile": icc, "exif": fields["exif"], "xmp": fields["xmp"]}
        self.info |= {name: content for name, content in kept.items() if content}
        if fields["dpi"]:
            self.info["dpi"] = fields["dpi"]
        self._size = file.width, file.height
        self._mode = ("L" if self._grey else "RGB") + ("A" if ALPHA in file.sections else "")
        self._data = data

    def load(self) -> Any:
        """Decodes the pixels, once.

        Returns:
            Pillow's access to them.

        Raises:
            PillowError: The file cannot be decoded, or its model is not installed.
        """
        if self._data is not None:
            from llic_jax.zoo.library import shared_library

            try:
                preview = ImageFile.LOAD_TRUNCATED_IMAGES
                (photograph,) = shared_library().decode_photographs([self._data], preview)
            except LlicError as error:
                raise PillowError(str(error)) from error
            self.im = as_pillow(photograph, self._grey).im
            self._data = None
            super().verify()  # closes the file, which was read when it was opened
        return super().load()

    def verify(self) -> None:
        """Checks all that can be checked without a model, and closes the file.

        Raises:
            PillowError: The alpha channel or a section is damaged. Everything else was checked when
                the file was opened.
        """
        if self._data is not None:
            try:
                photograph_fields(_parse(self._data))
            except LlicError as error:
                raise PillowError(str(error)) from error
        super().verify()


def _parse(data: bytes) -> LlicFile:
    """A file; a part of one too, where Pillow is told to take such."""
    whole = not ImageFile.LOAD_TRUNCATED_IMAGES
    return LlicFile.from_bytes(data) if whole else LlicFile.from_start(data)


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def _save(image: Image.Image, file: Any, filename: str | bytes) -> None:
    """Writes an image; `image.encoderinfo` holds the options of `save`."""
    options = image.encoderinfo
    if image.mode not in EIGHT_BIT_MODES:
        raise PillowError(
            f"cannot write mode {image.mode} as {FORMAT}: it takes 8 bits a channel. "
            'Convert the image first, e.g. image.convert("RGB").'
        )
    from llic_jax.zoo.library import compress

    kept = {name: options.get(name) for name in ("exif", "xmp", "dpi")}
    icc = options.get("icc_profile", image.info.get("icc_profile"))
    chosen = {name: options[name] for name in _CHOICES if name in options}
    file.write(compress(photograph_of(image, icc=icc, **kept), keep_exif=True, **chosen))


Image.register_open(FORMAT, LlicImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".llic")
Image.register_mime(FORMAT, "image/x-llic")
