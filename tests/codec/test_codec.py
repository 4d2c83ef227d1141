import dataclasses
import pickle
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.bitstream import file as bitstream
from llic_jax.bitstream.file import LlicFile
from llic_jax.codec.codec import Codec
from llic_jax.codec.effort import Refinement
from llic_jax.codec.rate_control import Quality
from llic_jax.errors import (
    ArgumentTypeError,
    BitstreamError,
    CorruptError,
    ImageSizeError,
    InputError,
    UnknownCoderError,
    WrongModelError,
)
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.ops.sizes import pad_to_multiple
from llic_jax.zoo.folder import load_codec


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (17, 130)])
def test_decoded_is_what_the_encoder_saw(tiny_release, coder, photograph, size):
    codec = load_codec(tiny_release, coder)
    image = photograph[: size[0], : size[1]]
    encoded = codec.encode([image], Quality(1.5))[0]
    decoded = codec.decode([encoded.data])[0]
    assert decoded.image.shape == image.shape and decoded.image.dtype == np.uint8
    np.testing.assert_array_equal(decoded.image, codec.reconstruct(encoded))
    assert encoded.network_seconds > 0 and decoded.coder_seconds > 0


@pytest.mark.slow
def test_images_coded_together_are_those_coded_alone(tiny_release, coder, photograph):
    """Sizes that pad alike, one quality on the way in and several on the way out."""
    codec = load_codec(tiny_release, coder)
    images = [photograph[:120, :70], photograph[60:188, 100:228], photograph[:65, 20:148]]
    together = codec.encode(images, Quality(2.0), sections=[{}, {200: b"more"}, {}])
    others = [codec.encode([image], Quality(1.25))[0] for image in images]
    for image, encoded in zip(images, together, strict=True):
        alone = codec.encode([image], Quality(2.0))[0]
        payloads = [len(LlicFile.from_bytes(data).payload) for data in (encoded.data, alone.data)]
        assert payloads[0] == pytest.approx(payloads[1], rel=0.01)
        assert _apart(codec.decompress(encoded.data), codec.decompress(alone.data)) <= 1
    assert LlicFile.from_bytes(together[1].data).sections == {200: b"more"}
    data = [together[0].data, others[2].data, together[1].data]
    for decoded, of_image in zip(codec.decode(data), data, strict=True):
        assert _apart(decoded.image, codec.decompress(of_image)) <= 1
        assert decoded.network_seconds > 0 and decoded.coder_seconds > 0
    with pytest.raises(InputError, match="130 x 65 pixels do not go"):
        codec.encode([images[0], photograph[:65, :130]])
    with pytest.raises(InputError, match="Code them apart"):
        codec.decode([data[0], codec.compress(photograph)])
    with pytest.raises(CorruptError):
        codec.decode([data[0], data[1][:-1] + bytes([data[1][-1] ^ 255])])


def test_files_for_one_machine_only_are_not_coded_together(tiny_codec, photograph):
    """Their table rows stand on the last digits of what the networks compute."""
    codec = Codec(tiny_codec.model, EncoderOptions(shift_resolution=0))
    images = [photograph[:64, :64], photograph[64:128, :64]]
    data = [encoded.data for encoded in codec.encode(images)]
    assert data == [codec.compress(image) for image in images]
    for decoded, image in zip(codec.decode(data), data, strict=True):
        np.testing.assert_array_equal(decoded.image, codec.decompress(image))


def _apart(image: np.ndarray, other: np.ndarray) -> int:
    assert image.shape == other.shape
    return int(np.abs(image.astype(int) - other).max())


def test_a_file_has_a_small_header(tiny_release, coder, photograph):
    codec = load_codec(tiny_release, coder)
    data = codec.compress(photograph, 2.0)
    assert len(data) - len(LlicFile.from_bytes(data).payload) < 40


@pytest.mark.slow
def test_symbols_chosen_for_their_cost_make_a_smaller_file_for_every_decoder(
    tiny_release, tiny_codec, photograph, request
):
    """The rate may fall further than the error rises; a decoder needs to know nothing of it."""
    codec, weight = load_codec(tiny_release), 2.0
    plain, frugal = (Codec(codec.model, EncoderOptions(w)) for w in (0.0, weight))
    chosen = frugal.encode([photograph], Quality(1.5))[0]
    assert len(chosen.data) < 0.99 * len(plain.compress(photograph, 1.5))
    decoded = tiny_codec.decompress(chosen.data)
    np.testing.assert_array_equal(decoded, frugal.reconstruct(chosen))
    x = jnp.asarray(pad_to_multiple(photograph[None], 64), jnp.float32) / 255
    out = codec.network.apply(
        {"params": codec.model.params}, x, jnp.full(1, 1.5), None, EncoderOptions(weight)
    )
    header = 8 * (len(chosen.data) - len(LlicFile.from_bytes(chosen.data).payload))
    estimated = float(out.bits_y[0] + out.bits_z[0])
    assert chosen.bits - header < 0.9 * estimated  # random weights: the scales are far off
    request.getfixturevalue("as_predicted")
    bits = frugal.encode([photograph], Quality(1.5))[0].bits
    assert abs(bits - header - estimated) < 0.01 * bits


