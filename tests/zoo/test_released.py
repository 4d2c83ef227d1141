import json

import numpy as np
import pytest

from llic_jax.codec.rate_control import Quality
from llic_jax.zoo import golden
from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec


@pytest.fixture(scope="module")
def codec():
    return load_codec()


def test_the_released_model_compresses_a_photograph(codec, photograph):
    """Real weights: a fair picture, at a rate that the model's own estimate tells."""
    sizes, errors = [], []
    for quality in (1.0, codec.default_quality):
        encoded = codec.encode([photograph], Quality(quality))[0]
        # 1 %, and a few bytes that constriction's whole words and longer escapes take.
        assert abs(len(encoded.data) - encoded.bits / 8) < 0.01 * encoded.bits / 8 + 16
        decoded = codec.decompress(encoded.data)
        np.testing.assert_array_equal(decoded, codec.reconstruct(encoded))
        sizes.append(len(encoded.data))
        errors.append(np.mean(np.square(decoded.astype(float) - photograph)))
    assert sizes[0] < sizes[1] and errors[0] > errors[1]
    assert errors[1] < 255**2 * 10**-2.5  # 25 dB


def test_the_folder_is_complete_and_its_parts_go_together(codec):
    golden.check(DEFAULT_FOLDER, codec)
    assert all(size < 24e6 for size in (p.stat().st_size for p in DEFAULT_FOLDER.iterdir()))
    card = (DEFAULT_FOLDER / "README.md").read_text()
    config = json.loads((DEFAULT_FOLDER / "config.json").read_text())
    assert f"{config['trained_steps']} steps" in card
