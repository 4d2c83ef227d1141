"""Progressive files: what their first part shows, and what becomes of damage in it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import llic_jax
from llic_jax.bitstream.file import PICTURE_VERSION, PROGRESSIVE_VERSION, LlicFile
from llic_jax.bitstream.tags import STEP_CHECKS
from llic_jax.codec.codec import Codec
from llic_jax.codec.networks import quality_array
from llic_jax.codec.rate_control import Quality, TargetBpp
from llic_jax.coding.scale_offsets import with_all_rows
from llic_jax.coding.symbol_stream import SymbolReader
from llic_jax.entropy.walk import Walk
from llic_jax.errors import CorruptError, InputError, TruncatedError
from llic_jax.images.photograph import Photograph
from llic_jax.models.encoder_options import EncoderOptions

SIZE = 128, 192  # pixels; of the canvas, too


@pytest.fixture(scope="module")
def plain(tiny_codec, photograph):
    return tiny_codec.compress(photograph[: SIZE[0], : SIZE[1]], 2.0)


@pytest.fixture(scope="module")
def coded(tiny_codec, photograph):
    return tiny_codec.progressive.compress(photograph[: SIZE[0], : SIZE[1]], 2.0)


def steps_of(codec) -> int:
    return 1 + len(codec.network.steps)


def part(data: bytes, payload: int) -> bytes:
    """The first part of a sound file without sections behind its payload, and so much of that."""
    return data[: len(data) - 4 - len(LlicFile.from_bytes(data).payload) + payload]


def with_payload_byte(data: bytes, place: int, flip: int = 1) -> bytes:
    damaged = bytearray(data)
    damaged[len(part(data, 0)) + place] ^= flip
    return bytes(damaged)


def test_the_same_payload_goes_into_another_file(tiny_codec, plain, coded):
    usual, file = LlicFile.from_bytes(plain), LlicFile.from_bytes(coded)
    checks = file.sections.pop(STEP_CHECKS)
    assert (usual.version, file.version) == (3, 5) and len(checks) == 2 * steps_of(tiny_codec)
    assert dataclasses.replace(file, version=3) == usual
    assert len(coded) == len(plain) + 1 + 2 + len(checks)  # length of all, tag and length
    np.testing.assert_array_equal(tiny_codec.decompress(coded), tiny_codec.decompress(plain))
    (whole,) = tiny_codec.decode([coded])
    assert whole.verified == (steps_of(tiny_codec), steps_of(tiny_codec), False)
    assert tiny_codec.decode([plain])[0].verified is None


def test_every_part_shows_what_the_usual_file_s_shows(tiny_codec, plain, coded):
    size, verified = len(LlicFile.from_bytes(coded).payload), []
    for there in np.linspace(0, size - 1, 12).astype(int):
        (usual,) = tiny_codec.decode([part(plain, there)], preview=True)
        (checked,) = tiny_codec.decode([part(coded, there)], preview=True)
        np.testing.assert_array_equal(checked.image, usual.image)
        assert checked.share == usual.share < 1 and usual.verified is None
        assert checked.verified.total == steps_of(tiny_codec) and not checked.verified.refuted
        verified.append(checked.verified.steps)
    assert verified == sorted(verified)
    assert verified[0] == 0 and verified[-1] == steps_of(tiny_codec) - 1
    with pytest.raises(TruncatedError, match="at least"):
        tiny_codec.decode([coded[:30]], preview=True)


def shown(codec: Codec, data: bytes, steps: int) -> np.ndarray:
    """The image of `z` and so many steps less one; the others are at their means."""
    file, networks = LlicFile.from_bytes(data), codec.networks
    canvas, quality = networks.canvas_for([SIZE]), quality_array([file.quality])
    reader = SymbolReader(file, with_all_rows(codec.model.tables))
    blocks = canvas.unpadded().blocks
    symbols = reader.read_hyper((*blocks, codec.model.tables.hyper_rows))
    z_hat = jnp.asarray(canvas.place(symbols[None]), jnp.float32)
    hyper = networks.hyper_synthesize(canvas, z_hat, quality)
    shape = (1, *(4 * side for side in canvas.blocks), codec.network.latent_channels)
    walk = Walk(networks.entropy_model(canvas), hyper, shape)
    for k, (step, mean, scale) in enumerate(walk):
        found = np.zeros(canvas.crop(np.asarray(scale)).shape[1:], np.int32)
        if k + 1 < steps:
            found = reader.read(step, canvas.crop(np.asarray(networks.positions(scale)))[0])
        walk.fill(networks.dequantize(canvas.place(found[None]), mean))
    image = networks.synthesize(canvas, walk.y_hat, quality)
    return np.asarray(image)[0, : SIZE[0], : SIZE[1]]


def test_damage_is_rolled_back_to_the_step_before(tiny_codec, coded):
    file, total = LlicFile.from_bytes(coded), steps_of(tiny_codec)
    found = set()
    for place in np.linspace(300, 0.7 * len(file.payload), 9).astype(int):
        damaged = with_payload_byte(coded, place)[:-14]
        (decoded,) = tiny_codec.decode([damaged], preview=True)
        (before,) = tiny_codec.decode([part(coded, place)], preview=True)
        steps = decoded.verified.steps
        assert decoded.verified == (steps, total, True)
        assert 0 <= steps - before.verified.steps <= 1  # nearly at the end of a step, perhaps
        np.testing.assert_array_equal(decoded.image, shown(tiny_codec, coded, steps))
        found.add(steps)
    assert len(found) >= 2
    # Beside a sound file: each has its own.
    both = tiny_codec.decode([coded, damaged], preview=True)
    assert [d.verified for d in both] == [(total, total, False), (steps, total, True)]
    np.testing.assert_allclose(both[1].image, decoded.image, atol=1)


def test_damage_in_the_end_of_a_file_that_lacks_its_checksum(tiny_codec, coded):
    size, total = len(LlicFile.from_bytes(coded).payload), steps_of(tiny_codec)
    damaged = with_payload_byte(coded, size - 60)
    with pytest.raises(CorruptError, match="checksum does not fit"):
        tiny_codec.decode([damaged], preview=True)
    for cut in (1, 4):
        (decoded,) = tiny_codec.decode([damaged[:-cut]], preview=True)
        assert decoded.verified == (total - 1, total, True) and decoded.share == 1
        (sound,) = tiny_codec.decode([coded[:-cut]], preview=True)
        assert sound.verified == (total, total, False)
        np.testing.assert_array_equal(sound.image, tiny_codec.decompress(coded))


def test_damage_in_header_or_z_is_an_error(tiny_codec, coded):
    other_quality = coded[:14] + (384).to_bytes(2, "little") + coded[16:]
    for damaged in (with_payload_byte(coded, 1), other_quality):
        with pytest.raises(CorruptError, match="from step 1 of"):
            tiny_codec.decode([damaged[:1000]], preview=True)


def test_a_whole_file_is_refused_at_the_step_that_disagrees(tiny_codec, coded):
    """As a platform would that computes other probabilities."""
    file, total = LlicFile.from_bytes(coded), steps_of(tiny_codec)
    checks = bytearray(file.sections[STEP_CHECKS])
    checks[4] ^= 1
    other = dataclasses.replace(file, sections={STEP_CHECKS: bytes(checks)}).to_bytes()
    for preview in (False, True):
        with pytest.raises(CorruptError, match=f"from step 3 of {total} on: this platform"):
            tiny_codec.decode([other], preview)
    short = dataclasses.replace(file, sections={STEP_CHECKS: bytes(checks[2:])}).to_bytes()
    for data in (short, part(short, 500)):
        with pytest.raises(CorruptError, match=f"expected {2 * total} for"):
            tiny_codec.decode([data], preview=True)
    without = dataclasses.replace(file, sections={}).to_bytes()
    np.testing.assert_array_equal(tiny_codec.decompress(without), tiny_codec.decompress(coded))


def test_a_part_has_profile_alpha_and_metadata(tiny_codec, photograph):
    alpha = np.arange(4096, dtype=np.uint16).reshape(64, 64).astype(np.uint8)
    whole = Photograph(
        photograph[:64, :64], alpha=alpha, icc=b"a profile", exif=b"made by", dpi=(300.0, 200.0)
    )
    for progressive in (True, False):
        data = llic_jax.compress(whole, keep_exif=True, progressive=progressive, model=tiny_codec)
        file = LlicFile.from_bytes(data)
        cut = data[: data.index(file.payload) + len(file.payload) // 2]
        (found,) = tiny_codec.decode_photographs([cut], preview=True)
        if progressive:
            np.testing.assert_array_equal(found.alpha, alpha)
            assert (found.icc, found.exif, found.dpi) == (b"a profile", b"made by", (300, 200))
            assert found.verified[0] >= 1 and found.verified[1] == steps_of(tiny_codec)
        else:
            assert found.alpha is found.icc is found.exif is found.dpi is found.verified is None
        assert found.notes == ()


def test_targets_effort_and_other_codings(tiny_codec, photograph):
    image, codec = photograph[:64, :64], tiny_codec.progressive
    (encoded,) = codec.encode([image], TargetBpp(5.0))
    file = LlicFile.from_bytes(encoded.data)
    assert file.version == PROGRESSIVE_VERSION and encoded.bpp <= 5.0
    refined = llic_jax.compress(image, 1.5, effort=2, progressive=True, model=tiny_codec)
    assert LlicFile.from_bytes(refined).version == PROGRESSIVE_VERSION
    (whole,) = tiny_codec.decode([refined])
    assert whole.verified == (steps_of(codec), steps_of(codec), False)
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255
    drawn = LlicFile.from_bytes(codec.encode([stripes], fall_back=True)[0].data)
    assert drawn.version == PICTURE_VERSION and STEP_CHECKS not in drawn.sections
    assert codec.decode([drawn.to_bytes()], preview=True)[0].verified is None
    several = codec.encode([image, photograph[64:128, :64]], Quality(1.5))
    assert [d.verified for d in codec.decode([e.data for e in several])] == [whole.verified] * 2


def test_the_codec_s_other_options_stay(tiny_codec):
    codec = Codec(tiny_codec.model, EncoderOptions(2.0), networks=tiny_codec.networks)
    assert codec.progressive.options == EncoderOptions(2.0, progressive=True)
    assert codec.progressive.networks is codec.networks and not codec.options.progressive


def test_a_coder_that_orders_symbols_is_refused(tiny_codec):
    pytest.importorskip("constriction")
    codec = Codec(tiny_codec.model, EncoderOptions(coder="constriction"))
    with pytest.raises(InputError, match=r"constriction writes no progressive .* coder tfc, or"):
        codec.progressive  # noqa: B018


def test_damage_anywhere_in_a_part_is_an_error_or_verified_up_to_there(tiny_codec, coded):
    rng, outcomes = np.random.default_rng(5), []
    start = len(part(coded, 0))
    for _ in range(40):
        cut = int(rng.integers(start + 200, len(coded) - 4))
        place = int(rng.integers(0, cut))
        damaged = bytearray(coded[:cut])
        damaged[place] ^= int(rng.integers(1, 256))
        try:
            (decoded,) = tiny_codec.decode([bytes(damaged)], preview=True)
        except llic_jax.errors.BitstreamError as error:
            outcomes.append(type(error).__name__)
            continue
        (sound,) = tiny_codec.decode([coded[:cut]], preview=True)
        verified = decoded.verified
        assert verified.steps <= sound.verified.steps
        outcomes.append("refuted" if verified.refuted else "in a step that is not whole")
    assert outcomes.count("refuted") > 10
