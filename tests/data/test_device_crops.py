import itertools

import jax
import numpy as np
import pytest

from llic_jax.data.augmentation import RandomCrop
from llic_jax.data.batches import Sampler, training_batches
from llic_jax.data.device_crops import DevicePhotographs, refuse_unknown
from llic_jax.errors import DataError


class Photographs:
    """Of several sizes, one smaller than a crop, one that cannot be used."""

    def __init__(self):
        rng = np.random.default_rng(0)
        sizes = ((40, 52), (70, 33), (20, 90), (32, 32), (64, 48))
        self.images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        self.images.insert(2, None)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


EVERYTHING = {"symmetries": True, "gain": 0.3, "exchange": 0.5}


@pytest.mark.parametrize("options", [{}, {"flip": False}, EVERYTHING])
@pytest.mark.parametrize("pasted", [0.0, 0.6])
def test_the_device_makes_the_crops_of_the_host(options, pasted):
    images = Photographs()
    stages = [(0, RandomCrop(32, **options)), (4, RandomCrop(48, **options))]
    host = training_batches(
        images, stages=stages, batch_size=6, seed=3, first_step=1, threads=2, pasted=pasted
    )
    on_device = DevicePhotographs(images, limit_gb=1.0, devices=jax.devices()[:1])
    sampler = Sampler(len(images), stages, 6, 3, pasted)
    device = on_device.batches(sampler, first_step=1)
    for expected, found in itertools.islice(zip(host, device, strict=False), 6):
        assert found.dtype == np.uint8 and found.shape == (1, *expected.shape)
        np.testing.assert_array_equal(found[0], expected)


def test_hosts_have_parts_of_one_batch():
    images = Photographs()
    on_device = DevicePhotographs(images, limit_gb=1.0, devices=jax.devices()[:1])
    sampler = Sampler(len(images), [(0, RandomCrop(32))], 6, 0)
    whole = next(on_device.batches(sampler))
    parts = [next(on_device.batches(sampler, share=(host, 3))) for host in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_too_many_photographs_are_refused():
    with pytest.raises(DataError, match=r"GiB of device memory.*data\.device_gb"):
        DevicePhotographs(Photographs(), limit_gb=1e-6)


def test_what_only_the_host_makes_is_refused():
    refuse_unknown(RandomCrop(32), 0.0)
    with pytest.raises(DataError, match=r"data\.downsample and no data\.drawings"):
        refuse_unknown(RandomCrop(32, downsample=True), 0.1)
