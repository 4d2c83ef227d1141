"""Images to `.llic` bytes and back, for one model.

    compress     image -> g_a -> y -> h_a -> z -> symbols -> range encoder -> File -> bytes
                          z_hat -> h_s -> walk(quantize) ---^
    decompress   bytes -> File -> range decoder -> z_hat -> h_s -> walk(decode) -> y_hat
                                                                  y_hat -> g_s -> image

Encoder and decoder call the same compiled programs for everything that decides which table a symbol
is coded with: `hyper_synthesize`, each step's `entropy_params` and `refine`, and `rows`. Two
programs of the same formulas may differ in the last bit, and then the stream is lost.
"""

import dataclasses
import time
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from llic_jax import metrics
from llic_jax.coding import bitstream
from llic_jax.coding.bitstream import BitstreamError, CorruptError, File
from llic_jax.coding.range_coder import CODERS, Decoder, Encoder, coder_by_ident, default_coder
from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import coded_bits, scale_index
from llic_jax.entropy.walk import Step, walk
from llic_jax.errors import LlicError
from llic_jax.model import DOWNSAMPLING, LLIC
from llic_jax.ops import pad_to_multiple

MAX_PIXELS = 1 << 28  # 16384 x 16384


class InputError(LlicError, ValueError):
    """An argument that no image can be compressed with."""


class WrongModelError(BitstreamError):
    """The file was written with other weights."""


class UnknownCoderError(BitstreamError):
    """The file was written with a range coder that this software does not have."""


class Latents(NamedTuple):
    """The latents of one image, before they are rounded."""

    y: Float[Array, "1 h16 w16 m"]
    z: Float[Array, "1 h64 w64 n"]


@dataclasses.dataclass(frozen=True)
class Compressed:
    """What compressing an image yields.

    data: the file's bytes. y_hat: the decoded latent, from which `Codec.reconstruct` makes the very
    image that the decoder will make. bits: the file's size as estimated: the model's own estimate
    for y and z, and the header. network_seconds, coder_seconds: time spent in the networks and in
    the range coder.
    """

    data: bytes
    y_hat: Float[Array, "1 h16 w16 m"]
    bits: float
    network_seconds: float
    coder_seconds: float


@dataclasses.dataclass(frozen=True)
class Decompressed:
    """What decompressing a file yields: image `(H, W, 3)` uint8, and the time spent."""

    image: UInt8[np.ndarray, "h w 3"]
    network_seconds: float
    coder_seconds: float


