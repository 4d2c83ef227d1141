"""The memory that a computation takes, estimated from its trace: nothing is compiled or run."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Var

from llic_jax.execution.bands import LIVE_BUFFERS


def peak_bytes(call: Callable[..., Any], *args: Any) -> int:
    """Bytes of arrays at the computation's peak, without those that `call` closes over.

    Results of programs (calls of `jax.jit`) live until their last use. A program is taken to hold
    `LIVE_BUFFERS` times its largest intermediate array beside them, as in `bands.py`.

    Args:
        call: A function of arrays that calls compiled programs.
        *args: Its arguments; `jax.ShapeDtypeStruct` will do.
    """
    jaxpr = jax.make_jaxpr(call)(*args).jaxpr
    last = {var: len(jaxpr.eqns) for var in jaxpr.outvars if isinstance(var, Var)}
    for i, equation in reversed(list(enumerate(jaxpr.eqns))):
        for var in equation.invars:
            if isinstance(var, Var):
                last.setdefault(var, i)
    live = {var: _bytes(var) for var in jaxpr.invars if var in last}
    peak = sum(live.values())
    for i, equation in enumerate(jaxpr.eqns):
        live |= {var: _bytes(var) for var in equation.outvars}
        largest = max((_largest(inner) for inner in _inner(equation)), default=0)
        peak = max(peak, sum(live.values()) + LIVE_BUFFERS * largest)
        live = {var: size for var, size in live.items() if last.get(var, i) > i}
    return peak


def _largest(jaxpr: Jaxpr) -> int:
    """Bytes of the largest array that is computed, at whatever depth."""
    sizes = [_bytes(var) for equation in jaxpr.eqns for var in equation.outvars]
    sizes += [_largest(inner) for equation in jaxpr.eqns for inner in _inner(equation)]
    return max(sizes, default=0)


def _inner(equation: Any) -> Iterator[Jaxpr]:
    for value in jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)
    ):
        if isinstance(value, ClosedJaxpr | Jaxpr):
            yield value.jaxpr if isinstance(value, ClosedJaxpr) else value


def _bytes(var: Any) -> int:
    shape = getattr(var.aval, "shape", ())
    return math.prod(shape) * getattr(var.aval.dtype, "itemsize", 4)