def test_a_higher_quality_costs_more_and_is_in_the_file(tiny_codec, photograph):
    low, high = (tiny_codec.encode([photograph], Quality(q))[0] for q in (1.0, 2.0))
    assert low.bits < high.bits and len(low.data) < len(high.data)
    assert LlicFile.from_bytes(low.data).quality == 1.0
    middle = LlicFile.from_bytes(tiny_codec.compress(photograph)).quality
    assert middle == tiny_codec.default_quality == 1.5
    # Between two steps that a file can hold, the encoder takes the nearer, like the decoder.
    fine = tiny_codec.encode([photograph], Quality(1.3333))[0]
    np.testing.assert_array_equal(tiny_codec.decompress(fine.data), tiny_codec.reconstruct(fine))


def test_compression_is_deterministic(tiny_codec, photograph):
    assert tiny_codec.compress(photograph) == tiny_codec.compress(photograph)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_image_are_refused(tiny_codec, image):
    with pytest.raises(InputError, match="expected \\(height, width, 3\\)"):
        tiny_codec.compress(image)


@pytest.mark.parametrize("quality", [0.9, 2.1, float("nan")])
def test_qualities_out_of_range_are_refused(tiny_codec, photograph, quality):
    with pytest.raises(InputError, match="1 to 2"):
        tiny_codec.compress(photograph, quality)


@pytest.fixture(scope="module")
def file(tiny_release) -> tuple[Codec, LlicFile]:
    codec = load_codec(tiny_release)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return codec, LlicFile.from_bytes(codec.compress(image, strict_llic=True))


def test_every_flipped_byte_and_every_truncation_of_a_real_file(file):
    codec, parsed = file
    data = parsed.to_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        with pytest.raises(BitstreamError):
            codec.decompress(bytes(damaged))
        with pytest.raises(BitstreamError):
            codec.decompress(data[:position])


def test_a_damaged_payload_with_a_right_checksum_is_no_image(file):
    codec, parsed = file
    rng = np.random.default_rng(0)
    for _ in range(30):
        payload = bytearray(parsed.payload)
        payload[rng.integers(len(payload))] ^= 1 << rng.integers(8)
        with pytest.raises(CorruptError):
            codec.decompress(dataclasses.replace(parsed, payload=bytes(payload)).to_bytes())
    with pytest.raises(CorruptError):
        codec.decompress(dataclasses.replace(parsed, payload=b"").to_bytes())


def test_files_of_other_weights_coders_and_sizes_are_told_apart(file):
    codec, parsed = file
    other = dataclasses.replace(parsed, fingerprint=b"otherone")
    with pytest.raises(WrongModelError, match=b"otherone".hex()):
        codec.decompress(other.to_bytes())
    with pytest.raises(UnknownCoderError, match="coder 77"):
        codec.decompress(dataclasses.replace(parsed, coder=77).to_bytes())
    with pytest.raises(CorruptError, match="Quality"):
        codec.decompress(dataclasses.replace(parsed, quality=9.0).to_bytes())
    huge = dataclasses.replace(parsed, width=bitstream.MAX_SIDE, height=bitstream.MAX_SIDE)
    with pytest.raises(ImageSizeError, match="allowed"):
        codec.decompress(huge.to_bytes())


def test_importing_the_codec_loads_no_tensorflow():
    code = "import sys\nimport llic_jax.training.loop\nsys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_line_starts_without_jax():
    code = (
        "import sys\n"
        "import llic_jax.bitstream.file\n"
        "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_single_image_or_file_where_several_are_expected_is_refused(tiny_codec, photograph):
    for call in (
        lambda: tiny_codec.encode(photograph),
        lambda: tiny_codec.decode(b"LLIC"),
        lambda: tiny_codec.decode_photographs(memoryview(b"LLIC")),
    ):
        with pytest.raises(ArgumentTypeError, match="expected a list"):
            call()
    assert tiny_codec.encode([]) == tiny_codec.decode([]) == []


def test_a_file_is_parsed_once_and_its_quality_known(tiny_codec, photograph, monkeypatch):
    calls = []
    parse = LlicFile.from_bytes
    monkeypatch.setattr(LlicFile, "from_bytes", lambda data: calls.append(1) or parse(data))
    tiny_codec.encode([photograph[:60, :50]], Quality(1.25), Refinement(1))
    (encoded,) = tiny_codec.encode([photograph[:60, :50]], Quality(1.25))
    tiny_codec.reconstruct(encoded)
    assert not calls and encoded.quality == 1.25
    assert (encoded.height, encoded.width) == (60, 50)
    tiny_codec.decode_photographs([encoded.data])
    assert len(calls) == 1


def test_latents_of_another_size_are_refused(tiny_codec, photograph):
    latents = tiny_codec.analyze(photograph)
    with pytest.raises(InputError, match="for an image of 65 x 64 pixels"):
        tiny_codec.encode_latents(latents, 64, 65)


def test_a_pickled_codec_writes_the_same_files(tiny_codec, photograph):
    again = pickle.loads(pickle.dumps(tiny_codec))
    assert again.compress(photograph[:64, :64]) == tiny_codec.compress(photograph[:64, :64])


def test_a_forked_child_is_told_and_does_not_hang(tiny_release):
    code = (
        "import os, sys, numpy as np\n"
        "from llic_jax.zoo.folder import load_codec\n"
        "codec = load_codec(sys.argv[1])\n"
        "from llic_jax.errors import ForkError\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n"
        "        codec.compress(np.zeros((8, 8, 3), np.uint8))\n"
        "    except ForkError as error:\n"
        "        os._exit(3 if 'spawn' in str(error) else 4)\n"
        "    os._exit(5)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tiny_release)]
    assert subprocess.run(command, check=False, timeout=120).returncode == 3
