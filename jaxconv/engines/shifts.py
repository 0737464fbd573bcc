"""shifts: the sum over kernel positions of the shifted input times one kernel entry.

    y[o] = sum over k of v[S*o + D*k] * w[k],   v = x with L-1 zeros between, p before

Each term is a (strided) slice of v, multiplied and summed over c; without channels XLA
fuses all terms into one pass over memory. Where there are fewer outputs than kernel
positions, as in the kernel pass of a layer, the other sum is the shorter one: one
output at a time, a slice of v against the whole of w.

Nothing but slices, products and sums, so it serves every dtype on every platform. At
most UNROLLED terms are written out; beyond that a loop runs over them.
"""

import operator
from functools import reduce
from itertools import product
from math import prod

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv.engines.base import Engine, accumulator, multiply, oriented, summation_error
from jaxconv.problem import Problem

UNROLLED = 64


def refusal(problem: Problem, platform: str | None) -> str | None:
    return None


# Rough figures in float32 on two cores: fused products reach 1.4e10 a second; matrix products
# 1e9 for each feature of the narrower side, up to 3e10. The zeros that dilate v are multiplied.
def cost(problem: Problem, platform: str) -> float:
    taps, outputs = prod(axis.K for axis in problem.axes), prod(axis.O for axis in problem.axes)
    products = problem.products * abs(prod(axis.L for axis in problem.axes))
    if platform != "cpu":
        return 1e-5 * (1 + min(taps, outputs)) + products / 1e11
    if taps <= outputs:
        rate = 1.4e10 if problem.c == 1 else 1e9 * min(problem.c, problem.m, 30)
    else:
        rate = 1e9 * min(problem.n, problem.m, 30)
    return 5e-6 + 1e-6 * min(taps, outputs) + products / rate


def run(problem: Problem, x: Array, w: Array, precision=None) -> Array:
    problem, w, finish = oriented(problem, w, +1)
    dtype = accumulator(problem)
    v, w = _dilated(problem, x.astype(dtype)), w.astype(dtype)
    taps = prod(axis.K for axis in problem.axes)
    outputs = prod(axis.O for axis in problem.axes)
    y = (_over_taps if taps <= outputs else _over_outputs)(problem, v, w, precision)
    return finish(y).astype(problem.dtypes.y)


def _dilated(problem: Problem, x: Array) -> Array:
    """v: as long along each axis as the outputs ask for."""
    config = []
    for letter in problem.layouts.x:
        if letter in "ngc":
            config.append((0, 0, 0))
            continue
        axis = problem.axes[problem.spatial.index(letter)]
        length = axis.S * (axis.O - 1) + axis.D * (axis.K - 1) + 1
        config.append((axis.p, length - axis.p - axis.L * (axis.I - 1) - 1, axis.L - 1))
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _window(problem: Problem, v: Array, starts, counts, steps) -> Array:
    """v at starts + steps * (0 .. counts-1) along the spatial axes; starts may be traced."""
    spatial = [problem.spatial.find(letter) for letter in problem.layouts.x]
    begin = [0 if d < 0 else starts[d] for d in spatial]
    spans = [size if d < 0 else steps[d] * (counts[d] - 1) + 1 for d, size in zip(spatial, v.shape, strict=True)]
    stride = [1 if d < 0 else steps[d] for d in spatial]
    if all(isinstance(b, int) for b in begin):
        return lax.slice(v, begin, [b + s for b, s in zip(begin, spans, strict=True)], stride)
    return lax.slice(lax.dynamic_slice(v, begin, spans), [0] * v.ndim, spans, stride)


def _over_taps(problem: Problem, v: Array, w: Array, precision) -> Array:
    lx, lw, ly = problem.layouts
    K, O, S, D = ([getattr(axis, name) for axis in problem.axes] for name in "KOSD")
    w, lw = _spatial_first(problem, w, lw)

    def term(k) -> Array:
        window = _window(problem, v, [d * j for d, j in zip(D, k, strict=True)], O, S)
        tap = w[tuple(k)]
        return multiply(window, lx, tap, lw, ly, precision)

    if prod(K) <= UNROLLED:
        return reduce(operator.add, map(term, product(*map(range, K))))
    return lax.fori_loop(1, prod(K), lambda t, y: y + term(jnp.unravel_index(t, K)), term([0] * len(K)))


def _over_outputs(problem: Problem, v: Array, w: Array, precision) -> Array:
    lx, lw, ly = problem.layouts
    K, O, S, D = ([getattr(axis, name) for axis in problem.axes] for name in "KOSD")
    point = "".join(letter for letter in ly if letter not in problem.spatial)

    def output(o) -> Array:
        window = _window(problem, v, [s * j for s, j in zip(S, o, strict=True)], K, D)
        return multiply(window, lx, w, lw, point, precision)

    if prod(O) <= UNROLLED:
        y = jnp.stack([output(o) for o in product(*map(range, O))])
    else:
        y = lax.map(lambda t: output(jnp.unravel_index(t, O)), np.arange(prod(O)))
    y = y.reshape(*O, *y.shape[1:])
    return lax.transpose(y, [(problem.spatial + point).index(letter) for letter in ly])


def _spatial_first(problem: Problem, w: Array, layout: str) -> tuple[Array, str]:
    """w with its spatial axes in front, and the layout of one of its taps."""
    tap = "".join(letter for letter in layout if letter not in problem.spatial)
    return lax.transpose(w, [layout.index(letter) for letter in problem.spatial + tap]), tap


# One product and one sum a term, in the accumulation type.
def error(problem: Problem) -> tuple[float, float]:
    return summation_error(problem, problem.terms), 0.0


SHIFTS = Engine("shifts", elementwise=True, refusal=refusal, cost=cost, run=run, error=error)
