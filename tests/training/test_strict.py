"""JAX's stricter switches: types and ranks are explicit in whatever a user's program can call.

A program may forbid JAX to promote ranks and types by itself, for the whole process. Tracing is
where it would refuse, so most of these tests compile nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.codec.effort import Refinement
from llic_jax.codec.rate_control import TargetPsnr
from llic_jax.configs import llic_elic_small, llic_stf_small, llic_tcm_small
from llic_jax.metrics import distortion
from llic_jax.models.build import build_model
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.training.objective import Objective
from llic_jax.training.phases import Phase
from llic_jax.training.settings import RunSettings
from llic_jax.training.state import create_state
from llic_jax.training.step import make_step
from llic_jax.training.validation import Validation
from llic_jax.zoo.folder import load_codec


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.mark.slow
def test_files_are_those_of_ever(tiny_release, photograph):
    """Both ways, with what an encoder can be asked for; in float32."""
    image = photograph[:64, :64]
    codec = load_codec(tiny_release)  # one of before has programs that are traced already
    for rate in ({"quality": 1.5}, {"rate": TargetPsnr(4.0)}, {"refinement": Refinement(2)}):
        if "quality" in rate:
            files = [codec.compress(image, **rate)]
        else:
            files = [encoded.data for encoded in codec.encode([image], **rate)]
        (decoded,) = codec.decode(files)
        assert decoded.image.shape == image.shape
    assert np.isfinite(distortion.image_psnr(image, decoded.image))
    large = np.kron(image, np.ones((3, 3, 1), np.uint8))
    assert distortion.image_ms_ssim(large, large) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"model.levels": 1, "model.branch_gains": False, "train.lmbdas": (0.01,)},
        {"train.optimizer": "soap", "train.distortion": "ms_ssim", "data.crops": (192,)},
        {
            "train.schedule": "time",
            "train.minutes": 1.0,
            "train.accumulate": 2,
            "train.loss_knee": 2.0,
        },
        {"train.frozen": ("g_a",), "coding.rdoq_weight": 0.1, "model.remat": True},
    ],
    ids=str,
)
def test_steps(tiny_config, phase, changed):
    trace_step(tiny_config, changed | {"coding.back_projection": ()}, phase)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elic", "stf", "tcm"])
def test_steps_of_every_entropy_model(name):
    module = {"elic": llic_elic_small, "stf": llic_stf_small, "tcm": llic_tcm_small}[name]
    trace_step(
        module.get_config(),
        {"data.crops": (64,), "data.crop_boundaries": (), "train.start": "nothing"},
        Phase.ALL,
    )


def trace_step(config, changed, phase):
    config = config.copy_and_resolve_references()
    with config.ignore_type():
        config.update_from_flattened_dict(changed | {"train.batch_size": 2})
    settings = RunSettings.of(config)
    model, side = build_model(settings.model), settings.data.crops[0]
    state, optimizer, unravel = create_state(model, settings.train, 0)
    step = make_step(
        Objective(model, settings.train, phase, settings.options), optimizer, unravel, 0
    )
    images = jax.ShapeDtypeStruct((1, 2, side, side, 3), jnp.uint8)
    states = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), state)
    rates = [jax.ShapeDtypeStruct((1,), jnp.float32)] if settings.train.by_time else []
    new, _ = jax.eval_shape(step, states, images, *rates)
    for name in ("params", "ema"):
        assert getattr(new, name).dtype == jnp.float32


def test_validation(tiny_config, tiny_params, photograph):
    settings = RunSettings.of(tiny_config)
    options = EncoderOptions.of(tiny_config.coding, tiny_config.model.levels)
    validation = Validation(build_model(settings.model), settings.train, options)
    figures, _ = validation.measure(tiny_params, [photograph], 64, levels=[1])
    assert np.isfinite(figures["loss"])
