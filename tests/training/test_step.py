"""One step: who learns, from what, and that its parts and devices add up to the whole."""

import dataclasses
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from llic_jax.models.build import build_model, initialize
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.ops.quantization import fold_in
from llic_jax.training.checkpoints import Checkpoints
from llic_jax.training.loss import rate_distortion
from llic_jax.training.objective import Objective
from llic_jax.training.optimizer import build_optimizer, learning_rate_schedule, scale_by_part
from llic_jax.training.phases import ANALYSIS, TRANSFORMS, Phase
from llic_jax.training.quality_sampling import draw_qualities, quality_weights
from llic_jax.training.settings import TrainSettings
from llic_jax.training.state import TrainState, create_state, new_state
from llic_jax.training.step import make_step


def fresh(model, optimizer):
    """A state with fresh parameters, and from their vector to their tree."""
    vector, unravel = jax.flatten_util.ravel_pytree(initialize(model, 0))
    return new_state(vector, optimizer), unravel


def under_way(params, optimizer):
    """A state whose averages point somewhere, its vector of parameters, and to their tree."""
    vector, unravel = jax.flatten_util.ravel_pytree(params)
    state = new_state(vector, optimizer)
    averages = jax.tree.map(lambda a: a + 1e-4, state.opt_state)
    return dataclasses.replace(state, opt_state=averages), vector, unravel


def unmoved(unravel, vector, new):
    """All parameters before a step, by their paths, and the paths of those that it left alone."""
    before, after = (traverse_util.flatten_dict(unravel(p)) for p in (vector, new.params[0]))
    return before, {path for path in before if jnp.array_equal(before[path], after[path])}


@pytest.mark.slow
def test_parts_of_a_batch_give_the_batch_s_update(tiny_config):
    model, optimizer = build_model(tiny_config.model), optax.sgd(1e-3)
    state, unravel = fresh(model, optimizer)
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 64, 64, 3), np.uint8)
    found = []
    for accumulate in (1, 2):
        settings = dataclasses.replace(TrainSettings.of(tiny_config), accumulate=accumulate)
        step = make_step(Objective(model, settings), optimizer, unravel, 0)
        new, figures = step(jax.tree.map(lambda x: jnp.stack([x]), state), images)
        found.append((np.asarray(new.params[0]), float(figures["loss"][0])))
    change = np.abs(found[0][0] - np.asarray(state.params)).max()
    assert change > 0
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5, atol=1e-4 * change)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value", "tolerance"), [("remat", True, 1e-4), ("dtype", "bfloat16", 0.1)]
)
def test_cheaper_computation_gives_nearly_the_same_gradient(tiny_config, field, value, tolerance):
    """Recomputed activations: the same numbers. bfloat16: the same direction; parameters, rates and
    the loss stay float32."""
    images = np.random.default_rng(0).integers(0, 256, (1, 2, 64, 64, 3), np.uint8)
    found = []
    for change in ({}, {field: value}):
        model = build_model({**tiny_config.model.to_dict(), **change})
        optimizer = optax.sgd(1.0)
        state, unravel = fresh(model, optimizer)
        objective = Objective(model, TrainSettings.of(tiny_config))
        step = make_step(objective, optimizer, unravel, 0)
        new, figures = step(jax.tree.map(lambda x: jnp.stack([x]), state), images)
        assert new.params.dtype == figures["loss"].dtype == jnp.float32
        found.append((np.asarray(new.params[0] - state.params), float(figures["loss"][0])))
    (exact, loss), (other, other_loss) = found
    assert np.linalg.norm(other - exact) < tolerance * np.linalg.norm(exact)
    np.testing.assert_allclose(other_loss, loss, rtol=tolerance / 2)


@pytest.mark.slow
@pytest.mark.parametrize("phase", [Phase.ENTROPY_MODEL, Phase.ALL])
def test_transforms_stand_still_where_they_are_told_to(tiny_config, phase):
    """While only the rate is learned, and at a rate of their own of 0."""
    rate_only = phase != Phase.ALL
    transforms_rate = 1.0 if rate_only else 0.0
    train = dataclasses.replace(TrainSettings.of(tiny_config), transforms_rate=transforms_rate)
    model, optimizer = build_model(tiny_config.model), optax.sgd(1e-3)
    state, unravel = fresh(model, optimizer)
    images = np.random.default_rng(0).integers(0, 256, (1, 2, 64, 64, 3), np.uint8)
    step = make_step(Objective(model, train, phase), optimizer, unravel, 0)
    new, figures = step(jax.tree.map(lambda x: jnp.stack([x]), state), images)
    assert bool(figures["loss"] == figures["bpp"]) == ("psnr" not in figures) == rate_only
    before, after = unravel(state.params), unravel(new.params[0])

    def moved(name):
        pairs = zip(jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True)
        return not all(jnp.array_equal(a, b) for a, b in pairs)

    assert not any(map(moved, TRANSFORMS))
    assert moved("entropy_model") and moved("prior")


