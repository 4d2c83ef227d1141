"""Images to `.llic` bytes and back, for one model.

    compress     image -> g_a -> y -> h_a -> z -> symbols -> range encoder -> LlicFile -> bytes
                          z_hat -> h_s -> walk(quantize) ---^
    decompress   bytes -> LlicFile -> range decoder -> z_hat -> h_s -> walk(decode) -> y_hat
                                                                  y_hat -> g_s -> image

Which table a symbol is coded with depends on a scale that the networks compute, and no two
platforms compute it alike to the last digit; `coding/row_shifts.py` sees to it that they agree.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from llic_jax.bitstream import file as bitstream
from llic_jax.bitstream.file import LlicFile
from llic_jax.codec import validation
from llic_jax.codec.networks import CompiledSteps, Programs
from llic_jax.codec.results import Compressed, Decompressed
from llic_jax.coding import row_shifts
from llic_jax.coding.checksums import CheckedDecoder, CheckedEncoder
from llic_jax.coding.range_coders.registry import CODERS, coder_by_ident, default_coder
from llic_jax.coding.scale_offsets import Offsets, offset_costs, with_all_rows
from llic_jax.coding.tables import Tables
from llic_jax.entropy.walk import Step, walk
from llic_jax.errors import CorruptError, InputError
from llic_jax.execution.canvas import Canvas
from llic_jax.execution.stopwatch import Clock
from llic_jax.models.encoder_options import PLAIN, EncoderOptions
from llic_jax.models.llic import LLIC, Latents
from llic_jax.ops.sizes import DOWNSAMPLING, pad_to_multiple

MAX_PIXELS = 1 << 28  # 16384 x 16384, padded to multiples of 64
MEMORY_GB = 4.0  # a common laptop can spare them


class Codec:
    """A model, its parameters and its coding tables, ready to code.

    fingerprint: 8 bytes that stand for config, weights and tables; written into every file.
    coder: name of the range coder that files are written with (the first that is installed); files
        of every installed coder are read.
    max_pixels: larger images are refused before anything is allocated for them.
    units: of the agreement on table rows in files that are written; 0 writes files for this very
        machine and software only.
    memory_gb: GiB that coding may take; transforms of larger images are computed in bands
        (`execution/bands.py`), which changes decoded images by no more than the rounding of a few
        values.
    lmbdas: weight of the squared error at each quality level that the model was trained with; none
        where it was trained for something else. Only `refinement` asks for them.
    options: what the encoder may choose freely.
    """

    def __init__(
        self,
        model: LLIC,
        params: Any,
        tables: Tables,
        fingerprint: bytes,
        coder: str | None = None,
        max_pixels: int = MAX_PIXELS,
        units: int = row_shifts.UNITS,
        memory_gb: float = MEMORY_GB,
        lmbdas: Sequence[float] = (),
        options: EncoderOptions = PLAIN,
    ):
        coder = coder or default_coder()
        if coder not in CODERS:
            raise InputError(f"coder is {coder!r}; known are {', '.join(CODERS)}.")
        if units and units < row_shifts.MIN_UNITS:
            raise InputError(f"units is {units}; take 0, or {row_shifts.MIN_UNITS} and more.")
        self.model, self.params = model, params
        self.tables = with_all_rows(tables)
        self.fingerprint, self.coder, self.lmbdas = fingerprint, coder, tuple(lmbdas)
        self.max_pixels, self.units = max_pixels, units
        self.options = options
        self._programs = Programs(model, memory_gb)

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
        return self._analyze([validation.as_image(image)], quality)

    def encode(
        self,
        image: np.ndarray,
        quality: float | None = None,
        sections: Mapping[int, bytes] | None = None,
        latents: Latents | None = None,
    ) -> Compressed:
        """Compresses an RGB image of any size from 1x1 up.

        image: `(H, W, 3)`, uint8; or an opaque Pillow image.
        quality: 1 to the model's number of levels, continuous; for models of several rates only.
        sections: what else goes into the file (`bitstream/sections.py`), by tag.
        latents: what to code in place of `analyze`'s latents of this image at this quality. Whoever
            looked for them has weighed their cost: they become the nearest integers.

        Raises:
          InputError: an array that is no such image, or a quality out of range.
          ArgumentTypeError: neither an array nor a Pillow image.
        """
        return self._encode([validation.as_image(image)], quality, [sections or {}], latents)[0]

    def encode_batch(
        self,
        images: Sequence[np.ndarray],
        quality: float | None = None,
        sections: Sequence[Mapping[int, bytes]] | None = None,
    ) -> list[Compressed]:
        """Compresses several images (see `encode`) that go through the networks together.

        Their sizes must be equal when rounded up to multiples of 64. A file is that of `encode` up
        to the last digits of what the networks compute, and is decoded alone or in any company.
        Times are the batch's, in equal shares. With `units` of 0, one after the other.

        Raises:
          InputError: as `encode`; or sizes that do not go together.
        """
        images = [validation.as_image(image) for image in images]
        if sections is None:
            sections = [{}] * len(images)
        if self.units and len(images) > 1:
            return self._encode(images, quality, sections)
        pairs = zip(images, sections, strict=True)
        return [self.encode(image, quality, of_image) for image, of_image in pairs]

    def decode(self, data: bytes) -> Decompressed:
        """Decompresses.

        Raises:
          BitstreamError: one of its subclasses, for anything that is wrong with the bytes or that
            keeps this codec from reading them; never a wrong image.
        """
        return self._decode([self._parse(data)])[0]

    def decode_batch(self, data: Sequence[bytes]) -> list[Decompressed]:
        """Decompresses several files (see `decode`) that go through the networks together.

        The sizes of their images must be equal when rounded up to multiples of 64; the qualities
        need not. An image is that of `decode`, but for values that the networks' last digits round
        the other way. Times are the batch's, in equal shares. Files that decode only as they were
        made, alone, are decoded one after the other.

        Raises:
          BitstreamError: as `decode`, for the first file with which something is wrong.
          InputError: sizes that do not go together.
        """
        files = [self._parse(of_image) for of_image in data]
        if len(files) > 1 and all(file.shift_resolution for file in files):
            return self._decode(files)
        return [self._decode([file])[0] for file in files]

    def reconstruct(
        self, compressed: Compressed, height: int, width: int
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The image that the decoder will make, without decoding."""
        quality = LlicFile.from_bytes(compressed.data).quality
        canvas, level = self._canvas(height, width), self._level([quality or None])
        y_hat = canvas.put(compressed.y_hat)
        return self._images(canvas, y_hat, level, Clock())[0, :height, :width]

    def _analyze(self, images: Sequence[np.ndarray], quality: float | None) -> Latents:
        for image in images:
            validation.check_size(image.shape[1], image.shape[0], self.max_pixels)
        level = self._level([self._file_quality(quality)] * len(images))
        canvas = self._common_canvas([image.shape[:2] for image in images])
        padded = [pad_to_multiple(image[None], DOWNSAMPLING) for image in images]
        x = canvas.put(np.concatenate(padded).astype(np.float32) / 255)
        latents = self._programs.analyze(self.params, canvas, x, level, self.options.factors(level))
        return Latents(*map(canvas.crop, latents))

    def _encode(
        self,
        images: Sequence[np.ndarray],
        quality: float | None,
        sections: Sequence[Mapping[int, bytes]],
        latents: Latents | None = None,
    ) -> list[Compressed]:
        clock, rdoq_weight = Clock(), 0.0
        if latents is None:
            latents, rdoq_weight = self._analyze(images, quality), self.options.rdoq_weight
        canvas = self._common_canvas([image.shape[:2] for image in images])
        for latent in latents:
            validation.check_latent(latent)
        y, z = clock.network(Latents(*map(canvas.put, latents)))
        quality = self._file_quality(quality)
        files = [
            LlicFile(
                fingerprint=self.fingerprint,
                coder=CODERS[self.coder].ident,
                quality=quality or 0.0,
                width=image.shape[1],
                height=image.shape[0],
                symbols_crc=0,
                shift_resolution=self.units,
                payload=b"",
                sections=dict(of_image),
            )
            for image, of_image in zip(images, sections, strict=True)
        ]
        level = self._level([quality] * len(images))
        z_hat, bits_z = clock.network(self._programs.round_hyper(self.params, canvas, z))
        symbols_z = canvas.crop(np.asarray(z_hat, np.int32))
        pair = CODERS[self.coder]
        encoders = clock.coder(
            [CheckedEncoder(pair.encoder(self.tables), f.checksummed_header) for f in files]
        )
        offsets = [Offsets(self.tables, self._offset_costs) for _ in files]
        for i, encoder in enumerate(encoders):
            encoder.put(symbols_z[i], self._hyper_rows(symbols_z[i].shape))

        def put(step: Step, symbols: Array, levels: Array, bits: Array) -> Float[np.ndarray, "b"]:
            of_images = canvas.crop(np.asarray(symbols)), canvas.crop(np.asarray(levels))
            more = []
            for i, (own_symbols, own_levels) in enumerate(zip(*of_images, strict=True)):
                own_offsets, own_more = offsets[i].put(encoders[i], step, own_symbols, own_levels)
                own_levels = own_levels + own_offsets
                rows = row_shifts.put_rows(encoders[i], self.tables, own_levels, self.units)
                encoders[i].put(own_symbols, rows.rows + self.tables.hyper_rows)
                more.append(own_more + rows.bits)
            return np.asarray(bits) + more

        # One thread codes, step by step, while this one goes on to the next step's networks.
        with ThreadPoolExecutor(1) as coder:

            def code(k: int, step: Step, mean: Array, scale: Array) -> tuple[Array, Future]:
                symbols, values, bits = self._programs.quantize(
                    canvas, step, rdoq_weight, self.options.mixture, y, mean, scale
                )
                return values, coder.submit(put, step, symbols, self._programs.levels(scale), bits)

            y_hat, puts = self._walk(canvas, z_hat, level, code, clock)
            clock.network(y_hat)
            bits = sum((done.result() for done in puts), np.asarray(bits_z))
        payloads = clock.coder([encoder.finish() for encoder in encoders])
        data = [
            dataclasses.replace(file, symbols_crc=encoder.crc, payload=payload).to_bytes()
            for file, encoder, payload in zip(files, encoders, payloads, strict=True)
        ]
        y_hat, seconds = canvas.crop(y_hat), clock.shares(len(images))
        return [
            Compressed(
                data[i],
                y_hat[i : i + 1],
                float(bits[i]) + 8 * (len(data[i]) - len(payloads[i])),
                *seconds,
            )
            for i in range(len(images))
        ]

    def _parse(self, data: bytes) -> LlicFile:
        file = LlicFile.from_bytes(data)
        validation.check_header(file, self.fingerprint, self.model.levels)
        validation.check_size(file.width, file.height, self.max_pixels)
        validation.check_payload(file, self._least_bits)
        return file

    def _decode(self, files: Sequence[LlicFile]) -> list[Decompressed]:
        clock = Clock()
        level = self._level([file.quality or None for file in files])
        canvas = self._common_canvas([(file.height, file.width) for file in files])
        decoders = [self._decoder(file, clock) for file in files]
        offsets = [Offsets(self.tables) if file.version > 2 else None for file in files]
        z_shape = (1, *canvas.exact().blocks, self.tables.hyper_rows)
        symbols_z = [decoder.get(self._hyper_rows(z_shape)) for decoder in decoders]
        z_hat = jnp.asarray(canvas.put(np.concatenate(symbols_z)), jnp.float32)

        def code(k: int, step: Step, mean: Array, scale: Array) -> tuple[Array, None]:
            levels = canvas.crop(np.asarray(clock.network(self._programs.levels(scale))))
            symbols = []
            for file, decoder, known, own_levels in zip(
                files, decoders, offsets, levels, strict=True
            ):
                if known is not None:
                    own_levels = own_levels + known.get(decoder, step)
                rows = row_shifts.get_rows(decoder, self.tables, own_levels, file.shift_resolution)
                symbols.append(decoder.get(rows + self.tables.hyper_rows))
            return self._programs.add(jnp.asarray(canvas.put(np.stack(symbols))), mean), None

        y_hat, _ = self._walk(canvas, z_hat, level, code, clock)
        for file, decoder in zip(files, decoders, strict=True):
            if not decoder.finish() or decoder.crc != file.symbols_crc:
                raise CorruptError(
                    "The decoded symbols are not those that were coded: this platform computed "
                    "other probabilities than the one that wrote the file. No image is returned."
                )
        images = self._images(canvas, y_hat, level, clock)
        seconds = clock.shares(len(files))
        return [
            Decompressed(image[: file.height, : file.width], *seconds)
            for file, image in zip(files, images, strict=True)
        ]

    def _decoder(self, file: LlicFile, clock: Clock) -> CheckedDecoder:
        pair = coder_by_ident(file.coder)
        assert pair is not None
        header = file.checksummed_header
        return CheckedDecoder(lambda: pair.decoder(self.tables, file.payload), clock, header)

    def _common_canvas(self, sizes: Sequence[tuple[int, ...]]) -> Canvas:
        """The canvas that images of these sizes, (height, width), share."""
        (first, *others) = sizes
        for size in others:
            if Canvas.of_size(*size) != Canvas.of_size(*first):
                raise InputError(
                    f"Images of {first[1]} x {first[0]} and {size[1]} x {size[0]} pixels do not go "
                    f"through the networks together: rounded up to multiples of {DOWNSAMPLING}, "
                    "their sizes differ. Code them apart."
                )
        return self._canvas(*first)

    def _canvas(self, height: int, width: int) -> Canvas:
        """What the networks see an image of this size on."""
        canvas = Canvas.of_size(height, width)
        return canvas.rounded() if self.model.on_canvas else canvas

    def _walk(
        self, canvas: Canvas, z_hat: Array, level: Array | None, code: Callable, clock: "Clock"
    ) -> tuple[Array, list[Any]]:
        hyper = clock.network(self._programs.hyper_synthesize(self.params, canvas, z_hat, level))
        h, w = (DOWNSAMPLING // 16 * blocks for blocks in canvas.blocks)
        steps = CompiledSteps(self._programs, self.params, canvas, clock)
        return walk(steps, hyper, (len(z_hat), h, w, self.model.latent_channels), code)

    def _images(
        self, canvas: Canvas, y_hat: Any, level: Array | None, clock: "Clock"
    ) -> UInt8[np.ndarray, "b h w 3"]:
        # A copy: what JAX hands out cannot be written to.
        return np.array(clock.network(self._programs.synthesize(self.params, canvas, y_hat, level)))

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

    def _level(self, qualities: Sequence[float | None]) -> Array | None:
        """Each image's quality, as the model takes it."""
        return None if None in qualities else jnp.asarray(qualities, jnp.float32)

    @cached_property
    def _offset_costs(self) -> Float[np.ndarray, "cases offsets"]:
        return offset_costs(self.tables)

    @cached_property
    def _least_bits(self) -> tuple[float, float]:
        return validation.least_bits(self.tables, self.model.latent_channels)
