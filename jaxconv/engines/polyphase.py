"""Phases: dilation and strides without multiplying zeros, and without outputs that are thrown away.

With L > 1 the relation L*i + p = S*o + D*k holds for an output o only with those k for which
S*o + D*k - p is a multiple of L. With q = L / gcd(L, S), outputs o = a + q*t of one phase a
all meet the same k, namely those of one residue modulo r = L / gcd(L, D): k = b + r*s. Put in,

    L*i + p - S*a - D*b = S*q*t + D*r*s,

and S*q and D*r are multiples of L: divided by it, each phase is a relation with L = 1. The
outputs of the phases are woven together again.

With L = 1, let M be the least common multiple of S and D. With o = a + (M/S)*t and k = b + (M/D)*s,

    S*o + D*k = M*(t + s) + S*a + D*b,

so that x at the positions S*a + D*b + M*j is read with a stride of 1 and a dilation of 1: the
phases a are images more, and the phases b features more that are summed. A stride alone makes
features of its phases, a dilation images.

Every phase is a program of its own. Where there would be more than PHASES, zeros are inserted after all.

Source: the polyphase decomposition; Vaidyanathan, Multirate Systems and Filter Banks, 4.3.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from math import gcd, lcm, prod
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.arguments import promoted
from jaxconv.engines.base import Form, accumulator, compiled, form_of, merged, oriented, padded_along
from jaxconv.problem import Axis, Problem

PHASES = 64  # programs, or parts of x, that are written out


def axis_phases(axis: Axis) -> list[tuple[int, int, Axis | None]]:
    """(a, b, sub-axis) for each output phase a of an oriented axis; None where no k meets it.

    >>> [(a, b, sub.K, sub.O) for a, b, sub in axis_phases(Axis(4, 3, 8, L=2, p=1))]
    [(0, 1, 1, 4), (1, 0, 2, 4)]
    """
    q, r = axis.L // gcd(axis.L, axis.S), axis.L // gcd(axis.L, axis.D)
    parts = []
    for a in range(q):
        b = next((b for b in range(r) if (axis.S * a + axis.D * b - axis.p) % axis.L == 0), None)
        outputs = len(range(a, axis.O, q))
        if b is None or b >= axis.K:
            parts.append((a, 0, None))
            continue
        p = (axis.p - axis.S * a - axis.D * b) // axis.L
        sub = Axis(axis.I, len(range(b, axis.K, r)), outputs, 1, axis.S * q // axis.L, axis.D * r // axis.L, p)
        parts.append((a, b, sub))
    return parts


def bounded(problem: Problem) -> Problem:
    """The Problem itself, or where it has more than PHASES, the oriented one for x with zeros inserted: L = 1."""
    if phase_count(problem) <= PHASES:
        return problem
    axes = [axis.oriented(+1)[0] for axis in problem.axes]
    return replace(problem, axes=tuple(replace(a, I=a.L * (a.I - 1) + 1, L=1) for a in axes))


def phase_count(problem: Problem) -> int:
    """How many phases the outputs have."""
    return prod(abs(axis.L) // gcd(axis.L, axis.S) for axis in problem.axes)


def phases(problem: Problem) -> list[Problem]:
    """The problems with L = 1 that `by_phases` runs for a Problem, oriented: those that are not empty."""
    problem = bounded(replace(problem, axes=tuple(axis.oriented(+1)[0] for axis in problem.axes)))
    met = ([sub for _, _, sub in axis_phases(axis) if sub is not None] for axis in problem.axes)
    every = (replace(problem, axes=some) for some in product(*met))
    return [phase for phase in every if not phase.is_empty]


@lru_cache(maxsize=32)  # two engines ask
def units(problem: Problem) -> tuple[Problem, ...]:
    """The problems with L = S = D = 1 that `by_units` runs for a Problem: those that are not empty."""
    return tuple(_unit(phase) for phase in phases(problem))


def work_of_units(problem: Problem, work: Callable[[Problem], dict[str, float]]) -> dict[str, float]:
    """The work of all units, of putting them together, and of as many programs."""
    counts, parts = woven(problem), units(problem)
    for part in map(work, parts):
        for name, count in part.items():
            counts[name] = counts.get(name, 0.0) + count
    calls = float(max(1, len(parts)))
    return counts | compiled(calls, calls * len(problem.axes)) | {"call": calls}


def _unit(problem: Problem) -> Problem:
    for d in range(len(problem.axes)):
        problem = _unit_along(_few_parts(problem, d), d)
    return problem


def _unit_along(problem: Problem, d: int) -> Problem:
    axis = problem.axes[d]
    if axis.S == axis.D == 1:
        return problem
    images, features = _images_features(axis)
    K, O = -(-axis.K // features), -(-axis.O // images)
    axes = (*problem.axes[:d], Axis(O + K - 1, K, O), *problem.axes[d + 1 :])
    return replace(problem, axes=axes, n=images * problem.n, c=features * problem.c)


def _images_features(axis: Axis) -> tuple[int, int]:
    M = lcm(axis.S, axis.D)
    return min(M // axis.S, axis.O), min(M // axis.D, axis.K)


def _few_parts(problem: Problem, d: int) -> Problem:
    """The Problem itself, or where S and D make more than PHASES parts of x, the one for w with zeros inserted."""
    axis, (images, features) = problem.axes[d], _images_features(problem.axes[d])
    if min(images, features) == 1 or images * features <= PHASES:
        return problem
    longer = replace(axis, K=axis.D * (axis.K - 1) + 1, D=1)
    return replace(problem, axes=(*problem.axes[:d], longer, *problem.axes[d + 1 :]))


def woven(problem: Problem) -> dict[str, float]:
    """The work of weaving the phases' outputs: nothing without input dilation."""
    phases = phase_count(problem)
    if phases == 1 or phases > PHASES:
        return {}
    narrow = prod(problem.y_shape) / problem.y_shape[-1]
    return {"woven": float(prod(problem.y_shape)), "woven rows": narrow, "phases": float(phases)}


