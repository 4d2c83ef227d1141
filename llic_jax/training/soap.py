"""SOAP: Adam in the coordinates in which a layer's gradients are uncorrelated.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam" (ICLR 2025), algorithm 3; for
learned image compression: Zhang and Zhu, "Leveraging Second-Order Curvature for Efficient Learned
Image Compression" (arXiv 2601.20769). Each side of a kernel has the moving covariance `C` of its
gradients and a basis `Q` of its eigenvectors:

    G' = G x_1 Q_1' x_2 Q_2' ...      Adam on G', then back by Q
    C  = beta C + (1 - beta) G_(i) G_(i)'       every `every` steps: Q = qr(C Q)

Departures (our choice): the positions of a convolution's kernel count as one side; Adam's first
average is kept in the turned coordinates and turned along with them; kernels of one shape are
worked on together, since XLA takes long to compile hundreds of small products.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

MAX_SIDE = 1024  # a longer side keeps its coordinates

Kernels = Float[Array, "_ ..."]


class Turned(NamedTuple):
    """What is remembered of `n` kernels of one shape `(n, *sides)`.

    Attributes:
        first: Adam's first average, in turned coordinates.
        second: Adam's second average, in turned coordinates.
        covariances: `(n, side, side)` of each side that is turned.
        bases: Likewise; the columns of a basis are the coordinate axes.
    """

    first: Kernels
    second: Kernels
    covariances: tuple[Array, ...]
    bases: tuple[Array, ...]


class SoapState(NamedTuple):
    """The state of `scale_by_soap`.

    Attributes:
        updates: How many so far.
        groups: One for each shape of kernels.
    """

    updates: Int[Array, ""]
    groups: tuple[Turned, ...]


def scale_by_soap(
    unravel: Callable[[Array], Any],
    b1: float = 0.95,
    b2: float = 0.95,
    beta: float = 0.95,
    eps: float = 1e-8,
    every: int = 10,
) -> optax.GradientTransformation:
    """Turns gradients into directions of Adam's size; both are one vector `(n,)` of all parameters.

    Biases and other vectors are left to plain Adam, which is the same with no side turned. The
    first call only looks at the gradients: its direction is zero.

    Args:
        unravel: From that vector to the tree of parameters, whose shapes say what a side is.
        b1: Of Adam's first average.
        b2: Of Adam's second average.
        beta: Of the moving covariances.
        eps: Of Adam.
        every: Steps between two updates of the bases, of which the first is an eigendecomposition.

    Returns:
        The transformation, for `optax.chain`.
    """

    def init(params: Array) -> SoapState:
        groups = []
        for kernels in _gather(unravel(params)):
            n, *sides = kernels.shape
            zeros, turned = jnp.zeros_like(kernels), [sides[i] for i in _turned(sides)]
            groups.append(
                Turned(
                    zeros,
                    zeros,
                    tuple(jnp.zeros((n, side, side)) for side in turned),
                    tuple(jnp.tile(jnp.eye(side), (n, 1, 1)) for side in turned),
                )
            )
        return SoapState(jnp.zeros((), jnp.int32), tuple(groups))

    def update(grads: Array, state: SoapState, params: Array | None = None) -> Any:
        tree = unravel(grads)
        count = state.updates
        directions, groups = [], []
        for g, old in zip(_gather(tree), state.groups, strict=True):
            axes = _turned(g.shape[1:])
            turned = _rotate(g, old.bases, axes)
            # The first gradient only sets the coordinates.
            counted = jnp.minimum(count, 1)
            first = b1 * old.first + (1 - b1) * counted * turned
            second = b2 * old.second + (1 - b2) * counted * jnp.square(turned)
            corrected = [
                average / jnp.maximum(1 - decay**count, 1 - decay)
                for average, decay in ((first, b1), (second, b2))
            ]
            direction = corrected[0] / (jnp.sqrt(corrected[1]) + eps)
            directions.append(_rotate(direction, old.bases, axes, back=True))
            rate = jnp.where(count == 0, 1.0, 1 - beta)
            covariances = tuple(
                (1 - rate) * old_covariance + rate * _covariance(g, axis)
                for old_covariance, axis in zip(old.covariances, axes, strict=True)
            )
            groups.append(Turned(first, second, covariances, old.bases))

        groups = jax.lax.cond(
            count % every == 0,
            lambda groups: [_turn(group, count == 0) for group in groups],
            lambda groups: groups,
            groups,
        )
        flat, _ = ravel_pytree(_scatter(directions, tree))
        return flat, SoapState(count + 1, tuple(groups))

    return optax.GradientTransformation(init, update)


def _sides(shape: Sequence[int]) -> tuple[int, ...]:
    """A parameter's shape as sides: positions of a kernel together, sides of one left out."""
    if len(shape) == 4:
        shape = (shape[0] * shape[1], *shape[2:])
    return tuple(side for side in shape if side > 1) or (1,)


