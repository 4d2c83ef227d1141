"""The code of docs/bring_your_own.md, as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

from llic_jax.models.build import ENTROPY_MODELS

PAGE = Path(__file__).parents[1] / "docs" / "bring_your_own.md"


@pytest.mark.slow
def test_the_page_works(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ENTROPY_MODELS, "checkerboard", None)  # so that it is gone afterwards

    ramp = np.linspace(0, 255, 64)
    smooth = np.stack([*np.meshgrid(ramp, ramp), np.full((64, 64), 90.0)], axis=-1)
    photographs = np.stack([smooth, smooth[::-1, ::-1]]).astype(np.uint8)

    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    namespace = {"photographs": photographs, "__name__": "page"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)

    losses = namespace["losses"]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0]
    assert namespace["image"].shape == (64, 64, 3)
    codec, data = namespace["codec"], namespace["data"]
    encoded = codec.encode([photographs[0]])[0]
    assert encoded.data == data
    np.testing.assert_array_equal(namespace["image"], codec.reconstruct(encoded))
    assert namespace["named"].steps[1].parity == 1
