"""Images that are JAX arrays: coded where they lie, to the bytes of NumPy's; decoded likewise."""

import os
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import llic_jax
from llic_jax.codec import fallback
from llic_jax.codec.codec import Codec
from llic_jax.codec.effort import Refinement
from llic_jax.codec.rate_control import Quality, TargetBpp, TargetPsnr
from llic_jax.errors import ArgumentTypeError, BitstreamError, InputError
from llic_jax.execution.canvas import Canvas
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.zoo import library

# Of what fits its canvas, what does not (five blocks lie on six), and what takes padding.
SIZES = [(1, 1), (64, 64), (17, 130), (300, 70)]


@pytest.fixture
def host_copies(monkeypatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of all JAX arrays with three channels that NumPy is given.

    JAX's own guard of transfers does not see those of a CPU.
    """
    shapes: list[tuple[int, ...]] = []

    def watched(function):
        def call(*args, **options):
            for x in jax.tree.leaves(args):
                if isinstance(x, jax.Array) and x.ndim > 2 and x.shape[-1] == 3:
                    shapes.append(x.shape)
            return function(*args, **options)

        return call

    for name in ("array", "asarray", "ascontiguousarray", "concatenate", "pad", "stack"):
        monkeypatch.setattr(np, name, watched(getattr(np, name)))
    return shapes


@pytest.mark.parametrize("size", SIZES)
def test_files_are_those_of_numpy_arrays(tiny_codec, size, photograph):
    image = np.resize(photograph, (*size, 3))
    (expected,) = tiny_codec.encode([image], Quality(1.5))
    (encoded,) = tiny_codec.encode([jnp.asarray(image)], Quality(1.5))
    assert encoded.data == expected.data and encoded.bits == expected.bits
    assert isinstance(encoded.y_hat, jax.Array) and isinstance(expected.y_hat, np.ndarray)
    np.testing.assert_array_equal(encoded.y_hat, expected.y_hat)
    np.testing.assert_array_equal(tiny_codec.reconstruct(encoded), tiny_codec.reconstruct(expected))
    assert tiny_codec.psnr(jnp.asarray(image), encoded) == tiny_codec.psnr(image, expected)
    assert tiny_codec.psnr(image, encoded) == tiny_codec.psnr(jnp.asarray(image), expected)
    latents = tiny_codec.analyze(jnp.asarray(image), 1.5)
    for found, of_numpy in zip(latents, tiny_codec.analyze(image, 1.5), strict=True):
        assert isinstance(found, jax.Array) and isinstance(of_numpy, np.ndarray)
        np.testing.assert_array_equal(found, of_numpy)
    again = tiny_codec.encode_latents(latents, *size, quality=1.5)
    assert isinstance(again.y_hat, jax.Array)
    (decoded,) = tiny_codec.decode_on_device([encoded.data])
    assert isinstance(decoded, jax.Array) and decoded.dtype == jnp.uint8
    np.testing.assert_array_equal(decoded, tiny_codec.decompress(encoded.data))


def test_every_value_of_a_pixel_becomes_that_of_numpy():
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    canvas = Canvas.of_size(16, 16)
    on_host, on_device = canvas.place_images([values]), canvas.place_images([jnp.asarray(values)])
    assert isinstance(on_host, np.ndarray) and isinstance(on_device, jax.Array)
    np.testing.assert_array_equal(on_host, on_device)


def test_batches(tiny_codec, photograph):
    """As arrays of four dimensions, and as lists of NumPy's, Pillow's and JAX's images."""
    batch = np.stack([photograph[:60, :70], photograph[60:120, 70:140], photograph[9:69, 80:150]])
    expected = [encoded.data for encoded in tiny_codec.encode(list(batch), Quality(2.0))]
    mixed = [batch[0], jnp.asarray(batch[1]), Image.fromarray(batch[2])]
    for images in (batch, jnp.asarray(batch), list(jnp.asarray(batch)), mixed):
        encoded = tiny_codec.encode(images, Quality(2.0))
        assert [of_image.data for of_image in encoded] == expected
    assert tiny_codec.encode(jnp.asarray(batch[:0])) == tiny_codec.encode(batch[:0]) == []
    decoded = tiny_codec.decode_on_device(expected)
    for image, of_numpy in zip(decoded, tiny_codec.decode(expected), strict=True):
        np.testing.assert_array_equal(image, of_numpy.image)
    # Sizes that pad alike, and are cut to their own again.
    others = [jnp.asarray(batch[0]), jnp.asarray(batch[1][:, :65])]
    data = [encoded.data for encoded in tiny_codec.encode(others)]
    assert data == [e.data for e in tiny_codec.encode([batch[0], batch[1][:, :65]])]
    assert [x.shape for x in tiny_codec.decode_on_device(data)] == [(60, 70, 3), (60, 65, 3)]


@pytest.mark.parametrize(
    "rate", [Quality(2.0), pytest.param(TargetBpp(9.0), marks=pytest.mark.slow), TargetPsnr(5.0)]
)
def test_no_pixel_is_on_the_host(tiny_codec, photograph, host_copies, rate):
    image = photograph[:60, :70]
    (expected,) = tiny_codec.encode([image], rate)
    psnr, on_device = tiny_codec.psnr(image, expected), jnp.array(image)
    host_copies.clear()
    (encoded,) = tiny_codec.encode([on_device], rate)
    assert encoded.data == expected.data and tiny_codec.psnr(on_device, encoded) == psnr
    tiny_codec.analyze(on_device)
    tiny_codec.compress(on_device, strict_llic=True)
    (decoded,) = tiny_codec.decode_on_device([encoded.data])
    assert not host_copies
    # The watch sees what is there to be seen.
    np.testing.assert_array_equal(tiny_codec.decompress(encoded.data), decoded)
    tiny_codec.compress(on_device)  # takes a sample, which is all of so small an image
    assert {(1, 64, 128, 3), (1, 60, 70, 3)} <= set(host_copies)


def test_the_look_for_another_coding_takes_a_sample(tiny_codec, photograph, host_copies):
    image = np.concatenate([photograph, photograph])
    on_device = jnp.array(image)
    for size in (1 << 10, 1 << 15):
        unlike = fallback.is_unlike_photographs(on_device, size)
        assert unlike == fallback.is_unlike_photographs(image, size)
    assert set(host_copies) == {(15, 8, 272, 3)}
    stripes = np.zeros((48, 56, 3), np.uint8)
    stripes[:, ::2] = 255
    data = tiny_codec.compress(jnp.array(stripes))
    assert data == tiny_codec.compress(stripes)
    # The picture is a section of the file, and becomes one of JAX's arrays all the same.
    networks_own = tiny_codec.compress(jnp.array(stripes), strict_llic=True)
    first, second = tiny_codec.decode_on_device([data, networks_own])
    np.testing.assert_array_equal(first, stripes)
    assert isinstance(first, jax.Array)
    np.testing.assert_array_equal(second, tiny_codec.decompress(networks_own))


@pytest.mark.slow
def test_refinement_and_files_of_one_machine(tiny_codec, photograph):
    image = photograph[:60, :70]
    for rate in (Quality(1.0), TargetPsnr(5.0)):
        (expected,) = tiny_codec.encode([image], rate, Refinement(2))
        (encoded,) = tiny_codec.encode([jnp.asarray(image)], rate, Refinement(2))
        assert encoded.data == expected.data and encoded.effort == expected.effort
    codec = Codec(tiny_codec.model, EncoderOptions(shift_resolution=0))
    images = np.stack([image, photograph[60:120, :70]])
    files = [encoded.data for encoded in codec.encode(jnp.asarray(images))]
    assert files == [encoded.data for encoded in codec.encode(images)]
    for image, data in zip(codec.decode_on_device(files), files, strict=True):
        np.testing.assert_array_equal(image, codec.decompress(data))


def test_an_image_too_large_for_the_memory_is_coded_in_bands(tiny_codec, photograph):
    limits = tiny_codec.limits._replace(memory_gb=1.001)
    codec = Codec(tiny_codec.model, tiny_codec.options, limits)
    image = photograph[:, :150]
    (encoded,) = codec.encode([jnp.asarray(image)])
    assert encoded.data == codec.encode([image])[0].data
    np.testing.assert_array_equal(
        codec.decode_on_device([encoded.data])[0], codec.decompress(encoded.data)
    )


def test_one_call_takes_and_gives_jax_arrays(tiny_codec, photograph, monkeypatch):
    shared = library.ModelLibrary(only=tiny_codec)
    monkeypatch.setattr(library, "shared_library", lambda: shared)
    pixels = photograph[:50, :60]
    for given in (pixels, pixels[..., 0]):
        data = llic_jax.compress(jnp.asarray(given), 2.0)
        assert data == llic_jax.compress(given, 2.0)
    data = llic_jax.compress(jnp.asarray(pixels), target_psnr=4.9, strict_llic=True)
    assert data == llic_jax.compress(pixels, target_psnr=4.9, strict_llic=True)
    image = llic_jax.decompress(data, on_device=True)
    assert isinstance(image, jax.Array) and isinstance(llic_jax.decompress(data), np.ndarray)
    np.testing.assert_array_equal(image, llic_jax.decompress(data))
    start = llic_jax.decompress(data[: len(data) // 2], preview=True, on_device=True)
    np.testing.assert_array_equal(start, llic_jax.decompress(data[: len(data) // 2], preview=True))
    with pytest.raises(BitstreamError):
        llic_jax.decompress(data[:-1], on_device=True)


def test_what_is_no_image_is_refused(tiny_codec):
    for wrong in (jnp.zeros((4, 4)), jnp.zeros((4, 4, 3)), jnp.zeros((4, 4, 4), jnp.uint8)):
        with pytest.raises(InputError, match="of uint8, at least 1 x 1"):
            tiny_codec.compress(wrong)
    with pytest.raises(ArgumentTypeError, match="expected a list"):
        tiny_codec.encode(jnp.zeros((4, 4, 3), jnp.uint8))
    with pytest.raises(ArgumentTypeError, match=r"outside of jax\.jit"):
        jax.jit(lambda x: len(tiny_codec.compress(x)))(jnp.zeros((4, 4, 3), jnp.uint8))


TWO_DEVICES = """
import os, sys
import jax, jax.numpy as jnp, numpy as np
import pytest
from llic_jax.codec.effort import Refinement
from llic_jax.codec.rate_control import Quality
from llic_jax.errors import InputError
from llic_jax.execution import program_cache
from llic_jax.zoo.folder import load_codec

first, second = jax.devices()
codec = load_codec(sys.argv[1])  # which enables stored programs, if there is a folder for them
assert (program_cache.folder() is None) == (not os.environ["JAX_COMPILATION_CACHE_DIR"])
if "compile_nothing" in sys.argv[2:]:
    program_cache.cached_jit._compile = None
image = np.random.default_rng(0).integers(0, 256, (300, 70, 3), np.uint8)
(expected,) = codec.encode([image])
decoded, psnr = codec.decompress(expected.data), codec.psnr(image, expected)

devices = set()  # of all that any program returns
unwatched = program_cache.cached_jit.__call__
def watched(self, *args):
    result = unwatched(self, *args)
    for x in jax.tree.leaves(result):
        if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer):
            devices.update(x.devices())
    return result
program_cache.cached_jit.__call__ = watched

def everything(image, committed):
    (encoded,) = codec.encode([image])
    assert encoded.data == expected.data
    latents = codec.analyze(image)
    for x in (encoded.y_hat, *latents):
        assert x.devices() == {second}, x.devices()
        assert x.committed == committed, committed
    assert codec.psnr(image, encoded) == psnr
    np.testing.assert_array_equal(codec.reconstruct(encoded), decoded)
    codec.encode_latents(latents, 300, 70)
    if "refine" in sys.argv[2:]:
        codec.encode([image[:60]], Quality(1.0), Refinement(2))

on_second = jax.device_put(image, second)
everything(on_second, True)
assert devices == {second}, devices
with jax.default_device(second):
    params = codec.networks.params
    assert all(p.devices() == {second} for p in jax.tree.leaves(params))
    everything(jnp.asarray(image), False)
    (on_device,) = codec.decode_on_device([expected.data])
    assert on_device.devices() == {second} and not on_device.committed
    np.testing.assert_array_equal(on_device, decoded)
    np.testing.assert_array_equal(codec.decompress(expected.data), decoded)
assert devices == {second}, devices
everything(jax.device_put(jnp.asarray(image), second), True)
with jax.default_device(second):
    assert codec.networks.params is params  # copied once
assert codec.networks.params is codec.model.params

# Elsewhere than the default device, the other way about.
devices.clear()
with jax.default_device(second):
    (encoded,) = codec.encode([jax.device_put(image, first)])
assert encoded.data == expected.data and devices == {first}, devices
(on_device,) = codec.decode_on_device([expected.data])
assert on_device.devices() == {first} and not on_device.committed
if "refine" in sys.argv[2:]:
    codec.encode([image[:60]], Quality(1.0), Refinement(2))

mesh = jax.sharding.Mesh(np.array([first, second]), ("device",))
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("device"))
spread, on_first = jax.device_put(image, sharding), jax.device_put(image, first)
for call in (
    lambda: codec.encode([on_first, on_second]),
    lambda: codec.encode(jax.device_put(np.stack([image, image]), sharding)),
    lambda: codec.compress(spread),
    lambda: codec.analyze(spread),
    lambda: codec.psnr(on_first, codec.encode([on_second])[0]),
):
    with pytest.raises(InputError, match="Found arrays on 2 devices .*jax.device_put"):
        call()
"""


def _on_two_devices(release, programs: str, *flags: str) -> None:
    count = "--xla_force_host_platform_device_count=2"
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {count}",
        "JAX_COMPILATION_CACHE_DIR": programs,
    }
    command = [sys.executable, "-c", TWO_DEVICES, str(release), *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
def test_arrays_are_coded_on_the_device_that_they_lie_on(tiny_release):
    _on_two_devices(tiny_release, "")


@pytest.mark.slow
def test_stored_programs_are_those_of_a_device(tiny_release):
    programs = os.environ["JAX_COMPILATION_CACHE_DIR"]
    _on_two_devices(tiny_release, programs, "refine")
    _on_two_devices(tiny_release, programs, "refine", "compile_nothing")
