"""literal: the sum over what meets, and over nothing else.

Engines read a zero where a kernel position k and an output o meet outside x, or between its
entries (L > 1). That changes no sum, unless the zero meets a NaN or an infinity: 0 * NaN is NaN,
where the sum has no term. Under accuracy='elementwise' this loop then stands in for the engine.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv.engines.base import accumulator, multiply, zeros
from jaxconv.problem import Problem


def kept_local(problem: Problem, run: Callable[[Array, Array], Array], x: Array, w: Array, precision=None) -> Array:
    """run(x, w), which is y by an elementwise engine; the literal sum where w has a NaN or an infinity.

    Only where there are a k and an o that no entry of x meets: elsewhere the engine reads no such zeros.
    """
    whole = all(abs(axis.L) == 1 and axis.oriented(+1)[0].reach == (0, 0) for axis in problem.axes)
    if whole or not jnp.issubdtype(w.dtype, jnp.inexact):
        return run(x, w)

    def bare(f):
        return lambda x, w: _bare(f(x.reshape(problem.x_shape), w.reshape(problem.w_shape)))

    finite, others = jnp.isfinite(w.astype(accumulator(problem))).all(), partial(literal, problem, precision=precision)
    return lax.cond(finite, bare(run), bare(others), _bare(x), _bare(w)).reshape(problem.y_shape)


def _bare(array: Array) -> Array:
    """Without axes of length 1: by where they stand XLA tells layouts apart, and copies from one to the other."""
    return array.reshape([size for size in array.shape if size != 1])


def literal(problem: Problem, x: Array, w: Array, precision=None) -> Array:
    """y, one kernel position at a time, or one output, whichever are fewer."""
    dtype, (lx, lw, ly) = accumulator(problem), problem.layouts
    x, w = x.astype(dtype), w.astype(dtype)
    K, O, S, D = ([getattr(axis, name) for axis in problem.axes] for name in "KOSD")

    def met(fixed, steps, counts, spacing, layout) -> tuple[Array, Array]:
        """What one k meets in x with all o, or one o with all k, or 0; and, over `layout`, where it meets an entry."""
        part, there = x, jnp.bool_(True)
        for letter, axis, at, step, count, space in zip(
            problem.spatial, problem.axes, fixed, steps, counts, spacing, strict=True
        ):
            i, rest = jnp.divmod(step * at + space * np.arange(count) - axis.p, axis.L)
            along = (rest == 0) & (i >= 0) & (i < axis.I)
            part = jnp.take(part, jnp.where(along, i, axis.I), lx.index(letter), mode="fill", fill_value=0)
            there = there & along.reshape([count if c == letter else 1 for c in layout])
        return part, there

    if problem.taps <= problem.outputs:
        tap = "".join(c for c in lw if c in "gmc")
        taps = lax.transpose(w, [lw.index(c) for c in problem.spatial + tap])

        def added(t, y):
            k = _unravel(t, K)
            part, there = met(k, D, O, S, ly)
            return y + jnp.where(there, multiply(part, lx, taps[k], tap, ly, precision), 0)

        y = lax.fori_loop(0, problem.taps, added, zeros(problem.y_shape, x))
    else:
        point = "".join(c for c in ly if c in "ngm")

        def output(t):
            part, there = met(_unravel(t, O), S, K, D, lw)
            return multiply(part, lx, jnp.where(there, w, 0), lw, point, precision)

        y = lax.map(output, np.arange(problem.outputs))
        y = lax.transpose(y.reshape(*O, *y.shape[1:]), [(problem.spatial + point).index(c) for c in ly])
    return y.astype(problem.dtypes.y)


def _unravel(t: Array, extents: list[int]) -> tuple[Array, ...]:
    """jnp.unravel_index for t >= 0: with its care for signs, compiling took a third longer."""
    found = []
    for extent in reversed(extents):
        found.append(lax.rem(t, jnp.asarray(extent, t.dtype)))
        t = lax.div(t, jnp.asarray(extent, t.dtype))
    return tuple(found[::-1])