class Codec:
    """A model, its parameters and its coding tables, ready to code.

    fingerprint: 8 bytes that stand for config, weights and tables; written into every file.
    coder: name of the range coder that files are written with (the first that is installed); files
        of every installed coder are read.
    lmbdas: weight of the squared error at each quality level that the model was trained with; none
        where it was trained for something else. Only `effort` asks for them.
    """

    def __init__(
        self,
        model: LLIC,
        params: Any,
        tables: Tables,
        fingerprint: bytes,
        coder: str | None = None,
        lmbdas: Sequence[float] = (),
    ):
        coder = coder or default_coder()
        if coder not in CODERS:
            raise InputError(f"coder is {coder!r}; known are {', '.join(CODERS)}.")
        self.model, self.params, self.tables = model, params, tables
        self.fingerprint, self.coder, self.lmbdas = fingerprint, coder, tuple(lmbdas)

    @property
    def default_quality(self) -> float | None:
        """The middle of the range; None for a model of one rate."""
        return (1 + self.model.levels) / 2 if self.model.levels > 1 else None

    def compress(self, image: np.ndarray, quality: float | None = None) -> bytes:
        """The image's `.llic` bytes (see `encode`)."""
        return self.encode(image, quality).data

    def decompress(self, data: bytes) -> UInt8[np.ndarray, "h w 3"]:
        """The image in these `.llic` bytes (see `decode`)."""
        return self.decode(data).image

    def analyze(self, image: np.ndarray, quality: float | None = None) -> Latents:
        """What `encode` rounds and codes.

        Raises:
          InputError: as `encode`.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise InputError(
                f"Found an array {image.shape} of {image.dtype}; expected (height, width, 3) of "
                "uint8, at least 1 x 1."
            )
        _check_pixels(image.shape[1], image.shape[0])
        x = pad_to_multiple(jnp.asarray(image[None], jnp.float32) / 255, DOWNSAMPLING)
        return self._programs.analyze(self.params, x, self._level(self._file_quality(quality)))

    def encode(
        self, image: np.ndarray, quality: float | None = None, latents: Latents | None = None
    ) -> Compressed:
        """Compresses an RGB image of any size from 1x1 up.

        image: `(H, W, 3)`, uint8.
        quality: 1 to the model's number of levels, continuous; for models of several rates only.
        latents: what to code in place of `analyze`'s latents of this image at this quality.

        Raises:
          InputError: an array that is no such image, or a quality out of range.
        """
        clock = _Clock()
        y, z = clock.network(latents if latents is not None else self.analyze(image, quality))
        height, width = image.shape[:2]
        quality = self._file_quality(quality)

        level = self._level(quality)
        z_hat, bits_z = clock.network(self._programs.round_hyper(self.params, z))
        encoder = _CheckedEncoder(CODERS[self.coder].encoder(self.tables), clock)
        encoder.put(np.asarray(z_hat, np.int32), self._hyper_rows(z_hat.shape))

        def code(k: int, step: Step, mean: Array, scale: Array) -> tuple[Array, Array]:
            symbols, values, bits = self._programs.quantize(step, y, mean, scale)
            rows = clock.network(self._programs.rows(scale))
            encoder.put(np.asarray(symbols), np.asarray(rows) + self.tables.hyper_rows)
            return values, bits

        y_hat, bits_y = self._walk(z_hat, level, code, clock)
        payload = encoder.finish()
        data = File(
            fingerprint=self.fingerprint,
            coder=CODERS[self.coder].ident,
            quality=quality or 0.0,
            width=width,
            height=height,
            symbols_crc=encoder.crc,
            payload=payload,
        ).to_bytes()
        header = 8 * (len(data) - len(payload))
        bits = float(bits_z) + sum(map(float, bits_y)) + header
        return Compressed(data, y_hat, bits, clock.network_seconds, clock.coder_seconds)

    def decode(self, data: bytes) -> Decompressed:
        """Decompresses.

        Raises:
          BitstreamError: one of its subclasses, for anything that is wrong with the bytes or that
            keeps this codec from reading them; never a wrong image.
        """
        file = bitstream.parse(data)
        self._check_readable(file)
        clock = _Clock()
        pair = coder_by_ident(file.coder)
        assert pair is not None
        level = self._level(file.quality or None)
        h, w = (-(-side // DOWNSAMPLING) for side in (file.height, file.width))
        decoder = _CheckedDecoder(pair.decoder(self.tables, file.payload), clock)
        z_shape = (1, h, w, self.tables.hyper_rows)
        z_hat = jnp.asarray(decoder.get(self._hyper_rows(z_shape)), jnp.float32)

        def code(k: int, step: Step, mean: Array, scale: Array) -> tuple[Array, None]:
            rows = clock.network(self._programs.rows(scale))
            symbols = decoder.get(np.asarray(rows) + self.tables.hyper_rows)
            return self._programs.add(jnp.asarray(symbols), mean), None

        y_hat, _ = self._walk(z_hat, level, code, clock)
        if not decoder.finish() or decoder.crc != file.symbols_crc:
            raise CorruptError(
                "The decoded symbols are not those that were coded: this platform computed other "
                "probabilities than the one that wrote the file. No image is returned."
            )
        image = self._image(y_hat, level, file.height, file.width, clock)
        return Decompressed(image, clock.network_seconds, clock.coder_seconds)

    def reconstruct(
        self, compressed: Compressed, height: int, width: int
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The image that the decoder will make, without decoding."""
        quality = bitstream.parse(compressed.data).quality
        return self._image(compressed.y_hat, self._level(quality or None), height, width, _Clock())

    def _walk(
        self, z_hat: Array, level: Array | None, code: Callable, clock: "_Clock"
    ) -> tuple[Array, list[Any]]:
        hyper = clock.network(self._programs.hyper_synthesize(self.params, z_hat, level))
        _, h, w, _ = z_hat.shape
        scale_up = DOWNSAMPLING // 16
        shape = (1, scale_up * h, scale_up * w, self.model.latent_channels)
        return walk(_CompiledSteps(self._programs, self.params, clock), hyper, shape, code)

    def _image(
        self, y_hat: Array, level: Array | None, height: int, width: int, clock: "_Clock"
    ) -> np.ndarray:
        x_hat = clock.network(self._programs.synthesize(self.params, y_hat, level))
        return np.asarray(x_hat)[0, :height, :width]

    def _hyper_rows(self, shape: tuple[int, ...]) -> np.ndarray:
        """The row of every element of `z`: its channel."""
        return np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape)

    def _file_quality(self, quality: float | None) -> float | None:
        """`quality` or the default, in the steps that a file can hold."""
        levels = self.model.levels
        if levels == 1:
            if quality is not None:
                raise InputError("This model has one rate; leave quality out.")
            return None
        quality = self.default_quality if quality is None else quality
        assert quality is not None
        if not 1 <= quality <= levels:
            raise InputError(f"quality is {quality}; this model takes 1 to {levels}.")
        return round(quality * bitstream.QUALITY_STEPS) / bitstream.QUALITY_STEPS

    def _level(self, quality: float | None) -> Array | None:
        return None if quality is None else jnp.full(1, quality, jnp.float32)

    def _check_readable(self, file: File) -> None:
        if file.fingerprint != self.fingerprint:
            raise WrongModelError(
                f"The file was written with the model {file.fingerprint.hex()}; loaded is "
                f"{self.fingerprint.hex()}. Name its folder with --checkpoint."
            )
        if coder_by_ident(file.coder) is None:
            raise UnknownCoderError(
                f"The file names range coder {file.coder}; known are "
                f"{', '.join(f'{pair.ident} ({name})' for name, pair in CODERS.items())}."
            )
        levels = self.model.levels
        if (file.quality != 0) if levels == 1 else not 1 <= file.quality <= levels:
            raise CorruptError(f"Quality {file.quality} is not one of this model's.")
        _check_pixels(file.width, file.height)

    @cached_property
    def _programs(self) -> "_Programs":
        return _Programs(self.model)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise bitstream.ImageSizeError(
            f"{width} x {height} are more than the {MAX_PIXELS} pixels that are allowed."
        )


