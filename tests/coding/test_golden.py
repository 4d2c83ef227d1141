"""Files of every version of the format decode for ever (written by tests/golden/write.py)."""

from pathlib import Path

import numpy as np
import pytest

from llic_jax import images
from llic_jax.coding import bitstream, container
from llic_jax.coding.range_coder import installed_coders
from llic_jax.release import load_codec

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDERS = sorted(path.parent for path in GOLDEN.glob("version_*/*/decoded.png"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_golden_files_decode_as_they_always_did(folder, coder):
    data = (folder / f"{coder}.llic").read_bytes()
    version = int(folder.parent.name.removeprefix("version_"))
    assert bitstream.parse(data).version == version
    codec = load_codec(GOLDEN / "models" / folder.name)
    decoded = container.decompress(codec, data)
    expected = images.read_photograph(folder / "decoded.png")
    assert np.abs(decoded.rgb.astype(int) - expected.rgb).max() <= 1
    assert decoded.icc == expected.icc
    if version > 1:
        np.testing.assert_array_equal(decoded.alpha, expected.alpha)


def test_there_are_golden_files_of_every_model_and_coder():
    now = [folder for folder in FOLDERS if folder.parent.name == f"version_{bitstream.VERSION}"]
    assert {folder.name for folder in now} == {"elic", "stf", "tcm"}
    for folder in FOLDERS:
        assert {p.stem for p in folder.glob("*.llic")} >= set(installed_coders())
