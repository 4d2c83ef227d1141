"""Files that were cut, or are still arriving."""

import dataclasses

import numpy as np
import pytest

from llic_jax.bitstream.file import LlicFile
from llic_jax.errors import BitstreamError, CorruptError, TruncatedError
from llic_jax.metrics.distortion import image_psnr
from llic_jax.zoo.folder import load_codec


@pytest.fixture(scope="module")
def coded(tiny_codec, photograph):
    return tiny_codec.compress(photograph[:128, :192], 2.0)


def test_a_whole_file_is_its_own_preview(tiny_codec, coded):
    (decoded,) = tiny_codec.decode([coded], preview=True)
    np.testing.assert_array_equal(decoded.image, tiny_codec.decompress(coded))
    assert decoded.share == 1


def test_a_preview_comes_nearer_with_every_part(tiny_codec, coded):
    whole = tiny_codec.decompress(coded)
    start = len(coded) - len(LlicFile.from_bytes(coded).payload) - 4
    sizes = np.linspace(start, len(coded) - 5, 9).astype(int)
    decoded = [tiny_codec.decode([coded[:size]], preview=True)[0] for size in sizes]
    shares = [d.share for d in decoded]
    assert shares[0] == 0 and shares == sorted(shares) and 0.99 < shares[-1] < 1
    psnr = [image_psnr(whole, d.image) for d in decoded]
    assert psnr[-1] > psnr[6] > psnr[3] > psnr[0]
    # Several at once, of different shares, are those alone.
    together = tiny_codec.decode([coded[: sizes[2]], coded], preview=True)
    np.testing.assert_allclose(together[0].image, decoded[2].image, atol=1)
    np.testing.assert_allclose(together[1].image, whole, atol=1)


def test_where_a_section_is_cut_the_image_is_whole_and_checked(tiny_codec, photograph):
    data = tiny_codec.encode([photograph[:64, :64]], sections=[{200: bytes(50)}])[0].data
    (decoded,) = tiny_codec.decode([data[:-20]], preview=True)
    np.testing.assert_array_equal(decoded.image, tiny_codec.decompress(data))
    file = LlicFile.from_start(data[:-20])
    other = dataclasses.replace(file, whole=True, symbols_crc=file.symbols_crc ^ 1).to_bytes()
    with pytest.raises(CorruptError, match="not those that were coded"):
        tiny_codec.decode([other], preview=True)


def test_a_part_is_an_error_where_no_preview_is_asked_for(tiny_codec, coded):
    for call in (tiny_codec.decompress, lambda data: tiny_codec.decode([data])):
        with pytest.raises(TruncatedError, match="--preview"):
            call(coded[: len(coded) // 2])


def test_a_coder_that_orders_symbols_has_no_preview(tiny_release, photograph):
    pytest.importorskip("constriction")
    codec = load_codec(tiny_release, "constriction")
    data = codec.compress(photograph[:64, :64], 2.0)
    with pytest.raises(TruncatedError, match="range coder constriction"):
        codec.decode([data[: len(data) // 2]], preview=True)


def test_damage_before_the_cut_is_an_error_or_a_picture(tiny_codec, coded):
    """Of a part nothing is checked: damage shows, and never does more."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        damaged = bytearray(coded[: rng.integers(20, len(coded) - 4)])
        for position in rng.integers(0, len(damaged), 3):
            damaged[position] = rng.integers(256)
        try:
            (decoded,) = tiny_codec.decode([bytes(damaged)], preview=True)
        except BitstreamError:
            continue
        assert decoded.image.dtype == np.uint8