class _Programs:
    """The model's functions, compiled once per shape. Highest precision: an accelerator's default
    rounds products to fewer bits, which is no way to compute probabilities."""

    def __init__(self, model: LLIC):
        def method(name: str, static: tuple[int, ...] = ()) -> Callable:
            def call(params, *args):
                with jax.default_matmul_precision("highest"):
                    return model.apply({"params": params}, *args, method=name)

            return jax.jit(call, static_argnums=static)

        self.steps = model.steps
        self.hyper_synthesize = method("hyper_synthesize")
        self.entropy_params = method("entropy_params", static=(1,))
        self.refine = method("refine", static=(1,))

        apply: Any = model.apply

        @jax.jit
        def analyze(params, x, quality):
            y = apply({"params": params}, x, quality, method="analyze")
            return Latents(y, apply({"params": params}, y, quality, method="hyper_analyze"))

        @jax.jit
        def round_hyper(params, z):
            z_hat = jnp.round(z)
            return z_hat, jnp.sum(apply({"params": params}, z_hat, method="prior_bits"))

        @jax.jit
        def synthesize(params, y_hat, quality):
            x_hat = apply({"params": params}, y_hat, quality, method="synthesize")
            return metrics.to_uint8(x_hat)

        @partial(jax.jit, static_argnums=0)
        def quantize(step, y, mean, scale):
            symbols = jnp.round(step.gather(y) - mean)
            bits = jnp.sum(coded_bits(symbols, scale))
            return symbols.astype(jnp.int32), symbols + mean, bits

        self.analyze, self.round_hyper = analyze, round_hyper
        self.synthesize, self.quantize = synthesize, quantize
        self.rows = jax.jit(scale_index)
        self.add = jax.jit(lambda symbols, mean: symbols.astype(jnp.float32) + mean)


class _CompiledSteps:
    """The entropy model as the walk sees it, each call one compiled program."""

    def __init__(self, programs: _Programs, params: Any, clock: "_Clock"):
        self.programs, self.params, self.clock, self.steps = programs, params, clock, programs.steps

    def entropy_params(self, k: int, hyper: Any, y_hat: Array, carry: Any):
        return self.clock.network(self.programs.entropy_params(self.params, k, hyper, y_hat, carry))

    def refine(self, k: int, hyper: Any, y_hat: Array, carry: Any):
        return self.programs.refine(self.params, k, hyper, y_hat, carry)


class _Clock:
    """Adds up where the time goes."""

    def __init__(self) -> None:
        self.network_seconds = self.coder_seconds = 0.0
        self.last = time.perf_counter()

    def network(self, result: Any) -> Any:
        """Waits for `result`; the time since the last call was the networks'."""
        result = jax.block_until_ready(result)
        self.network_seconds += self._lap()
        return result

    def coder(self, result: Any) -> Any:
        """The time since the last call was the range coder's."""
        self.coder_seconds += self._lap()
        return result

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self.last = now - self.last, now
        return lap


class _CheckedEncoder:
    """Keeps a checksum of the symbols and the time."""

    def __init__(self, encoder: Encoder, clock: _Clock):
        self.encoder, self.clock, self.crc = encoder, clock, 0
        clock.coder(None)

    def put(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)
        self.encoder.put(symbols, rows)
        self.clock.coder(None)

    def finish(self) -> bytes:
        return self.clock.coder(self.encoder.finish())


class _CheckedDecoder:
    """Keeps a checksum of the symbols and the time; a coder's own errors become `CorruptError`."""

    def __init__(self, decoder: Decoder, clock: _Clock):
        self.decoder, self.clock, self.crc = decoder, clock, 0

    def get(self, rows: np.ndarray) -> np.ndarray:
        try:
            symbols = self.clock.coder(self.decoder.get(rows))
        except Exception as error:  # whatever a coder makes of bytes that are not its own
            raise CorruptError(f"The range coder cannot read the payload: {error}") from error
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)
        return symbols

    def finish(self) -> bool:
        return self.clock.coder(self.decoder.finish())