@pytest.mark.slow
def test_frozen_layers_stand_still(tiny_config, tiny_params):
    """By a part's name and by a layer's, though Adam's averages still point somewhere."""
    train = dataclasses.replace(TrainSettings.of(tiny_config), frozen=("entropy_model", "fc2"))
    model, optimizer = build_model(tiny_config.model), optax.adam(1e-3)
    state, params, unravel = under_way(tiny_params, optimizer)
    images = np.random.default_rng(0).integers(0, 256, (1, 2, 64, 64, 3), np.uint8)
    step = make_step(Objective(model, train), optimizer, unravel, 0)
    new, _ = step(jax.tree.map(lambda x: jnp.stack([x]), state), images)
    before, still = unmoved(unravel, params, new)
    assert still == {path for path in before if not {"entropy_model", "fc2"}.isdisjoint(path)}
    assert {path[0] for path in still} >= {"entropy_model", "g_a", "g_s"}


@pytest.mark.slow
def test_the_decoder_alone_learns_from_the_symbols_that_are_coded(tiny_config, tiny_params):
    """The analysis stays, though Adam's averages still point somewhere; and the loss is that of
    coding: no noise."""
    train = dataclasses.replace(TrainSettings.of(tiny_config), lmbdas=(0.0067, 0.0067))
    model, optimizer = build_model(tiny_config.model), optax.adam(1e-3)
    state, params, unravel = under_way(tiny_params, optimizer)
    images = np.random.default_rng(0).integers(0, 256, (1, 2, 64, 64, 3), np.uint8)
    options = EncoderOptions(20.0, (0.5, 0.5))
    objective = Objective(model, train, Phase.DECODER, options)
    step = make_step(objective, optimizer, unravel, 0)
    new, figures = step(jax.tree.map(lambda x: jnp.stack([x]), state), images)

    key = jax.random.fold_in(jax.random.key(0), 0)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(2))
    quality, _ = draw_qualities(fold_in(keys, 0), jnp.arange(2), 2, tuple(train.lmbdas))
    x = jnp.asarray(images[0], jnp.float32) / 255
    out = model.apply({"params": tiny_params}, x, quality, options=options)
    np.testing.assert_allclose(
        figures["bpp"][0], np.mean(out.bits_y + out.bits_z) / 64**2, rtol=1e-5
    )

    before, still = unmoved(unravel, params, new)
    analysis = {path for path in before if not set(path).isdisjoint(ANALYSIS)}
    assert ("gain_y", "log_gain") in analysis and ("gain_z", "log_gain") in analysis
    assert {path[0] for path in analysis} == {"g_a", "h_a", "gain_y", "gain_z"}
    assert analysis <= still
    assert {path[0] for path in set(before) - still} >= {"g_s", "h_s", "entropy_model", "prior"}
    assert ("gain_y", "log_inverse") not in still


def test_checkpoints_of_earlier_runs_fit(tiny_config, tmp_path):
    """The names and shapes of a state's arrays are those of every checkpoint written so far, also
    where layers are frozen or transforms have a rate of their own."""
    train = dataclasses.replace(TrainSettings.of(tiny_config), frozen=("fc2",), transforms_rate=0.5)
    state, _, _ = create_state(build_model(tiny_config.model), train, 0)
    n = state.params.size
    shapes = {
        ".step": (), ".params": (n,), ".ema": (n,), ".failed": (),
        ".opt_state[1].count": (), ".opt_state[1].mu": (n,), ".opt_state[1].nu": (n,),
        ".opt_state[2].count": (),
    }  # fmt: skip
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    assert {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves} == shapes

    rng = np.random.default_rng(0)
    averages = [rng.standard_normal(n).astype(np.float32) for _ in range(4)]
    count, none = np.asarray(7, np.int32), np.asarray(0, np.int32)
    adam = optax.ScaleByAdamState(count, averages[2], averages[3])
    old = (optax.EmptyState(), adam, optax.ScaleByScheduleState(count))
    written = TrainState(count, averages[0], averages[1], old, none)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, written)
    found = checkpoints.restore(state)
    checkpoints.close()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(written), strict=True):
        np.testing.assert_array_equal(a, b)


def test_updates_are_scaled_by_part():
    tree = {"a": jnp.ones((2, 2)), "b": {"c": jnp.ones(3), "d": jnp.ones(1)}, "e": jnp.ones(2)}
    vector, unravel = jax.flatten_util.ravel_pytree(tree)
    rates = {"a": 0.5, "c": 0.0, "d": 1.0, "e": 0.0}
    updates = jnp.where(jnp.arange(len(vector)) == 5, jnp.nan, vector)
    found = unravel(scale_by_part(updates, unravel, lambda path: rates[path[-1].key]))
    assert {
        path[-1]: set(np.ravel(v).tolist()) for path, v in traverse_util.flatten_dict(found).items()
    } == {k: {r} for k, r in rates.items()}
    same = scale_by_part(vector, unravel, lambda path: 1.0)
    np.testing.assert_array_equal(same, vector)


