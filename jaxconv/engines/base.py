"""What an engine is, and the few moves that several engines share.

An engine is one algorithm for `y = contract(problem, x, w)`. It says when it cannot
(`refusal`), how long it would take (`cost`), how exact it is (`error`), and it
computes (`run`). It never chooses; the planner does, and computes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.problem import Problem


@dataclass(frozen=True)
class Engine:
    """One algorithm.

    name: what `method=` calls it.
    elementwise: whether its error is bounded element by element and a NaN in x stays
        local. Otherwise the error is bounded by the norms of x and w only.
    refusal: (problem, platform) -> None, or one sentence that says why not. The platform
        is "cpu", "gpu", "tpu", or None for the reasons that hold on every platform.
    cost: (problem, platform) -> estimated seconds.
    run: (problem, x, w, precision) -> y.
    error: problem -> (a, b), which bound the rounding error: with u the unit roundoff of
        `accumulator(problem)`, and before y is rounded to its own type,
        |y' - y| <= u * (a * sum |x||w| + b * norm(x) * norm(w)), to first order in u, the
        sum over the terms of that element, the norms over the n, g and the g, m it reads.
        On accelerators it is the bound at precision 'highest', which accuracy='elementwise' asks
        for; below that, and where cuDNN picks an algorithm of its own, it has not been derived.
    """

    name: str
    elementwise: bool
    refusal: Callable[[Problem, str | None], str | None] = field(repr=False)
    cost: Callable[[Problem, str], float] = field(repr=False)
    run: Callable[..., Array] = field(repr=False)
    error: Callable[[Problem], tuple[float, float]] = field(repr=False)


def accumulator(problem: Problem):
    """The dtype in which to sum: the widest of x, w and y, and at least float32; y's own for integers."""
    if problem.is_exact:
        return jnp.dtype(problem.dtypes.y)
    doubled = any(jnp.dtype(dtype).name in ("float64", "complex128") for dtype in problem.dtypes)
    if problem.is_complex:
        return jnp.dtype(jnp.complex128 if doubled else jnp.complex64)
    return jnp.dtype(jnp.float64 if doubled else jnp.float32)


# A sum of t products in any order has an error of at most t*u*sum|x||w| (Higham, Accuracy
# and Stability, 3.1). A complex product by three or four real ones sums up to two real
# products of t terms, of sums of parts: each part of y is within (t+3)*u*2*sqrt(2)*sum|x||w|,
# so y is within 4*(t+3)*u*sum|x||w|. Integers that are summed in a floating type are rounded
# once each on the way in: two units more.
def summation_error(problem: Problem, terms: int) -> float:
    """The factor a of `Engine.error` for sums of `terms` products in any order."""
    if problem.is_exact:
        return 0.0
    if problem.is_complex:
        return 4.0 * (terms + 3)
    return terms + 2.0 * any(jnp.issubdtype(dtype, jnp.integer) for dtype in problem.dtypes)


def oriented(problem: Problem, w: Array, kernel_sign: int) -> tuple[Problem, Array, Callable[[Array], Array]]:
    """(problem, w, finish) with L, S > 0 and D of the given sign; y = finish(result)."""
    turned = [axis.oriented(kernel_sign) for axis in problem.axes]
    lw, ly = problem.layouts.w, problem.layouts.y
    w = _flip(w, [lw.index(letter) for letter, (_, flip, _) in zip(problem.spatial, turned, strict=True) if flip])
    y_flips = [ly.index(letter) for letter, (_, _, flip) in zip(problem.spatial, turned, strict=True) if flip]
    return replace(problem, axes=tuple(axis for axis, _, _ in turned)), w, lambda y: _flip(y, y_flips)


def _flip(array: Array, axes: list[int]) -> Array:
    return jnp.flip(array, axes) if axes else array


def indices(layout: str) -> list[int]:
    """The layout as einsum's list of integers (einsum's letters exclude digits)."""
    return [ord(letter) for letter in layout]


def multiply(x: Array, lx: str, w: Array, lw: str, ly: str, precision=None) -> Array:
    """The sum of x*w over the letters that `ly` lacks; elementwise where it can be."""
    if all(size == 1 for size, letter in zip(x.shape, lx, strict=True) if letter not in ly):
        return _spread(x, lx, ly) * _spread(w, lw, ly)
    return jnp.einsum(x, indices(lx), w, indices(lw), indices(ly), precision=precision)


def _spread(array: Array, layout: str, target: str) -> Array:
    """`array` in the order of `target`: letters that it lacks get length 1, lengths 1 that target lacks go."""
    array = jnp.squeeze(array, [d for d, letter in enumerate(layout) if letter not in target])
    layout = "".join(letter for letter in layout if letter in target)
    array = lax.transpose(array, [layout.index(letter) for letter in target if letter in layout])
    return jnp.expand_dims(array, [d for d, letter in enumerate(target) if letter not in layout])
