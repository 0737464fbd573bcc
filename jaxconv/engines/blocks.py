"""Blocks: a Problem as a loop over smaller ones, so that what lies between stays in cache.

Outputs can be computed block by block along n, or along the longest spatial axis; sums can be
taken block by block along c, or along the kernel's longest axis. A loop also bounds the memory:
XLA reuses the buffers of its body.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxconv.engines.base import accumulator, padded_along, zeros
from jaxconv.problem import Axis, Problem

Run = Callable[[Problem, Array, Array], Any]


def divisor(n: int, most: int) -> int:
    """The greatest divisor of n that is at most `most`, and at least 1."""
    return next(d for d in range(max(1, min(n, most)), 0, -1) if n % d == 0)


def share(n: int, size: float) -> int:
    """The length of blocks of about the fraction `size` of n: a divisor of n, unless that were less than half as long.

    >>> share(12, 0.5), share(7, 0.6), share(127, 0.3), share(5, 0.1)
    (6, 4, 32, 1)
    """
    most = max(1, int(size * n))
    length = divisor(n, most)
    return length if 2 * length >= most else -(-n // -(-n // most))


def over_outputs(problem: Problem, x: Array, w: Array, size: float, run: Run, unit: Sequence[int] = ()) -> Array:
    """y by blocks of about the fraction `size` of the outputs: along n, then along the longest axis.

    All blocks have one length: the last begins within the one before.
    The axes are oriented, with L = 1. `w` is handed on as it is. A block along an axis is a multiple
    of the axis' entry in `unit`.
    """
    if size >= 1 or problem.is_empty or not problem.axes:
        return run(problem, x, w)
    lx, ly = problem.layouts.x, problem.layouts.y
    count = share(problem.n, size)
    if problem.n > count:
        part, rest = replace(problem, n=count), size * problem.n / count

        def images(i, y):
            start = jnp.minimum(i * count, problem.n - count)
            block = lax.dynamic_slice_in_dim(x, start, count, lx.index("n"))
            done = over_outputs(part, block, w, rest, run, unit)
            return lax.dynamic_update_slice_in_dim(y, done, start, ly.index("n"))

        return lax.fori_loop(0, -(-problem.n // count), images, zeros(problem.y_shape, x, accumulator(problem)))
    d, letter = _longest(problem, [axis.O for axis in problem.axes])
    axis = problem.axes[d]
    rows = _rows(axis.O, size, unit[d] if unit else 1)
    if rows >= axis.O:
        return run(problem, x, w)
    reach = axis.S * (rows - 1) + axis.D * (axis.K - 1) + 1
    v = padded_axis(problem, x, d)
    part = _with_axis(problem, d, Axis(reach, axis.K, rows, 1, axis.S, axis.D))

    def strips(i, y):
        start = jnp.minimum(i * rows, axis.O - rows)
        block = lax.dynamic_slice_in_dim(v, axis.S * start, reach, lx.index(letter))
        return lax.dynamic_update_slice_in_dim(y, run(part, block, w), start, ly.index(letter))

    return lax.fori_loop(0, -(-axis.O // rows), strips, zeros(problem.y_shape, x, accumulator(problem)))


def _added(a, b):
    return jax.tree.map(operator.add, a, b)


def over_sums(
    problem: Problem, x: Array, w: Array, size: float, run: Run, unit: Sequence[int] = (), add: Callable = _added
) -> Any:
    """The sum of `run` over blocks of about the fraction `size` of the terms: along c, then the longest axis.

    The axes are oriented, with L = 1, `unit` is as for `over_outputs`. What `run` returns may be any
    tree of arrays, of the same shapes for every block; `add` takes what is summed so far and one more block.
    """
    if size >= 1 or problem.is_empty:
        return run(problem, x, w)
    lx, lw = problem.layouts.x, problem.layouts.w
    count = share(problem.c, size)
    if problem.c > count:

        def images(start, count):
            block_x = lax.dynamic_slice_in_dim(x, start, count, lx.index("c"))
            block_w = lax.dynamic_slice_in_dim(w, start, count, lw.index("c"))
            part = replace(problem, c=count)
            return over_sums(part, block_x, block_w, size * problem.c / count, run, unit, add)

        blocks, rest = divmod(problem.c, count)
        y = lax.fori_loop(0, blocks, lambda i, y: add(y, images(i * count, count)), _nothing(images, count, x))
        return add(y, images(blocks * count, rest)) if rest else y
    return over_rows(problem, x, w, size, run, unit=unit, add=add)


def over_rows(
    problem: Problem,
    x: Array,
    w: Array,
    size: float,
    run: Run,
    finish: Callable | None = None,
    unit: Sequence[int] = (),
    add: Callable = _added,
) -> Any:
    """As `over_sums`, along the longest axis only.

    `finish` takes a sum of blocks of one length to the result; the last block may be shorter. Without it,
    blocks of any length give the result, and where one row is too much they are cut along the next axis too.
    """
    whole_sum = finish or (lambda y: y)
    lx, lw = problem.layouts.x, problem.layouts.w
    if not problem.axes:
        return whole_sum(run(problem, x, w))
    d, letter = _longest(problem, [axis.K for axis in problem.axes])
    axis = problem.axes[d]
    rows = _rows(axis.K, size, unit[d] if unit else 1)
    if rows >= axis.K:
        return whole_sum(run(problem, x, w))
    if not unit and not finish and size * axis.K < 1:  # one row is too much: further along the next axis
        rows, of_row = 1, run

        def along_the_row(part, x, w):
            return over_rows(part, x, w, size * axis.K, of_row, add=add)

        run = along_the_row
    v = padded_axis(problem, x, d)

    def strip(start, rows):
        reach = axis.S * (axis.O - 1) + axis.D * (rows - 1) + 1
        part = _with_axis(problem, d, Axis(reach, rows, axis.O, 1, axis.S, axis.D))
        block_x = lax.dynamic_slice_in_dim(v, axis.D * start, reach, lx.index(letter))
        return run(part, block_x, lax.dynamic_slice_in_dim(w, start, rows, lw.index(letter)))

    count = axis.K // rows
    y = whole_sum(lax.fori_loop(0, count, lambda i, y: add(y, strip(i * rows, rows)), _nothing(strip, rows, x)))
    return add(y, whole_sum(strip(count * rows, axis.K - count * rows))) if axis.K % rows else y


def _nothing(block: Callable, length: int, like: Array) -> Any:
    """What a sum of blocks of a length begins with: so XLA compiles the block once, in the loop."""
    return jax.tree.map(lambda a: zeros(a.shape, like, a.dtype), jax.eval_shape(lambda: block(0, length)))


def _rows(extent: int, size: float, unit: int) -> int:
    """The length of strips of about one length, a multiple of `unit`.

    Where that is more than 1, strips may be up to half as long again if none shorter is left over then, of which a
    program would have to be made too.
    """
    strips = -(-extent // max(unit, int(size * extent)))
    rows = -(-extent // (strips * unit)) * unit
    if strips == 2 and unit == 1 and 2 * rows > extent:  # XLA makes one of a loop of one trip and what follows it
        rows = -(-extent // 3)
    longer = range(rows, min(extent, 3 * rows // 2 + 1), unit) if unit > 1 else ()
    return next((r for r in longer if extent % r == 0), rows)


def _longest(problem: Problem, extents: list[int]) -> tuple[int, str]:
    d = max(range(len(extents)), key=extents.__getitem__)
    return d, problem.spatial[d]


def _with_axis(problem: Problem, d: int, axis: Axis) -> Problem:
    return replace(problem, axes=(*problem.axes[:d], axis, *problem.axes[d + 1 :]))


def padded_axis(problem: Problem, x: Array, d: int) -> Array:
    """x padded along one axis so that o and k meet at S*o + D*k there."""
    axis = problem.axes[d]
    length = axis.S * (axis.O - 1) + axis.D * (axis.K - 1) + 1
    return padded_along(x, problem.layouts.x, problem.spatial[d], axis.p, length)
