"""Latents to files, for images that go through the networks together.

    images -> analyze -> y -> h_a -> z -> round -> z_hat -> h_s -> walk: quantize each step
                                                                      |
                       file <- payload <- SymbolWriter, in a thread <-+

Images of NumPy go to the device once, and those of JAX are there; symbols, and the positions of
their scales, come back.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, UInt8

from llic_jax.bitstream.file import PROGRESSIVE_VERSION, VERSION, LlicFile
from llic_jax.bitstream.tags import STEP_CHECKS
from llic_jax.codec import validation
from llic_jax.codec.model import CodecModel, Limits
from llic_jax.codec.networks import CompiledNetworks, quality_array
from llic_jax.codec.results import Compressed
from llic_jax.coding.range_coders.registry import CODERS, default_coder
from llic_jax.coding.row_shifts import MIN_SHIFT_RESOLUTION
from llic_jax.coding.scale_offsets import offset_costs
from llic_jax.coding.symbol_stream import Payload, SymbolWriter
from llic_jax.coding.tables import CodingTables
from llic_jax.entropy.walk import Step, Walk
from llic_jax.errors import InputError
from llic_jax.execution.canvas import Canvas
from llic_jax.execution.stopwatch import Clock
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.models.llic import Latents


class Batch(NamedTuple):
    """Images that go through the networks together.

    Attributes:
        sizes: Of the images, (height, width).
        canvas: That they share.
        quality: Of all of them; None for a model of one rate.
        clock: Runs since their coding began.
        on_device: Whether they are JAX's arrays, and their latents are to be.
    """

    sizes: tuple[tuple[int, int], ...]
    canvas: Canvas
    quality: float | None
    clock: Clock
    on_device: bool = False

    @property
    def qualities(self) -> Float[Array, "b"] | None:
        """The quality of each image, as the networks take it."""
        return quality_array([self.quality] * len(self.sizes))

    def own(
        self, x: Float[Array | np.ndarray, "b h w c"]
    ) -> Float[Array | np.ndarray, "b own_h own_w c"]:
        """The images' part of a latent on the canvas, where the images are: device or host.

        Args:
            x: The latent.
        """
        return self.canvas.crop(x if self.on_device else np.asarray(x))


class Encoder:
    """Makes files with one model.

    Args:
        model: What files are bound to.
        tables: The model's, with all rows.
        networks: The model's.
        options: What an encoder may choose.
        limits: Of one call.

    Raises:
        InputError: An unknown range coder, one that cannot write progressive files, or a shift
            resolution that cannot be.
    """

    def __init__(
        self,
        model: CodecModel,
        tables: CodingTables,
        networks: CompiledNetworks,
        options: EncoderOptions,
        limits: Limits,
    ):
        self.coder = options.coder or default_coder()
        if self.coder not in CODERS:
            raise InputError(f"coder is {self.coder!r}; known are {', '.join(CODERS)}.")
        if options.progressive and not CODERS[self.coder].in_order:
            able = ", ".join(name for name, pair in CODERS.items() if pair.in_order)
            raise InputError(
                f"The range coder {self.coder} writes no progressive files: no part of its payload "
                f"can be decoded. Take the coder {able}, or leave progressive out."
            )
        if options.shift_resolution and options.shift_resolution < MIN_SHIFT_RESOLUTION:
            raise InputError(
                f"shift_resolution is {options.shift_resolution}; take 0, or "
                f"{MIN_SHIFT_RESOLUTION} and more."
            )
        self._model, self._tables, self._networks = model, tables, networks
        self._options, self._limits = options, limits

    @property
    def hyper_channels(self) -> int:
        """Channels of `z`."""
        return self._model.tables.hyper_rows

    def batch(
        self, sizes: Sequence[tuple[int, int]], quality: float | None, on_device: bool = False
    ) -> Batch:
        """Begins with images, and starts the clock.

        Args:
            sizes: Of the images, (height, width).
            quality: Of all of them; None for a model of one rate.
            on_device: Whether they are JAX's arrays.

        Raises:
            DecoderOnlyError: Only the decoder's half of the model is installed.
            ImageSizeError: More pixels or memory than allowed.
            InputError: Sizes that differ when padded.
        """
        validation.check_can_encode(self._model.params, self._model.fingerprint)
        for height, width in sizes:
            validation.check_size(width, height, self._limits.max_pixels)
        return Batch(tuple(sizes), self._networks.canvas_for(sizes), quality, Clock(), on_device)

    def analyze(
        self, batch: Batch, images: Sequence[UInt8[Array | np.ndarray, "_ _ 3"]]
    ) -> Latents:
        """The images' latents, on the canvas of their batch."""
        x = batch.canvas.place_images(images)
        factors = self._options.factors(batch.qualities)
        return self._networks.analyze(batch.canvas, x, batch.qualities, factors)

    def encode(
        self,
        batch: Batch,
        latents: Latents,
        sections: Sequence[Mapping[int, bytes]],
        rdoq_weight: float,
    ) -> list[Compressed]:
        """Codes latents, on the canvas of their batch.

        One thread codes, step by step, while this one goes on to the next step's networks.

        Args:
            batch: From `batch`.
            latents: Of its images, from `analyze`.
            sections: Of each image's file, by tag.
            rdoq_weight: See `EncoderOptions`.

        Returns:
            A file for each image.

        Raises:
            InputError: Latents that are too large, or not finite.
        """
        networks, canvas, clock = self._networks, batch.canvas, batch.clock
        validation.check_largest(clock.network(networks.largest(latents)))
        headers = [self.header(batch, i, tags) for i, tags in enumerate(sections)]
        writers = [SymbolWriter(h, self._tables, self._offset_costs) for h in headers]
        z_hat, hyper_bits = networks.round_hyper(canvas, latents.z)
        hyper = networks.hyper_synthesize(canvas, z_hat, batch.qualities)
        walk = Walk(networks.entropy_model(canvas), hyper, latents.y.shape)
        with ThreadPoolExecutor(1) as thread:
            first = thread.submit(_write_hyper, writers, canvas, z_hat)
            written = []
            for step, mean, scale in walk:
                symbols, values, bits = networks.quantize(
                    canvas, step, latents.y, mean, scale, rdoq_weight
                )
                walk.fill(values)
                positions = networks.positions(scale)
                written.append(
                    thread.submit(_write, writers, canvas, step, symbols, positions, bits)
                )
            y_hat = clock.network(walk.y_hat)
            first.result()
            total = sum((step_bits.result() for step_bits in written), np.asarray(hyper_bits))
        payloads = clock.coder([writer.finish() for writer in writers])
        data = [
            _with_payload(header, payload).to_bytes()
            for header, payload in zip(headers, payloads, strict=True)
        ]
        payload_bytes = [len(payload.data) for payload in payloads]
        return self._results(batch, data, batch.own(y_hat), total, payload_bytes)

    def _results(
        self,
        batch: Batch,
        data: Sequence[bytes],
        y_hat: Float[Array | np.ndarray, "b h16 w16 m"],
        bits: Float[np.ndarray, "b"],
        payload_bytes: Sequence[int],
    ) -> list[Compressed]:
        """One result per image; times are the batch's, in equal shares."""
        seconds = batch.clock.shares(len(data))
        return [
            Compressed(
                data[i],
                batch.quality,
                *batch.sizes[i],
                y_hat[i : i + 1],
                float(bits[i]) + 8 * (len(data[i]) - payload_bytes[i]),
                *seconds,
            )
            for i in range(len(data))
        ]

    def header(self, batch: Batch, i: int, sections: Mapping[int, bytes]) -> LlicFile:
        """An image's file, without payload and checksum.

        Args:
            batch: From `batch`.
            i: Number of the image in it.
            sections: Of its file, by tag.
        """
        height, width = batch.sizes[i]
        return LlicFile(
            fingerprint=self._model.fingerprint,
            coder=CODERS[self.coder].coder_id,
            quality=batch.quality or 0.0,
            width=width,
            height=height,
            symbols_crc=0,
            shift_resolution=self._options.shift_resolution,
            payload=b"",
            sections=dict(sections),
            version=PROGRESSIVE_VERSION if self._options.progressive else VERSION,
        )

    @cached_property
    def _offset_costs(self) -> Float[np.ndarray, "cases offsets"]:
        return offset_costs(self._tables)