def by_phases(problem: Problem, x: Array, w: Array, run: Callable[[Problem, Array, Array], Array]) -> Array:
    """y of an oriented Problem, by runs of Problems with L = 1."""
    if all(axis.L == 1 for axis in problem.axes):
        return run(problem, x, w)
    if phase_count(problem) > PHASES:
        zeros = dict(zip(problem.spatial, (axis.L - 1 for axis in problem.axes), strict=True))
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, zeros.get(letter, 0)) for letter in problem.layouts.x])
        return run(bounded(problem), x, w)
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
        parts.append(part)
    shape = [
        problem.y_shape[d] if c not in problem.spatial else longest[problem.spatial.index(c)] for d, c in enumerate(ly)
    ]
    dtype = promoted(*(x.dtype if part is None else part.dtype for part in parts))
    empty = jnp.zeros([0] * len(shape), dtype)
    parts = [
        jnp.pad(part.astype(dtype), [(0, full - had) for full, had in zip(shape, part.shape, strict=True)])
        for part in (empty if part is None else part for part in parts)
    ]
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


def by_units(problem: Problem, x: Array, w: Array, run: Callable[[Problem, Array, Array], Array]) -> Array:
    """y of an oriented Problem, by runs of Problems with L = S = D = 1."""
    return by_phases(problem, x, w, partial(_by_unit, run=run))


def _by_unit(problem: Problem, x: Array, w: Array, run: Callable, d: int = 0) -> Array:
    """y of an oriented Problem with L = 1, from the axis d on."""
    if d == len(problem.axes):
        return run(problem, x, w)
    if problem.axes[d].S == problem.axes[d].D == 1:
        return _by_unit(problem, x, w, run, d + 1)
    (lx, lw, ly), letter = problem.layouts, problem.spatial[d]
    fewer = _few_parts(problem, d)
    if fewer is not problem:
        zeros = problem.axes[d].D - 1
        w = lax.pad(w, jnp.zeros((), w.dtype), [(0, 0, zeros * (c == letter)) for c in lw])
        return _by_unit(fewer, x, w, run, d)
    axis, unit = problem.axes[d], _unit_along(problem, d)
    images, features = _images_features(axis)
    step, (I, K, O) = lcm(axis.S, axis.D), (unit.axes[d].I, unit.axes[d].K, unit.axes[d].O)
    v, at = (
        padded_along(x, lx, letter, axis.p, step * I + axis.S * (images - 1) + axis.D * (features - 1)),
        lx.index(letter),
    )
    if min(images, features) == 1:  # neighbours, S or D apart: one reshape
        apart = axis.S if images > 1 else axis.D
        v = lax.slice_in_dim(v, 0, step * I, axis=at)
        v = v.reshape(*v.shape[:at], I, step, *v.shape[at + 1 :])
        v = lax.slice_in_dim(v, 0, apart * (images * features - 1) + 1, apart, at + 1)
        v = jnp.moveaxis(v, at + 1, 0)
    else:
        starts = [axis.S * a + axis.D * b for a, b in product(range(images), range(features))]
        v = jnp.stack([lax.slice_in_dim(v, start, start + step * (I - 1) + 1, step, at) for start in starts])
    v = v.reshape(images, features, *v.shape[1:])
    v = merged(merged(v, 1, lx.index("c") + 1), 0, lx.index("n"))
    w, at = padded_along(w, lw, letter, 0, features * K), lw.index(letter)
    w = merged(w.reshape(*w.shape[:at], K, features, *w.shape[at + 1 :]), at + 1, lw.index("c"))
    y = _by_unit(unit, v, w, run, d + 1)
    at = ly.index("n")
    y = jnp.moveaxis(y.reshape(*y.shape[:at], images, problem.n, *y.shape[at + 1 :]), at, 0)
    at = ly.index(letter)
    y = jnp.moveaxis(y, 0, at + 1)
    y = y.reshape(*y.shape[:at], O * images, *y.shape[at + 2 :])
    return lax.slice_in_dim(y, 0, axis.O, axis=at)


def _summed(problem: Problem, platform: str):
    """The types of x and w as they are multiplied: that of the sums."""
    return accumulator(problem), accumulator(problem)


def runner(run: Callable, by: Callable = by_phases, factors: Callable = _summed) -> Callable[..., Array]:
    """An engine's `run`, made of one for oriented Problems with L = 1 (`by` units, with L = S = D = 1).

    `factors` are the types in which x and w are multiplied.
    """

    def run_whole(problem: Problem, x: Array, w: Array, precision=None, platform="cpu") -> Array:
        of_x, of_w = factors(problem, platform)
        turned, w, finish = oriented(problem, w.astype(of_w), +1)
        y = by(turned, x.astype(of_x), w, partial(run, precision=precision, platform=platform))
        return finish(y).astype(problem.dtypes.y)

    return run_whole


def formed(forms: Sequence[Form], factors: Callable = _summed) -> dict[str, Any]:
    """What of an engine follows from its forms: work, memory and run. Each phase is computed in its own form."""

    def work(problem: Problem, platform="cpu", precision=None) -> dict[str, float]:
        return form_of(forms, problem, platform).work(problem, platform, precision)

    def memory(problem: Problem, platform="cpu") -> float:
        return form_of(forms, problem, platform).memory(problem, platform)

    def run(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
        return form_of(forms, problem, platform).run(problem, x, w, precision, platform)

    return {"work": work, "memory": memory, "run": runner(run, factors=factors)}
