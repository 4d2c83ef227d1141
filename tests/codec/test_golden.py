"""Files of every version of the format decode for ever (written by tests/golden/write.py)."""

from pathlib import Path

import numpy as np
import pytest

from llic_jax.bitstream import file as bitstream
from llic_jax.bitstream.file import LlicFile
from llic_jax.codec.codec import Codec
from llic_jax.coding.range_coders.registry import CODERS
from llic_jax.images.read import read_photograph
from llic_jax.zoo.folder import load_codec

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("version_*/*/coder_*.llic"))
PICTURES = sorted(GOLDEN.glob("version_4/*/picture.llic"))


def ident(path: Path) -> int:
    return int(path.stem.removeprefix("coder_"))


def name_of(path: Path) -> str:
    return "-".join(path.with_suffix("").parts[-3:])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_golden_files_decode_as_they_always_did(path):
    data = path.read_bytes()
    version = int(path.parts[-3].removeprefix("version_"))
    assert LlicFile.from_bytes(data).version == version
    assert LlicFile.from_bytes(data).coder == ident(path)
    check(path, load_codec(GOLDEN / "models" / path.parts[-2]), with_alpha=version > 1)


@pytest.mark.parametrize("path", PICTURES, ids=name_of)
@pytest.mark.parametrize("model", ["elic", "tcm"])
def test_files_without_networks_are_read_by_every_model(path, model):
    file = LlicFile.from_bytes(path.read_bytes())
    assert file.version == bitstream.PICTURE_VERSION
    assert path.parts[-2] in {f"section_{tag}" for tag in file.sections}
    check(path, load_codec(GOLDEN / "models" / model))


def test_a_part_of_a_golden_file_is_verified():
    path = GOLDEN / f"version_{bitstream.PROGRESSIVE_VERSION}" / "elic" / "coder_1.llic"
    codec, data = load_codec(GOLDEN / "models" / "elic"), path.read_bytes()
    # Bytes, and steps of `z` and two groups in two halves each that are there.
    for size, steps in ((300, 1), (700, 2), (1300, 3), (2000, 4), (len(data) - 1, 5)):
        (found,) = codec.decode_photographs([data[:size]], preview=True)
        whole = read_photograph(path.with_name("decoded.png"))
        assert found.verified == (steps, 5) and not found.notes
        assert found.icc == whole.icc
        np.testing.assert_array_equal(found.alpha, whole.alpha)


def check(path: Path, codec: Codec, with_alpha: bool = True) -> None:
    """The file's photograph is the one beside it."""
    decoded = codec.decode_photographs([path.read_bytes()])[0]
    expected = read_photograph(path.with_name("decoded.png"))
    assert np.abs(decoded.rgb.astype(int) - expected.rgb).max() <= 1
    assert decoded.icc == expected.icc
    if with_alpha:
        np.testing.assert_array_equal(decoded.alpha, expected.alpha)


def test_there_are_golden_files_of_every_model_and_coder():
    now = [path for path in FILES if path.parts[-3] == f"version_{bitstream.VERSION}"]
    expected = {
        (name, pair.coder_id) for name in ("elic", "stf", "tcm") for pair in CODERS.values()
    }
    assert {(path.parts[-2], ident(path)) for path in now} >= expected
    assert {ident(path) for path in FILES} >= {1, 2, 3}
    assert (GOLDEN / f"version_{bitstream.PROGRESSIVE_VERSION}" / "elic" / "coder_1.llic") in FILES
    assert {path.parts[-2] for path in PICTURES} == {f"section_{tag}" for tag in (1, 2, 3)}
