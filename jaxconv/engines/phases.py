"""Phases: input dilation without multiplying zeros.

With L > 1 the relation L*i + p = S*o + D*k holds for an output o only with those k for which
S*o + D*k - p is a multiple of L. With q = L / gcd(L, S), outputs o = a + q*t of one phase a
all meet the same k, namely those of one residue modulo r = L / gcd(L, D): k = b + r*s. Put in,

    L*i + p - S*a - D*b = S*q*t + D*r*s,

and S*q and D*r are multiples of L: divided by it, each phase is a relation with L = 1. The
outputs of the phases are woven together again.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import gcd, prod

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.problem import Axis, Problem


def axis_phases(axis: Axis) -> list[tuple[int, int, Axis | None]]:
    """(a, b, sub-axis) for each output phase a of an oriented axis; None where no k meets it.

    >>> [(a, b, sub.K, sub.O) for a, b, sub in axis_phases(Axis(4, 3, 8, L=2, p=1))]
    [(0, 1, 1, 4), (1, 0, 2, 4)]
    """
    q, r = axis.L // gcd(axis.L, axis.S), axis.L // gcd(axis.L, axis.D)
    found = []
    for a in range(q):
        b = next((b for b in range(r) if (axis.S * a + axis.D * b - axis.p) % axis.L == 0), None)
        outputs = len(range(a, axis.O, q))
        if b is None or b >= axis.K:
            found.append((a, 0, None))
            continue
        p = (axis.p - axis.S * a - axis.D * b) // axis.L
        sub = Axis(axis.I, len(range(b, axis.K, r)), outputs, 1, axis.S * q // axis.L, axis.D * r // axis.L, p)
        found.append((a, b, sub))
    return found


def phases(problem: Problem) -> list[Problem]:
    """The problems with L = 1 that `by_phases` runs for a Problem, oriented: those that are not empty, each once."""
    axes = [axis_phases(axis.oriented(+1)[0]) for axis in problem.axes]
    met = ([sub for _, _, sub in phases_of if sub is not None] for phases_of in axes)
    found = (replace(problem, axes=some) for some in product(*met))
    return list(dict.fromkeys(phase for phase in found if not phase.is_empty))


def woven(problem: Problem) -> dict[str, float]:
    """The work of weaving the phases' outputs: nothing without input dilation."""
    phases = prod(abs(axis.L) // gcd(axis.L, axis.S) for axis in problem.axes)
    if phases == 1:
        return {}
    narrow = prod(problem.y_shape) / problem.y_shape[-1]
    return {"woven": float(prod(problem.y_shape)), "woven rows": narrow, "phases": float(phases)}


def by_phases(problem: Problem, x: Array, w: Array, run: Callable[[Problem, Array, Array], Array]) -> Array:
    """y of an oriented Problem, by runs of Problems with L = 1."""
    if all(axis.L == 1 for axis in problem.axes):
        return run(problem, x, w)
    lw, ly = problem.layouts.w, problem.layouts.y
    counts = [axis.L // gcd(axis.L, axis.S) for axis in problem.axes]
    steps = [axis.L // gcd(axis.L, axis.D) for axis in problem.axes]
    longest = [-(-axis.O // q) for axis, q in zip(problem.axes, counts, strict=True)]
    parts = []
    for combination in product(*map(axis_phases, problem.axes)):
        subs = [sub for _, _, sub in combination]
        if any(sub is None for sub in subs):
            part = None
        else:
            taps = [slice(None)] * w.ndim
            for d, ((_, b, _), r) in enumerate(zip(combination, steps, strict=True)):
                taps[lw.index(problem.spatial[d])] = slice(b, None, r)
            sub = replace(problem, axes=tuple(subs))
            part = None if sub.is_empty else run(sub, x, w[tuple(taps)])
        shape = [
            problem.y_shape[d] if c not in problem.spatial else longest[problem.spatial.index(c)]
            for d, c in enumerate(ly)
        ]
        if part is None:
            part = jnp.zeros(shape, x.dtype)
        else:
            part = jnp.pad(part, [(0, full - had) for full, had in zip(shape, part.shape, strict=True)])
        parts.append(part)
    return _woven(problem, parts, counts)


def _woven(problem: Problem, parts: list[Array], counts: list[int]) -> Array:
    """Phases a0, a1, ... of o = a + q*t put in order: t and a become neighbours, and one axis."""
    ly = problem.layouts.y
    y = jnp.stack(parts).reshape(*counts, *parts[0].shape)
    order, shape = [], []
    for d, letter in enumerate(ly):
        order.append(len(counts) + d)
        size = parts[0].shape[d]
        if letter in problem.spatial:
            s = problem.spatial.index(letter)
            order.append(s)
            size *= counts[s]
        shape.append(size)
    y = lax.transpose(y, order).reshape(shape)
    return lax.slice(y, [0] * y.ndim, problem.y_shape)