def _with_payload(header: LlicFile, payload: Payload) -> LlicFile:
    """The whole file."""
    sections = header.sections
    if header.version == PROGRESSIVE_VERSION:
        sections = sections | {STEP_CHECKS: payload.checks}
    return dataclasses.replace(
        header, symbols_crc=payload.crc, payload=payload.data, sections=sections
    )


def _write_hyper(writers: Sequence[SymbolWriter], canvas: Canvas, z_hat: Array) -> None:
    """Codes each image's `z_hat`; waits for it."""
    symbols = canvas.crop(np.asarray(z_hat, np.int32))
    for i, writer in enumerate(writers):
        writer.write_hyper(symbols[i])


def _write(
    writers: Sequence[SymbolWriter],
    canvas: Canvas,
    step: Step,
    symbols: Array,
    positions: Array,
    bits: Float[Array, "b"],
) -> Float[np.ndarray, "b"]:
    """Codes one step of each image; waits for the networks' results.

    Returns:
        Bits of the symbols, by the networks' estimate, and of offsets and row shifts.
    """
    own_symbols, own_positions = (canvas.crop(np.asarray(x)) for x in (symbols, positions))
    more = [
        writer.write(step, own_symbols[i], own_positions[i]) for i, writer in enumerate(writers)
    ]
    return np.asarray(bits) + more
