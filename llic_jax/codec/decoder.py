"""Files to images.

    file -> SymbolReader -> z_hat -> h_s -> walk: read and dequantize each step -> y_hat -> g_s

Of a payload that was cut, each step takes what is there; elsewhere its values are the predicted
means. In a progressive file so are those of a step that does not fit its check, and of all later
ones.

Each step of the walk waits for the positions of its scales: the range decoder needs them on the
host before the networks can go on.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from llic_jax.bitstream.file import LlicFile
from llic_jax.codec import validation
from llic_jax.codec.model import CodecModel, Limits
from llic_jax.codec.networks import CompiledNetworks, quality_array
from llic_jax.codec.results import Decompressed
from llic_jax.coding.step_checks import check_count
from llic_jax.coding.symbol_stream import SymbolReader
from llic_jax.coding.tables import CodingTables
from llic_jax.entropy.walk import Walk
from llic_jax.execution.canvas import cut_image
from llic_jax.execution.stopwatch import Clock
from llic_jax.ops.sizes import HYPER_STRIDE, LATENT_STRIDE

_BLOCK = HYPER_STRIDE // LATENT_STRIDE  # side of `y` for a side of one in `z`


class Decoder:
    """Reads files of one model.

    Args:
        model: What files are bound to.
        tables: The model's, with all rows.
        networks: The model's.
        limits: Of one call.
    """

    def __init__(
        self,
        model: CodecModel,
        tables: CodingTables,
        networks: CompiledNetworks,
        limits: Limits,
    ):
        self._model, self._tables, self._networks, self._limits = model, tables, networks, limits
        self._least_bits = validation.least_bits(model.tables, model.network.latent_channels)

    def check(self, file: LlicFile) -> None:
        """Refuses a file before anything is allocated for it.

        Raises:
            BitstreamError: Another model's file, an unknown range coder or quality, too many
                pixels, more memory than is allowed, a payload that is too short, or checks of
                another number of steps.
        """
        validation.check_header(file, self._model.fingerprint, self._model.network.levels)
        validation.check_size(file.width, file.height, self._limits.max_pixels)
        validation.check_payload(file, self._least_bits)
        check_count(file, len(self._model.network.steps))
        if file.other_coding is None:
            size = file.height, file.width
            self._networks.canvas_for([size])  # refuses what memory cannot hold

    def decode(self, files: Sequence[LlicFile]) -> list[Decompressed]:
        """Decodes files that were checked; times are all files', in equal shares.

        Raises:
            CorruptError: A payload that cannot be decoded here; of a part of a progressive file
                only where `z` does not fit its check.
            InputError: Images whose padded sizes differ.
            ImageSizeError: Images that together take more memory than is allowed.
        """
        clock = Clock()
        # A copy: the arrays that JAX hands out cannot be written to.
        readers = self._readers(files)
        images = np.array(clock.network(self._decode(files, readers, clock)))
        seconds = clock.shares(len(files))
        return [
            Decompressed(image[: file.height, : file.width], *seconds, file.share, reader.verified)
            for file, image, reader in zip(files, images, readers, strict=True)
        ]

    def decode_on_device(self, files: Sequence[LlicFile]) -> list[UInt8[Array, "_ _ 3"]]:
        """The images of files that were checked; their pixels have not been on the host.

        Raises:
            LlicError: As `decode`.
        """
        images = self._decode(files, self._readers(files), Clock())
        return [cut_image(images, i, f.height, f.width) for i, f in enumerate(files)]

    def _readers(self, files: Sequence[LlicFile]) -> list[SymbolReader]:
        return [SymbolReader(file, self._tables) for file in files]

    def _decode(
        self, files: Sequence[LlicFile], readers: Sequence[SymbolReader], clock: Clock
    ) -> UInt8[Array, "b h w 3"]:
        """The images on their canvas."""
        networks, model = self._networks, self._model
        qualities = quality_array([file.quality or None for file in files])
        canvas = networks.canvas_for([(file.height, file.width) for file in files])
        z_shape = (*canvas.unpadded().blocks, model.tables.hyper_rows)
        symbols_z = np.stack([reader.read_hyper(z_shape) for reader in readers])
        z_hat = clock.coder(jnp.asarray(canvas.place(symbols_z), jnp.float32))
        height, width = (_BLOCK * blocks for blocks in canvas.blocks)
        walk = Walk(
            networks.entropy_model(canvas),
            networks.hyper_synthesize(canvas, z_hat, qualities),
            (len(files), height, width, model.network.latent_channels),
        )
        for step, mean, scale in walk:
            positions = canvas.crop(np.asarray(clock.network(networks.positions(scale))))
            symbols = [r.read(step, own) for r, own in zip(readers, positions, strict=True)]
            whole = clock.coder(canvas.place(np.stack(symbols)))
            walk.fill(networks.dequantize(whole, mean))
        for reader in readers:
            reader.finish()
        return networks.synthesize(canvas, walk.y_hat, qualities)
