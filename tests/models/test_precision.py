"""Training in bfloat16: what has to be float32 all the same, and what its gradients are worth."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from llic_jax.configs import smoke_eighth
from llic_jax.models.build import build_model, initialize
from llic_jax.training.loss import rate_distortion

TINY = {
    "elic": {},
    "stf": {"slices": 2, "max_support": 1},
}


def section(name: str, dtype: str) -> dict[str, Any]:
    config = smoke_eighth.get_config().model.to_dict()
    sizes = dict(channels=(12, 16), depths=(1, 0), groups=(4, 12), context_widths=(8,))
    chosen = {"entropy_model": name, "dtype": dtype, "activation_limit": 16.0}
    return {**config, **sizes, **TINY[name], **chosen}


def loss_of(model, images, level):
    """From parameters to the loss of training."""
    x = jnp.asarray(images, jnp.float32) / 255
    quality = jnp.full(len(x), level)
    lmbda = jnp.full(len(x), 0.0004 * 2.0 ** (level - 1))

    def loss(params):
        out = model.apply({"params": params}, x, quality, jax.random.split(jax.random.key(0), 2))
        return rate_distortion(out, x, lmbda)[0]

    return loss


@pytest.fixture(scope="module")
def images(request):
    photograph = request.getfixturevalue("photograph")
    return np.stack([photograph[:64, :64], photograph[100:164, 64:128]])


class Equation(NamedTuple):
    """inside: the modules that it is in, `transpose(..)` of them going backward. types: of its
    floating-point results. addends: how many values a sum adds up."""

    inside: str
    primitive: str
    types: set[str]
    addends: int


def equations(jaxpr: Any, scope: str = "") -> Iterator[Equation]:
    """All equations, also those within others."""
    for equation in jaxpr.eqns:
        inside, name = f"{scope}/{equation.source_info.name_stack}", equation.primitive.name
        types = {str(var.aval.dtype) for var in equation.outvars if hasattr(var.aval, "dtype")}
        addends = 1
        if name == "reduce_sum":
            addends = equation.invars[0].aval.size // equation.outvars[0].aval.size
        yield Equation(inside, name, {t for t in types if "float" in t}, addends)
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    yield from equations(inner, inside)


@pytest.fixture(scope="module", params=TINY)
def traced(request, images):
    """The equations of the loss's gradient in bfloat16."""
    model = build_model(section(request.param, "bfloat16"))
    params = jax.eval_shape(lambda: initialize(model))
    return list(equations(jax.make_jaxpr(jax.grad(loss_of(model, images, 4.0)))(params).jaxpr))


def types(traced, *scopes, primitives=()):
    """Those of all results of these primitives (default: all) within these modules."""
    chosen = [
        equation.types
        for equation in traced
        if all(scope in equation.inside for scope in scopes)
        and (not primitives or equation.primitive in primitives)
    ]
    return set().union(*chosen)


PRODUCTS = ("dot_general", "conv_general_dilated")


def test_products_of_the_networks_are_bfloat16(traced):
    # Going backward, biases' gradients are products whose sums are float32.
    traced = [equation for equation in traced if "transpose" not in equation.inside]
    for part in ("g_a", "g_s"):
        for layer in ("embed/conv_in", "scst/conv_out", "gate/project"):
            assert types(traced, part, layer, primitives=PRODUCTS) == {"bfloat16"}
    assert "bfloat16" in types(traced, "h_a", primitives=PRODUCTS)
    assert "bfloat16" in types(traced, "h_s", primitives=PRODUCTS)
    assert "bfloat16" in types(traced, "entropy_model", primitives=PRODUCTS)


def test_what_must_be_float32_is(traced):
    for part in ("generator", "prior", "gain_y", "gain_z"):
        assert types(traced, part) == {"float32"}, part
    # What leaves g_a and g_s.
    for part in (("g_a", "down_1"), ("g_s", "up_0")):
        assert types(traced, *part, primitives=PRODUCTS) == {"float32"}, part
    # Likelihoods, softplus, sigmoid, gains: every function that is no sum or product.
    functions = ("exp", "log", "log1p", "erf", "erfc", "logistic", "pow")
    assert types(traced, primitives=functions) == {"float32"}


def test_nothing_is_added_up_in_bfloat16(traced):
    """Sums over thousands of positions would lose what is added to them."""
    sums = [equation for equation in traced if equation.addends > 1]
    assert sums and not [equation for equation in sums if "bfloat16" in equation.types]


def test_mean_and_scale_leave_the_last_product_in_float32(traced):
    last = {
        "aggregate_0/stack/conv_2", "aggregate_1/stack/conv_2",  # of ELIC
        "g_mean_0/conv_1", "g_scale_1/conv_1", "g_lrp_1/conv_1",  # of STF
    }  # fmt: skip
    seen = {name: types(traced, name, primitives=PRODUCTS) for name in last}
    there = {name: found for name, found in seen.items() if found}
    assert len(there) in (2, 3)
    assert all(found == {"float32"} for found in there.values()), there


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_gradients_are_finite_and_close_to_float32_s(name, images):
    params = initialize(build_model(section(name, "float32")), seed=1)
    for level in (1.0, 8.0):
        exact, other = (
            jax.jit(jax.grad(loss_of(build_model(section(name, dtype)), images, level)))(params)
            for dtype in ("float32", "bfloat16")
        )
        for part in exact:
            a, b = (np.asarray(ravel_pytree(g[part])[0]) for g in (exact, other))
            assert a.dtype == b.dtype == np.float32 and np.isfinite(b).all()
            # A latent or hyper-latent may be rounded the other way. These see the rounded values
            # and little else: their own gradients are 1e-3 of the transforms' here.
            sees_rounded = part in ("entropy_model", "h_a", "h_s", "gain_z")
            tolerance = 0.2 if sees_rounded else 0.05
            assert np.linalg.norm(b - a) <= tolerance * np.linalg.norm(a), (part, level)
            assert np.any(a) or part == "h_s"  # all of a fresh hyper-latent may be zero
