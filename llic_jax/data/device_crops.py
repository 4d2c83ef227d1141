"""Crops gathered on an accelerator from photographs that lie in its memory, uint8.

Only the numbers of each crop travel there (`augmentation.Crop`); the crops are those that
`batches.training_batches` makes of the same photographs, seed and step, to the bit.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, UInt8

from llic_jax.data.augmentation import Crop, RandomCrop, Window
from llic_jax.data.batches import Sampler
from llic_jax.data.photographs import Photographs, Usable
from llic_jax.errors import DataError

_LARGEST = 2**31 - 1  # pixels: what an index of 32 bits reaches


class DevicePhotographs:
    """All photographs of a source in the memory of each of these devices.

    Args:
        images: Decoded once. One that cannot be used is replaced with the next.
        limit_gb: GiB of a device's memory that they may take.
        threads: That decode.
        devices: All of this process by default.

    Raises:
        DataError: They take more memory than that, or than a device has left.
    """

    def __init__(
        self,
        images: Photographs,
        limit_gb: float,
        threads: int = 4,
        devices: Sequence[jax.Device] | None = None,
    ):
        self.devices = list(devices or jax.local_devices())
        limit = min(int(limit_gb * 2**30), *(_free_bytes(device) for device in self.devices))
        usable, total = Usable(images), 0
        decoded: dict[int, np.ndarray] = {}
        with ThreadPoolExecutor(threads) as pool:
            for index, image in enumerate(pool.map(usable.__getitem__, range(len(images)))):
                decoded[index] = image
                total += image.nbytes
                if total > limit or total // 3 > _LARGEST:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise DataError(
                        f"The first {index + 1} of {len(images)} photographs take "
                        f"{total / 2**30:.2f} GiB; {limit / 2**30:.2f} GiB of device memory may be "
                        "used. Raise data.device_gb, take fewer or smaller photographs, or set "
                        "data.on_device to False."
                    )
        self.shapes = [decoded[i].shape for i in range(len(images))]
        sizes = [shape[0] * shape[1] for shape in self.shapes]
        self.starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        planes = [
            np.concatenate([decoded[i][..., channel].ravel() for i in range(len(images))])
            for channel in range(3)
        ]
        self.bytes = total
        # One array a channel: an index then counts pixels, and reaches three times as far.
        self.planes = [[jax.device_put(p, device) for p in planes] for device in self.devices]

    def __len__(self) -> int:
        return len(self.shapes)

    def batches(
        self, sampler: Sampler, first_step: int = 0, share: tuple[int, int] = (0, 1)
    ) -> Iterator[Array]:
        """Batches, without end.

        Args:
            sampler: Draws the samples.
            first_step: That the first batch is for.
            share: This host's number, and how many there are.

        Yields:
            uint8 `(devices, B / devices, size, size, 3)`, on the devices.
        """
        host, hosts = share
        each = sampler.batch_size // hosts // len(self.devices)
        step = first_step
        while True:
            size = sampler.crop(step).size
            parts = []
            for number, planes in enumerate(self.planes):
                first = (host * len(self.devices) + number) * each
                numbers = self._numbers(sampler, step, range(first, first + each))
                parts.append(_gather(planes, *numbers, size=size))
            yield _joined(parts, self.devices)
            step += 1

    def _numbers(
        self, sampler: Sampler, step: int, places: range
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """First crops, second crops and their windows of these places, as arrays of integers."""
        draws = [sampler.draw(step, place, self.shapes.__getitem__)[0] for place in places]
        first = np.array([self._row(draw.photograph, draw.crop) for draw in draws], np.int32)
        if not sampler.pasted:
            return first, None, None
        nothing = Window(0, 0, 0, 0)
        seconds = [draw.second or (draw.photograph, draw.crop, nothing) for draw in draws]
        rows = np.array([self._row(index, crop) for index, crop, _ in seconds], np.int32)
        return first, rows, np.array([window for *_, window in seconds], np.int32)

    def _row(self, index: int, crop: Crop) -> tuple[int, ...]:
        place = crop.height, crop.width, crop.top, crop.left, crop.symmetry
        return (int(self.starts[index]), *place, *crop.order, *crop.gains)


def refuse_unknown(crop: RandomCrop, drawings: float) -> None:
    """Refuses variations that are made on the host only.

    Args:
        crop: The kind of crops that is asked for.
        drawings: Share of drawings.

    Raises:
        DataError: Lanczos reduction or drawings are asked for.
    """
    wanted = {"data.downsample": crop.downsample, "data.drawings": drawings}
    if odd := [name for name, value in wanted.items() if value]:
        raise DataError(
            f"data.on_device makes crops on the device, which knows no {' and no '.join(odd)}; set "
            "one or the other to False or 0. (A package can hold reduced photographs.)"
        )


@partial(jax.jit, static_argnames="size")
def _gather(
    planes: Sequence[UInt8[Array, "n"]],
    first: Int[Array, "b k"],
    second: Int[Array, "b k"] | None,
    windows: Int[Array, "b 4"] | None,
    size: int,
) -> UInt8[Array, "b s s 3"]:
    """The pixels of these crops; with those of the second ones in their windows."""
    cut = jax.vmap(partial(_cut, planes, size))
    pixels = cut(first)
    if second is None or windows is None:
        return pixels
    top, bottom, left, right = (windows[:, i, None, None] for i in range(4))
    row, column = jnp.arange(size)[:, None], jnp.arange(size)[None, :]
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    return jnp.where(inside[..., None], cut(second), pixels)


def _cut(planes: Sequence[Array], size: int, numbers: Array) -> Array:
    """One crop; the mirror image of `augmentation.cut`, by the index of each pixel."""
    start, height, width, top, left, symmetry = (numbers[i] for i in range(6))
    row, column = jnp.arange(size)[:, None], jnp.arange(size)[None, :]
    row = jnp.where(symmetry & 2, size - 1 - row, row)
    column = jnp.where(symmetry & 1, size - 1 - column, column)
    exchanged = symmetry & 4
    row, column = jnp.where(exchanged, column, row), jnp.where(exchanged, row, column)
    pixel = start + _mirrored(top + row, height) * width + _mirrored(left + column, width)
    channels = jnp.stack([plane[pixel] for plane in planes])
    pixels = channels[numbers[6:9]].astype(jnp.int32) * numbers[9:12, None, None]
    return jnp.moveaxis(jnp.minimum((pixels + 128) // 256, 255).astype(jnp.uint8), 0, -1)


def _mirrored(place: Array, side: Array) -> Array:
    """Positions beyond a side, mirrored back into it, the outermost pixel twice."""
    place = place % (2 * side)
    return jnp.where(place < side, place, 2 * side - 1 - place)


def _joined(parts: list[Array], devices: Sequence[jax.Device]) -> Array:
    """A leading axis of devices, each with its own part."""
    if len(parts) == 1:
        return parts[0][None]
    sharding = NamedSharding(Mesh(np.array(devices), ("device",)), PartitionSpec("device"))
    shape = (len(parts), *parts[0].shape)
    return jax.make_array_from_single_device_arrays(shape, sharding, [p[None] for p in parts])


def _free_bytes(device: Any) -> int:
    """Memory that a device has left; without limit where it does not say."""
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return 2**62
    return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
