"""Looking inside: energies of known shape, and bits that add up to the codec's own estimate."""

import flax.linen as nn
import numpy as np
import pytest

from llic_jax.bitstream.file import LlicFile
from llic_jax.codec.rate_control import Quality
from llic_jax.errors import InspectionError
from llic_jax.evaluation import inspection


@pytest.fixture(scope="module")
def image(photograph):
    return np.ascontiguousarray(photograph[:180, :170])


@pytest.fixture(scope="module")
def inspector(tiny_codec):
    options = tiny_codec.options
    assert options.rdoq_weight and all(options.back_projection)
    return inspection.Inspector(tiny_codec.network, tiny_codec.model.params, options)


@pytest.fixture(scope="module")
def insight(inspector, image):
    return inspector.inspect(image, 2.0)


def test_the_bits_of_all_elements_are_the_codecs_estimate(insight, tiny_codec, image, as_predicted):
    encoded = tiny_codec.encode([image], Quality(2.0))[0]
    assert insight.bits_y.shape == (12, 12, 16) and insight.bits_z.shape == (3, 3, 8)
    total = float(insight.bits_y.sum() + insight.bits_z.sum())
    header = len(encoded.data) - len(LlicFile.from_bytes(encoded.data).payload)
    assert total == pytest.approx(encoded.bits - 8 * header, rel=1e-3)
    assert float(insight.bit_map().sum()) * 256 == pytest.approx(total, rel=1e-5)
    assert insight.bits_y.min() >= 0


def test_groups_add_up_in_coding_order(insight, tiny_codec):
    channels = insight.bits_y.sum((0, 1))
    groups = inspection.group_bits(tiny_codec.network.steps, channels)
    assert list(groups) == ["0-3", "4-15"]
    assert groups["0-3"] == pytest.approx(float(channels[:4].sum()), rel=1e-6)
    assert sum(groups.values()) == pytest.approx(float(channels.sum()), rel=1e-6)


def test_bits_follow_detail(inspector, image):
    """Half of the image is flat: its bits are on the other half."""
    half = image.copy()
    half[:, 85:] = 128
    found = inspector.inspect(half, 2.0).bit_map()
    assert found[:, :5].mean() > found[:, 7:].mean()


def test_kernels_and_factors_are_those_of_each_block(insight):
    blocks = [f"block_{stage}_0" for stage in range(4)]
    assert list(insight.kernels) == list(insight.factors) == blocks
    assert [insight.kernels[b].shape for b in blocks] == [
        (5, 5, 8),
        (5, 5, 8),
        (3, 3, 12),
        (3, 3, 16),
    ]
    assert all(((f > 0) & (f < 1)).all() for f in insight.factors.values())


def test_generated_kernels_differ_between_images(insight, inspector, image):
    other = inspector.inspect(255 - image, 2.0)
    assert np.abs(other.kernels["block_0_0"] - insight.kernels["block_0_0"]).max() > 0


def test_the_radius_holds_the_energy_that_is_asked_for():
    energy = np.zeros((41, 41))
    energy[30, 10] = 1
    assert inspection.energy_radius(energy) == 0
    rows, columns = np.indices((201, 201)) - 100
    # A Gaussian: 95 % lie within sqrt(2 ln 20) standard deviations.
    gaussian = np.exp(-(rows**2 + columns**2) / (2 * 12.0**2))
    expected = 12 * np.sqrt(2 * np.log(20))
    assert inspection.energy_radius(gaussian) == pytest.approx(expected, abs=0.5)
    assert inspection.energy_radius(gaussian, 0.5) < expected / 2


class _Box(nn.Module):
    """Sums of 16x16 boxes of the image, eight pixels apart from them: a field that is known."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.ones, (32, 32, 3, 1))
        return nn.Conv(1, (32, 32), (16, 16), "SAME", use_bias=False).apply(
            {"params": {"kernel": kernel}}, x
        )


_PROBE = inspection.ReceptiveFieldProbe(_Box())


def test_a_known_receptive_field_is_found(photograph):
    params = {"kernel": np.ones((32, 32, 3, 1), np.float32)}
    found = _PROBE.measure("box", params, [photograph, photograph], 192)
    lit = found.energy > 0
    assert found.energy.shape == (192, 192) and found.energy.sum() == pytest.approx(1)
    rows, columns = np.nonzero(lit)
    assert lit.sum() == 32 * 32
    assert rows.max() - rows.min() == columns.max() - columns.min() == 31
    # The disc that covers 95 % of a square of side 32: pi r^2 less four segments, r = 19.15.
    assert found.radius == pytest.approx(19.15, abs=0.5)


def test_images_and_sizes_must_go_together(photograph):
    with pytest.raises(InspectionError, match="multiple of 64"):
        _PROBE.measure("box", {}, [photograph], 100)
    with pytest.raises(InspectionError, match="272 x 240 has no middle of 256"):
        inspection.central_crop(photograph, 256)


@pytest.mark.slow
def test_static_kernels_see_more_if_they_are_larger(tiny_codec, tiny_config, photograph):
    fields = inspection.receptive_fields(
        tiny_codec.network, tiny_codec.model.params, tiny_config.model.to_dict(), [photograph]
    )
    assert len(fields) == 4
    assert "5x5" in fields[2].name and "3x3" in fields[3].name
    assert all(0 < field.radius < 136 for field in fields)
    assert fields[2].radius > fields[3].radius
