"""The photographs of a run: what is trained on, what validates, and the batches of each step."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import jax_utils

from llic_jax.configs.config import Config
from llic_jax.data import sources
from llic_jax.data.augmentation import RandomCrop
from llic_jax.data.batches import Sampler, training_batches
from llic_jax.data.device_crops import DevicePhotographs, refuse_unknown
from llic_jax.data.photographs import Cached, Photographs, Subset, central_crops, split_held_back
from llic_jax.errors import DataError
from llic_jax.system.files import whole_file

_HELD_BACK = "held_back.json"


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The photographs of a run.

    source: all of training's. seen: those that are trained on. held_back, gap: central crops of
    those for validation, and of a few of training. on_device: those seen, in the device's memory.
    """

    config: Config
    source: Photographs
    seen: Photographs
    held_back: list[np.ndarray]
    gap: list[np.ndarray]
    on_device: DevicePhotographs | None


def open_pictures(config: Config, workdir: Path, main: bool) -> Pictures:
    section, size = config["data"], config["data"]["crops"][-1]
    source: Any = sources.open_source(section["source"])
    if section["validation"]:
        others = sources.open_source(section["validation"])
        seen: Photographs = source
        held_back = central_crops(others, size, "validation")
    else:
        names = _held_back_names(workdir)
        seen, others = split_held_back(source, section["held_back"], names)
        if names is None and main:
            names = [others.name(i) for i in range(len(others))]
            with whole_file(workdir / _HELD_BACK) as temporary:
                temporary.write_text(json.dumps(names, indent=1) + "\n")
        if missing := len(names or ()) - len(others):
            logging.warning(
                "%d of the %d images that this run holds back are no longer in %s.",
                missing, len(names or ()), section["source"],
            )  # fmt: skip
        held_back = central_crops(others, size, "held-back")
    seen = Cached(seen, section["cache_gb"])
    chosen = np.linspace(0, len(seen) - 1, min(section["gap_images"], len(seen))).astype(int)
    gap: list[np.ndarray] = []
    if held_back and len(chosen):
        with contextlib.suppress(DataError):  # too small: then there is no gap to tell
            gap = central_crops(Subset(seen, chosen.tolist()), size, "training")
    on_device = None
    if section["on_device"]:
        refuse_unknown(_crop(section, size), float(section["drawings"]))
        on_device = DevicePhotographs(seen, float(section["device_gb"]), section["threads"])
        logging.info(
            "%d photographs, %.2f GiB, in the device's memory",
            len(on_device), on_device.bytes / 2**30,
        )  # fmt: skip
    return Pictures(config, source, seen, held_back, gap, on_device)


def _held_back_names(workdir: Path) -> list[str] | None:
    """The images that this run holds back since its start: what is added to the folder later must
    not move them."""
    path = workdir / _HELD_BACK
    return json.loads(path.read_text()) if path.exists() else None


def _crop(section: Config, size: int) -> RandomCrop:
    return RandomCrop(
        size,
        flip=section["flip"],
        downsample=section["downsample"],
        symmetries=section["symmetries"],
        gain=float(section["channel_gain"]),
        exchange=float(section["channel_exchange"]),
    )


def _stages(config: Config, crops: int | None) -> list[tuple[int, RandomCrop]]:
    """From which step on which crops: all stages, or only the one of this number."""
    section = config["data"]
    if crops is not None:
        return [(0, _crop(section, section["crops"][crops]))]
    boundaries = (0, *section["crop_boundaries"])
    return [
        (begin, _crop(section, size))
        for begin, size in zip(boundaries, section["crops"], strict=True)
    ]


def host_batches(
    pictures: Pictures, first_step: int, crops: int | None = None
) -> Iterator[np.ndarray]:
    """This process's share of each batch, from `first_step` on; crops: the number of their stage,
    None for what the steps say."""
    config, section = pictures.config, pictures.config["data"]
    if crops is None and config["train"]["schedule"] == "time":
        crops = 0
    return training_batches(
        pictures.seen,
        stages=_stages(config, crops),
        batch_size=config["train"]["batch_size"],
        seed=config["seed"],
        first_step=first_step,
        threads=section["threads"],
        drawings=float(section["drawings"]),
        pasted=float(section["pasted"]),
        share=(jax.process_index(), jax.process_count()),
    )


class Feed:
    """The batches of a run, `(devices, batch / devices, S, S, 3)` uint8, on the devices."""

    def __init__(self, pictures: Pictures, first_step: int):
        self.pictures = pictures
        self.crops: int | None = -1  # of no stage
        self.batches: Iterator[Any] = iter(())

    def batch(self, step: int, crops: int | None) -> Any:
        """The batch of a step; crops: the number of their stage, None for what the steps say."""
        if crops != self.crops:
            self.batches, self.crops = self._from(step, crops), crops
        return next(self.batches)

    def _from(self, step: int, crops: int | None) -> Iterator[Any]:
        config, photographs = self.pictures.config, self.pictures.on_device
        if photographs is not None:
            sampler = Sampler(
                len(photographs),
                _stages(config, crops),
                config["train"]["batch_size"],
                config["seed"],
                float(config["data"]["pasted"]),
            )
            share = jax.process_index(), jax.process_count()
            return photographs.batches(sampler, step, share)
        devices = jax.local_device_count()
        batches = host_batches(self.pictures, step, crops)
        return jax_utils.prefetch_to_device(
            (b.reshape(devices, -1, *b.shape[1:]) for b in batches), 2
        )
