"""The photographs of a run: for training, for validation, and the batches of each step."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import jax_utils

from llic_jax.data import sources
from llic_jax.data.augmentation import RandomCrop
from llic_jax.data.batches import Sampler, training_batches
from llic_jax.data.device_crops import DevicePhotographs, refuse_unknown
from llic_jax.data.photographs import Cached, Photographs, Subset, central_crops, split_held_out
from llic_jax.errors import DataError
from llic_jax.training.run_folder import RunFolder
from llic_jax.training.settings import DataSettings, RunSettings


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The photographs of a run.

    Attributes:
        settings: Of the run.
        source: All of `data.source`.
        training: Those that are trained on.
        held_out: Central crops of those for validation, uint8 `(S, S, 3)`.
        gap: Central crops of a few of training, likewise.
        on_device: Those of training in the device's memory, with `data.on_device`.
    """

    settings: RunSettings
    source: Photographs
    training: Photographs
    held_out: list[np.ndarray]
    gap: list[np.ndarray]
    on_device: DevicePhotographs | None


def open_pictures(settings: RunSettings, folder: RunFolder) -> Pictures:
    """Opens the photographs that a run's settings name.

    Validation uses the crops of the last size: what is learned from small crops may fail in the
    middle of a large image.

    Args:
        settings: Of the run.
        folder: Keeps which photographs are held out.

    Raises:
        DataError: No photographs, too few, or none that is large enough for validation.
    """
    data, size = settings.data, settings.data.crops[-1]
    source: Any = sources.open_source(data.source)
    if data.validation:
        others = sources.open_source(data.validation)
        training: Photographs = source
        held_out = central_crops(others, size, "validation")
    else:
        names = folder.held_out_names()
        training, others = split_held_out(source, data.held_back, names)
        if names is None:
            names = [others.name(i) for i in range(len(others))]
            folder.keep_held_out_names(names)
        if len(names) != data.held_back:
            logging.warning(
                "This run holds back the %d images that it began with; data.held_back %d is for "
                "new runs.", len(names), data.held_back,
            )  # fmt: skip
        if missing := len(names) - len(others):
            logging.warning(
                "%d of the %d images that this run holds back are no longer in %s.",
                missing, len(names), data.source,
            )  # fmt: skip
        held_out = central_crops(others, size, "held-back")
    training = Cached(training, data.cache_gb)
    chosen = np.linspace(0, len(training) - 1, min(data.gap_images, len(training))).astype(int)
    gap: list[np.ndarray] = []
    if held_out and len(chosen):
        with contextlib.suppress(DataError):  # all are too small: then the gap is not known
            gap = central_crops(Subset(training, chosen.tolist()), size, "training")
    on_device = None
    if data.on_device:
        refuse_unknown(_crop(data, size), data.drawings)
        on_device = DevicePhotographs(training, data.device_gb, data.threads)
        logging.info(
            "%d photographs, %.2f GiB, in the device's memory",
            len(on_device), on_device.bytes / 2**30,
        )  # fmt: skip
    return Pictures(settings, source, training, held_out, gap, on_device)


def _crop(data: DataSettings, size: int) -> RandomCrop:
    return RandomCrop(
        size,
        flip=data.flip,
        downsample=data.downsample,
        symmetries=data.symmetries,
        gain=data.channel_gain,
        exchange=data.channel_exchange,
    )


def _stages(data: DataSettings, crops: int | None) -> list[tuple[int, RandomCrop]]:
    """From which step on which crops: as `data.crop_boundaries` say, or one size at all steps."""
    if crops is not None:
        return [(0, _crop(data, data.crops[crops]))]
    begins = (0, *data.crop_boundaries)
    return [(begin, _crop(data, size)) for begin, size in zip(begins, data.crops, strict=True)]


def host_batches(
    pictures: Pictures, first_step: int, crops: int | None = None
) -> Iterator[np.ndarray]:
    """This process's share of each batch.

    Args:
        pictures: Of the run.
        first_step: That the first batch is for.
        crops: Index into `data.crops`; None for what `data.crop_boundaries` say, or for the first
            ones in a run by time.

    Yields:
        uint8 `(B / processes, S, S, 3)`, without end.
    """
    settings, data = pictures.settings, pictures.settings.data
    if crops is None and settings.train.by_time:
        crops = 0
    return training_batches(
        pictures.training,
        stages=_stages(data, crops),
        batch_size=settings.train.batch_size,
        seed=settings.seed,
        first_step=first_step,
        threads=data.threads,
        drawings=data.drawings,
        pasted=data.pasted,
        share=(jax.process_index(), jax.process_count()),
    )


class Feed:
    """The batches of a run, `(devices, B / devices, S, S, 3)` uint8, on the devices.

    Args:
        pictures: Of the run.
    """

    def __init__(self, pictures: Pictures):
        self.pictures = pictures
        self.crops: int | None = -1  # of no size
        self.batches: Iterator[Any] = iter(())

    def batch(self, step: int, crops: int | None) -> Any:
        """The batch of a step; steps ascend one by one while the crops stay.

        Args:
            step: Number of steps done.
            crops: Index into `data.crops`; None for what `data.crop_boundaries` say.
        """
        if crops != self.crops:
            self.batches, self.crops = self._from(step, crops), crops
        return next(self.batches)

    def _from(self, step: int, crops: int | None) -> Iterator[Any]:
        settings, photographs = self.pictures.settings, self.pictures.on_device
        if photographs is not None:
            sampler = Sampler(
                len(photographs),
                _stages(settings.data, crops),
                settings.train.batch_size,
                settings.seed,
                settings.data.pasted,
            )
            share = jax.process_index(), jax.process_count()
            return photographs.batches(sampler, step, share)
        devices = jax.local_device_count()
        batches = host_batches(self.pictures, step, crops)
        return jax_utils.prefetch_to_device(
            (b.reshape(devices, -1, *b.shape[1:]) for b in batches), 2
        )