def _turned(sides: Sequence[int]) -> list[int]:
    """Which sides are turned."""
    if len(sides) < 2:
        return []
    return [axis for axis, side in enumerate(sides) if side <= MAX_SIDE]


def _by_shape(tree: Any) -> dict[tuple[int, ...], list[int]]:
    """Which leaves have the same sides, in the order of their first appearance.

    Vectors, whatever their length, stand under `()`.
    """
    found: dict[tuple[int, ...], list[int]] = {}
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        sides = _sides(leaf.shape)
        found.setdefault(sides if len(sides) > 1 else (), []).append(i)
    return found


def _gather(tree: Any) -> list[Kernels]:
    """The leaves of one shape as one array `(n, *sides)`; all vectors as one, `(1, length)`."""
    leaves = jax.tree.leaves(tree)
    return [
        jnp.stack([leaves[i].reshape(sides) for i in members])
        if sides
        else jnp.concatenate([leaves[i].reshape(-1) for i in members])[None]
        for sides, members in _by_shape(tree).items()
    ]


def _scatter(groups: Sequence[Kernels], like: Any) -> Any:
    """The inverse of `_gather`."""
    leaves, structure = jax.tree.flatten(like)
    out = list(leaves)
    for group, (sides, members) in zip(groups, _by_shape(like).items(), strict=True):
        if sides:
            parts = list(group)
        else:
            ends = [sum(leaves[i].size for i in members[: j + 1]) for j in range(len(members) - 1)]
            parts = jnp.split(group[0], ends)
        for i, part in zip(members, parts, strict=True):
            out[i] = part.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, out)


def _unfold(g: Kernels, axis: int) -> Float[Array, "n side rest"]:
    moved = jnp.moveaxis(g, axis + 1, 1)
    return moved.reshape(*moved.shape[:2], -1)


def _covariance(g: Kernels, axis: int) -> Float[Array, "n side side"]:
    unfolded = _unfold(g, axis)
    return unfolded @ jnp.swapaxes(unfolded, 1, 2)


def _rotate(g: Kernels, bases: Sequence[Array], axes: Sequence[int], back: bool = False) -> Kernels:
    """`g` in the coordinates of `bases`, side by side; or back from them."""
    for basis, axis in zip(bases, axes, strict=True):
        moved = jnp.moveaxis(g, axis + 1, 1)
        turn = basis if back else jnp.swapaxes(basis, 1, 2)
        product = turn @ moved.reshape(*moved.shape[:2], -1)
        g = jnp.moveaxis(product.reshape(moved.shape), 1, axis + 1)
    return g


def _turn(group: Turned, first_time: Array) -> Turned:
    """New bases, one step of orthogonal iteration from the old ones, and the average in them."""
    if not group.bases:
        return group
    axes = _turned(group.first.shape[1:])

    def decompose() -> tuple[Array, ...]:
        # eigh is ascending; orthogonal iteration, which follows, descending.
        return tuple(jnp.linalg.eigh(c)[1][..., ::-1] for c in group.covariances)

    def iterate() -> tuple[Array, ...]:
        pairs = zip(group.covariances, group.bases, strict=True)
        return tuple(jnp.linalg.qr(c @ q)[0] for c, q in pairs)

    bases = jax.lax.cond(first_time, decompose, iterate)
    first = _rotate(_rotate(group.first, group.bases, axes, back=True), bases, axes)
    return group._replace(first=first, bases=bases)