@pytest.mark.slow
def test_steps_are_those_of_optax_s_own_parts_on_a_tree(tiny_config, tiny_params):
    """Clipping, Adam, rates by part, frozen layers, moving average: several steps against `optax`
    on the tree of parameters. And once something was not finite, nothing moves any more."""
    train = dataclasses.replace(
        TrainSettings.of(tiny_config),
        transforms_rate=0.5,
        frozen=("fc2",),
        learning_rate=1e-3,
        rate_weighting=0.1,
        rate_sampling=0.5,
        clip_norm=0.1,
    )
    model, lmbdas = build_model(tiny_config.model), tuple(train.lmbdas)
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 2, 64, 64, 3), np.uint8)

    vector, unravel = jax.flatten_util.ravel_pytree(tiny_params)
    optimizer = build_optimizer(train, unravel)
    state = jax.tree.map(lambda x: jnp.stack([x]), new_state(vector, optimizer))
    step = make_step(Objective(model, train), optimizer, unravel, 0)

    def part(path, _):
        names = [key.key for key in path]
        return "still" if "fc2" in names else "slow" if names[0] in TRANSFORMS else "rest"

    by_part = {"still": optax.set_to_zero(), "slow": optax.scale(0.5), "rest": optax.identity()}
    oracle = optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(learning_rate_schedule(train)),
        optax.partition(by_part, jax.tree_util.tree_map_with_path(part, tiny_params)),
    )

    @jax.jit
    def gradients(params, x, count):
        key = jax.random.fold_in(jax.random.key(0), count)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(2))
        quality, lmbda = draw_qualities(
            fold_in(keys, 0), jnp.arange(2), 2, lmbdas, train.rate_sampling
        )
        weight = quality_weights(lmbda, lmbdas, train.rate_weighting, train.rate_sampling)

        def loss(params):
            # Frozen layers have no part in the gradient's norm.
            held = jax.tree_util.tree_map_with_path(
                lambda path, p: jax.lax.stop_gradient(p) if part(path, p) == "still" else p, params
            )
            out = model.apply({"params": held}, x, quality, fold_in(keys, 1))
            return rate_distortion(out, x, lmbda, train.distortion, weight, train.loss_knee)[0]

        return jax.grad(loss)(params)

    params = ema = tiny_params
    averages = oracle.init(params)
    for count, batch in enumerate(images):
        grads = gradients(params, jnp.asarray(batch[0], jnp.float32) / 255, count)
        updates, averages = oracle.update(grads, averages, params)
        params = optax.apply_updates(params, updates)
        decay = min(train.ema_decay, (1 + count) / (10 + count))
        ema = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, ema, params)
        state, figures = step(state, batch)
        np.testing.assert_allclose(figures["gradient_norm"][0], optax.tree.norm(grads), rtol=1e-4)
        for found, expected in ((state.params, params), (state.ema, ema)):
            expected = jax.flatten_util.ravel_pytree(expected)[0]
            change = float(jnp.abs(expected - vector).max())
            assert change > 1e-5
            # Adam divides by the root of a square: where a gradient is nearly nothing, so is
            # what is known of its direction.
            far = jnp.abs(found[0] - expected) > 0.01 * change
            assert float(far.mean()) < 1e-3
    moved = unmoved(unravel, vector, state)
    assert moved[1] == {path for path in moved[0] if "fc2" in path}

    failed = dataclasses.replace(state, failed=state.failed + 4)
    before = jax.tree.map(np.asarray, failed)
    after, _ = step(failed, images[0])
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_four_devices_give_the_single_device_update():
    """In a process of its own: the number of simulated devices is fixed when JAX starts."""
    code = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.flatten_util import ravel_pytree
from llic_jax.configs import smoke
from llic_jax.training.state import new_state
from llic_jax.training.objective import Objective
from llic_jax.training.settings import TrainSettings
from llic_jax.training.step import make_step
from llic_jax.models.build import build_model, initialize

config = smoke.get_config()
config.model.channels, config.model.groups, config.model.levels = (4, 4, 4, 8), (2, 6), 1
config.model.kernel_sizes, config.model.hyper_channels = (3, 3, 3, 3), 4
config.model.context_widths = (4, 4)
config.train.lmbdas, config.train.schedule = (0.01,), "constant"
config.coding.back_projection = ()
model = build_model(config.model)
optimizer = optax.sgd(1e-3)  # linear in the gradient: it is the gradients that are compared
images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
vector, unravel = ravel_pytree(initialize(model, 0))
state = new_state(vector, optimizer)
params = {}
for devices in (1, 4):
    step = make_step(Objective(model, TrainSettings.of(config)), optimizer, unravel, 0)
    replicated = jax.tree.map(lambda x: jnp.stack([x] * devices), state)
    new, _ = step(replicated, images.reshape(devices, 4 // devices, 64, 64, 3))
    params[devices] = np.asarray(new.params)
    assert (params[devices] == params[devices][:1]).all(), "replicas drifted apart"
change = np.abs(params[1][0] - np.asarray(state.params)).max()
np.testing.assert_allclose(params[4][0], params[1][0], rtol=1e-5, atol=1e-5 * change)
assert change > 0
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
