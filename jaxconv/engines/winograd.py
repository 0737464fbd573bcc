"""winograd: minimal filtering, with fewer products than the sum has.

m outputs of a correlation with r taps take n = m + r - 1 products instead of m*r:

    y = A^T [ (G w) * (B^T x) ],     y of m, w of r and x of n entries,

the transpose of Toom and Cook's product of polynomials: evaluated at n points, multiplied,
interpolated. On trilinear forms that is T(x, w, y) = sum over p of (B^T x)_p (G w)_p (A y)_p,
so that one algorithm has three passes; here two are needed:

    the layer      tiles of m outputs, sums over c:       y = A^T [ sum over c of U * V ]
    its kernel     tiles of m kernel positions, summed:   y = G^T [ sum over c and tiles of V * A w ]

In d dimensions each axis is transformed by itself, and for every point there is a matrix
product over c. A kernel of more taps is cut into blocks of r, with r a multiple of m: a block's
offset is a whole number of tiles, and all blocks share the transformed input. Dilated axes
are tiled phase by phase, which is a reshape.

Source: Lavin and Gray, Fast algorithms for convolutional neural networks (2015); Winograd (1980).
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache, partial
from itertools import product
from math import prod
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv.engines.base import (
    LIMITS,
    WOVEN,
    Engine,
    array_bytes,
    elements,
    itemsize,
    launches,
    multiply,
    never,
    pairwise,
    summation_error,
)
from jaxconv.engines.blocks import over_outputs, over_sums
from jaxconv.engines.fft import refuse_exact
from jaxconv.engines.polyphase import phases, runner, woven
from jaxconv.problem import Problem

# The finite points by their number; infinity is one more. Their powers and distances decide how errors grow: of dyadic
# points these have the least growth that was found (0, 1, -1, 2, -2, ... have twice as much).
POINTS = {
    count: [Fraction(p) for p in points.split()]
    for count, points in {
        1: "0",
        2: "0 1",
        3: "0 1 -1",
        4: "3/8 -3/8 21/16 -21/16",
        5: "0 5/8 -5/8 3/2 -3/2",
        6: "3/8 -3/8 13/16 -13/16 27/16 -27/16",
        7: "0 1 -1 2 -2 1/2 -1/2",
    }.items()
}
MOST = (8, 8, 7, 6)  # points of an axis where so many are transformed: errors grow with each, and multiply
LETTERS = "PQR"  # the points of each axis
TILES = (2, 3, 4)


class Scheme(NamedTuple):
    """How one axis is cut: tiles of m, blocks of r taps, `blocks` of them; n = m + r - 1 points."""

    m: int
    r: int
    blocks: int

    @property
    def n(self) -> int:
        return self.m + self.r - 1


def schemes(taps: int, axes: int) -> list[Scheme]:
    """The ways to cut an axis of that many taps, where `axes` are transformed."""
    if taps == 1:
        return [Scheme(1, 1, 1)]
    ways = []
    for blocks, m in product(range(1, 4), TILES):
        r = -(-taps // blocks)
        if blocks > 1:
            r = -(-r // m) * m
        if m + r - 1 <= MOST[axes] and r * (blocks - 1) < taps:
            ways.append(Scheme(m, r, blocks))
    return ways


@cache
def matrices(m: int, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A^T, G, B^T) of F(m, r), each rounded once from exact fractions.

    With E_k the evaluation of polynomials of k coefficients at the n points, and the last row
    for infinity, A = E_m, G = E_r and B^T = the inverse of E_n, transposed; each row of G is
    divided, and of B^T multiplied, by the product of its point's distances from the others.

    >>> matrices(2, 3)[2]
    array([[-1.,  0.,  1.,  0.],
           [ 0.,  1.,  1.,  0.],
           [ 0., -1.,  1.,  0.],
           [ 0., -1.,  0.,  1.]])
    """
    n = m + r - 1
    points = POINTS[n - 1]

    def evaluation(k: int) -> list[list[Fraction]]:
        return [[p**j for j in range(k)] for p in points] + [[Fraction(int(j == k - 1)) for j in range(k)]]

    scale = [prod((p - q for q in points if q != p), start=Fraction(1)) for p in points] + [Fraction(1)]
    inverse = _inverse(evaluation(n))
    bt = [[inverse[j][i] * scale[i] for j in range(n)] for i in range(n)]
    g = [[e / scale[i] for e in row] for i, row in enumerate(evaluation(r))]
    at = [list(column) for column in zip(*evaluation(m), strict=True)]
    return tuple(np.array(matrix, float) for matrix in (at, g, bt))  # type: ignore[return-value]


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Gauss and Jordan, exactly."""
    n = len(matrix)
    rows = [list(row) + [Fraction(int(i == j)) for j in range(n)] for i, row in enumerate(matrix)]
    for i in range(n):
        pivot = next(k for k in range(i, n) if rows[k][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [e / rows[i][i] for e in rows[i]]
        for k in range(n):
            if k != i:
                rows[k] = [a - rows[k][i] * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[n:] for row in rows]


def refusal(problem: Problem, platform: str | None) -> str | None:
    if no := refuse_exact("winograd", problem):
        return no
    if len(problem.axes) > len(LETTERS):
        most = f"it transforms at most {len(LETTERS)} axes, and there are {len(problem.axes)}"
        return f"winograd: {most}; use method='gemm'."
    if not _transformed(problem):
        return (
            "winograd: a kernel or an output of one entry leaves nothing to transform; use method='gemm' or 'shifts'."
        )
    for axis in problem.axes:
        step, taps = (axis.S, axis.K) if problem.is_layer else (axis.D, axis.O)
        if abs(step) != 1:
            return f"winograd: it has no stride, and there is one of {abs(step)}; use method='gemm' or 'direct'."
        if not schemes(taps, _transformed(problem)):
            return f"winograd: {taps} taps are too many for its error; use method='fft' or 'shifts'."
    return None


def _transformed(problem: Problem) -> int:
    """How many axes have taps to transform."""
    return sum((axis.K if problem.is_layer else axis.O) > 1 for axis in problem.axes)


def work(problem: Problem, platform="cpu", precision=None) -> dict[str, float]:
    layer = problem.is_layer
    cells = points = blocks = 1.0
    phases = prod(abs(axis.L) for axis in problem.axes)
    for axis in problem.axes:
        taps, positions = (axis.K, axis.O) if layer else (axis.O, axis.K)
        taps, positions = -(-taps // abs(axis.L)), -(-positions // abs(axis.L))
        scheme = _pick(taps, -(-positions // abs(axis.D if layer else axis.S)), _transformed(problem))
        cells *= -(-positions // scheme.m)
        points *= scheme.n
        blocks *= scheme.blocks
    form = "layer" if layer else "kernel"
    rows, columns = (problem.c, problem.m * blocks) if layer else (problem.n * blocks, problem.m)
    images = problem.g * (problem.n if layer else problem.c) * phases
    products = points * cells * images * rows * columns
    v, z = points * cells * images * rows, points * cells * images * columns
    u = points * problem.g * (problem.c * columns if layer else rows * columns)
    row = problem.x_shape[-1]
    size = itemsize(problem) * (v + z) / (LIMITS[platform].layer if layer else LIMITS[platform].kernel)
    if platform != "cpu":  # two passes of each transform, one kernel an axis; full precision, see `run`
        moved = array_bytes(problem) + itemsize(problem) * (2 * len(problem.axes) * (v + z) + u)
        return launches(9.0 * phases * max(1.0, size), moved, products, "float32", trips=max(0.0, size - 1))
    return woven(problem) | {
        "call": 1.0, f"{form} products": products, f"{form}, over rows": products / rows,
        f"{form}, over columns": products / columns, f"{form} input": v, f"{form} output": z, "kernels": u,
        f"{form}, short rows": (v + z) / row,
        "matrices": points * problem.g * (1 + size), "elements": elements(problem), "blocks": 1 + size,
    }  # fmt: skip


def memory(problem: Problem, platform="cpu") -> float:
    counts, size = work(problem), itemsize(problem)
    form = "layer" if problem.is_layer else "kernel"
    limit = LIMITS[platform].layer if form == "layer" else LIMITS[platform].kernel
    return 2 * min(size * (counts[f"{form} input"] + counts[f"{form} output"]), float(limit)) + size * counts["kernels"]


# ---- tiles


def _tiled(v: Array, layout: str, axis: str, scheme: Scheme, tiles: int, step: int, count: int) -> list[Array]:
    """The first `count` entries of each tile along an axis: entry i of tile t and phase a is v[step*(m*t + i) + a].

    v is at least step * m * (tiles + ceil((n - m) / m)) long; tiles and phases share the axis.
    """
    place = layout.index(axis)
    shape = v.shape
    v = v.reshape(*shape[:place], -1, scheme.m, step, *shape[place + 1 :])
    entries = []
    for i in range(count):
        entry = lax.slice_in_dim(v, i // scheme.m, i // scheme.m + tiles, axis=place)
        entry = lax.index_in_dim(entry, i % scheme.m, place + 1, keepdims=False)
        entries.append(entry.reshape(*shape[:place], tiles * step, *shape[place + 1 :]))
    return entries


def _combined(matrix: np.ndarray, parts: Sequence[Array], platform: str, place: int = 0) -> Array:
    """matrix @ parts, written out without the zeros, along a new axis at `place`."""
    y = jnp.stack(
        [
            pairwise(
                [
                    part if c == 1 else -part if c == -1 else part * c.astype(part.dtype)
                    for c, part in zip(row, parts, strict=True)
                    if c
                ]
            )
            for row in matrix
        ],
        place,
    )
    # For a GPU the transforms of all axes would be one kernel, in which each is computed again for every point of the
    # next: such kernels were compiled for up to a minute.
    return y if platform == "cpu" else lax.optimization_barrier(y)


def _length(scheme: Scheme, tiles: int, step: int) -> int:
    return step * scheme.m * (tiles + -(-(scheme.n - scheme.m) // scheme.m))


def _pick(taps: int, positions: int, axes: int) -> Scheme:
    """The scheme with the fewest products, of which tiles that stand over count."""
    return min(schemes(taps, axes), key=lambda s: -(-positions // s.m) * s.n * (s.blocks + 0.5))


def _pad(array: Array, layout: str, lows: dict[str, int], lengths: dict[str, int]) -> Array:
    config = []
    for letter, size in zip(layout, array.shape, strict=True):
        low = lows.get(letter, 0)
        config.append((low, lengths.get(letter, size + low) - size - low, 0))
    return lax.pad(array, jnp.zeros((), array.dtype), config)


def _transformed_input(
    problem: Problem, x: Array, plans: list[tuple[Scheme, int, int]], platform: str
) -> tuple[Array, str]:
    """V = B^T x for every tile, with the points' axes in front; plans: (scheme, tiles, step) of each axis."""
    layout = problem.layouts.x
    letters = dict(zip(problem.spatial, plans, strict=True))
    lengths = {letter: _length(*plan) for letter, plan in letters.items()}
    v = _pad(x, layout, {c: axis.p for c, axis in zip(problem.spatial, problem.axes, strict=True)}, lengths)
    for d, (letter, (scheme, tiles, step)) in enumerate(letters.items()):
        if scheme.n > 1:
            entries = _tiled(v, layout, letter, scheme, tiles, step, scheme.n)
            v, layout = _combined(matrices(scheme.m, scheme.r)[2], entries, platform), LETTERS[d] + layout
    return v, layout


# The transforms multiply what products of fewer digits lose (ml-explore/mlx issue 4242).
def _exact(precision, platform: str):
    """The precision of the products: on accelerators full."""
    return precision if platform == "cpu" else lax.Precision.HIGHEST


def _layer(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    lw = problem.layouts.w
    transformed = sum(axis.K > 1 for axis in problem.axes)
    plans = [_pick(axis.K, -(-axis.O // axis.D), transformed) for axis in problem.axes]
    # U = G w, with a letter for the blocks of each axis: the axis' own.
    lengths = {c: s.r * s.blocks for c, s in zip(problem.spatial, plans, strict=True)}
    u = _pad(w, lw, {}, lengths)
    for d, (letter, scheme) in enumerate(zip(problem.spatial, plans, strict=True)):
        place = lw.index(letter)
        u = u.reshape(*u.shape[:place], scheme.blocks, scheme.r, *u.shape[place + 1 :])
        taps = [lax.index_in_dim(u, i, place + 1, keepdims=False) for i in range(scheme.r)]
        if scheme.n > 1:
            u, lw = _combined(matrices(scheme.m, scheme.r)[1], taps, platform), LETTERS[d] + lw
        else:
            u = taps[0]
    points = prod(s.n for s in plans)
    blocks = prod(s.blocks for s in plans)
    cells = prod(-(-axis.O // s.m) for axis, s in zip(problem.axes, plans, strict=True))
    between = itemsize(problem) * problem.n * problem.g * points * cells * (problem.c + blocks * problem.m)
    unit = [s.m * axis.D for axis, s in zip(problem.axes, plans, strict=True)]
    block = partial(_layer_block, lu=lw, schemes=plans, precision=_exact(precision, platform), platform=platform)
    return over_outputs(problem, x, u, LIMITS[platform].layer / between, block, unit)


def _layer_block(
    problem: Problem, x: Array, u: Array, lu: str, schemes: list[Scheme], precision, platform: str
) -> Array:
    ly = problem.layouts.y
    steps = [axis.D for axis in problem.axes]
    tiles = [-(-axis.O // (s.m * axis.D)) for axis, s in zip(problem.axes, schemes, strict=True)]
    offsets = [s.r // s.m for s in schemes]  # in tiles, from one block of taps to the next
    extended = [t + j * (s.blocks - 1) for t, j, s in zip(tiles, offsets, schemes, strict=True)]
    v, lv = _transformed_input(problem, x, list(zip(schemes, extended, steps, strict=True)), platform)
    # The blocks' letters of u are renamed, since the tiles of v have the axes' own.
    blocks = "STU"[: len(schemes)]
    lu = lu.translate(str.maketrans(problem.spatial, blocks))
    points = [c for c in LETTERS if c in lv]
    inner = ly.replace("m", blocks + "m")
    z = multiply(v, lv, u, lu, "".join(points) + inner, precision)
    layout = "".join(points) + inner
    parts = []
    for block in product(*(range(s.blocks) for s in schemes)):
        part, lp = z, layout
        for d, b in enumerate(block):
            part = lax.index_in_dim(part, b, lp.index(blocks[d]), keepdims=False)
            lp = lp.replace(blocks[d], "")
            start = b * offsets[d] * steps[d]
            part = lax.slice_in_dim(part, start, start + tiles[d] * steps[d], axis=lp.index(problem.spatial[d]))
        parts.append(part)
    y, layout = pairwise(parts), "".join(points) + ly
    for d, scheme in enumerate(schemes):
        if scheme.n == 1:
            continue
        place = layout.index(LETTERS[d])
        entries = [lax.index_in_dim(y, i, place, keepdims=False) for i in range(scheme.n)]
        layout = layout.replace(LETTERS[d], "")
        y, layout = _combined(matrices(scheme.m, scheme.r)[0], entries, platform), LETTERS[d] + layout
    return _untiled(problem, y, layout, schemes, tiles, steps)


def _untiled(problem: Problem, y: Array, layout: str, schemes, tiles, steps) -> Array:
    """o = step*(m*t + j) + a: tile, entry and phase become one axis, in that order."""
    ly = problem.layouts.y
    shape, names = [], []  # the axes of tiles and phases taken apart
    for letter, size in zip(layout, y.shape, strict=True):
        if letter in problem.spatial:
            d = problem.spatial.index(letter)
            shape += [tiles[d], steps[d]]
            names += [letter + "t", letter + "a"]
        else:
            shape.append(size)
            names.append(letter)
    order, final = [], []
    for letter, size in zip(ly, problem.y_shape, strict=True):
        if letter in problem.spatial:
            d = problem.spatial.index(letter)
            order.append(names.index(letter + "t"))
            if LETTERS[d] in names:
                order.append(names.index(LETTERS[d]))
            order.append(names.index(letter + "a"))
            final.append(tiles[d] * schemes[d].m * steps[d])
        else:
            order.append(names.index(letter))
            final.append(size)
    y = lax.transpose(y.reshape(shape), order).reshape(final)
    return lax.slice(y, [0] * y.ndim, problem.y_shape)


# ---- the kernel's form


def _kernel(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    transformed = sum(axis.O > 1 for axis in problem.axes)
    plans = [_pick(axis.O, -(-axis.K // axis.S), transformed) for axis in problem.axes]
    points = prod(s.n for s in plans)
    blocks = prod(s.blocks for s in plans)
    cells = prod(-(-axis.K // s.m) for axis, s in zip(problem.axes, plans, strict=True))
    size = LIMITS[platform].kernel / (
        itemsize(problem) * problem.c * problem.g * points * cells * (blocks * problem.n + problem.m)
    )
    ly = problem.layouts.y
    unit = [s.m * axis.S for axis, s in zip(problem.axes, plans, strict=True)]
    block = partial(_kernel_block, schemes=plans, precision=_exact(precision, platform), platform=platform)
    z = over_sums(problem, x, w, size, block, unit)
    layout = "".join(LETTERS[d] for d, s in enumerate(plans) if s.n > 1) + ly
    for d, scheme in enumerate(plans):  # y = G^T z; the blocks of taps lie along the axis' own letter
        place = layout.index(problem.spatial[d])
        if scheme.n > 1:
            source = layout.index(LETTERS[d])
            entries = [lax.index_in_dim(z, i, source, keepdims=False) for i in range(scheme.n)]
            layout = layout.replace(LETTERS[d], "")
            place = layout.index(problem.spatial[d])
            z = _combined(matrices(scheme.m, scheme.r)[1].T, entries, platform, place + 1)
            z = z.reshape(*z.shape[:place], -1, *z.shape[place + 2 :])
    return lax.slice(z, [0] * z.ndim, problem.y_shape)


def _kernel_block(problem: Problem, x: Array, w: Array, schemes: list[Scheme], precision, platform: str) -> Array:
    lw, ly = problem.layouts.w, problem.layouts.y
    steps = [axis.S for axis in problem.axes]
    tiles = [-(-axis.K // (s.m * axis.S)) for axis, s in zip(problem.axes, schemes, strict=True)]
    offsets = [s.r // s.m for s in schemes]
    extended = [t + j * (s.blocks - 1) for t, j, s in zip(tiles, offsets, schemes, strict=True)]
    v, lv = _transformed_input(problem, x, list(zip(schemes, extended, steps, strict=True)), platform)
    lengths = {c: step * s.m * t for c, step, s, t in zip(problem.spatial, steps, schemes, tiles, strict=True)}
    e = _pad(w, lw, {}, lengths)
    for d, (letter, scheme, count, step) in enumerate(zip(problem.spatial, schemes, tiles, steps, strict=True)):
        if scheme.n > 1:
            entries = _tiled(e, lw, letter, scheme, count, step, scheme.m)
            e, lw = _combined(matrices(scheme.m, scheme.r)[0].T, entries, platform), LETTERS[d] + lw
    shifted = []
    for block in product(*(range(s.blocks) for s in schemes)):
        part = v
        for d, b in enumerate(block):
            start = b * offsets[d] * steps[d]
            part = lax.slice_in_dim(part, start, start + tiles[d] * steps[d], axis=lv.index(problem.spatial[d]))
        shifted.append(part)
    blocks = "STU"[: len(schemes)]
    place = lv.index("n")
    v = jnp.stack(shifted, place)
    v = v.reshape(*v.shape[:place], *(s.blocks for s in schemes), *v.shape[place + 1 :])
    lv = lv[:place] + blocks + lv[place:]
    points = "".join(c for c in LETTERS if c in lv)
    return multiply(v, lv, e, lw, points + ly.translate(str.maketrans(problem.spatial, blocks)), precision)


# ---- its error


# To first order the roundings of a chain add up: n + 2 for each transform by n points (one for
# a constant that is no short binary fraction), and one for each term summed between. In absolute
# values, an output is a sum over points p of |A_p| (|G| |w|)_p (|B^T| |x|)_p, at most the norms of
# these rows times those of the w and x that they read (Cauchy), axis by axis. In the kernel's
# form w and y change places, and the tiles of x overlap: each entry is read by ceil(n / m) of them.
def error(problem: Problem) -> tuple[float, float]:
    return 0.0, max(map(_error, dict.fromkeys(phases(problem))), default=0.0)


def _error(problem: Problem) -> float:
    """The factor b of an oriented problem with L = 1."""
    layer = problem.is_layer
    roundings, growth, terms = 3.0, 1.0, problem.c
    for axis in problem.axes:
        taps, positions, step = (axis.K, axis.O, axis.D) if layer else (axis.O, axis.K, axis.S)
        if not schemes(taps, _transformed(problem)):
            return float("inf")
        scheme = _pick(taps, -(-positions // step), _transformed(problem))
        terms *= 1 if layer else step * -(-positions // (step * scheme.m))
        at, g, bt = (
            (np.abs(matrix) for matrix in matrices(scheme.m, scheme.r)) if scheme.n > 1 else [np.ones((1, 1))] * 3
        )
        rows = np.linalg.norm(bt, axis=1)
        if layer:
            growth *= (at @ (np.linalg.norm(g, axis=1) * rows)).max() * scheme.blocks
        else:
            growth *= (g.T @ (np.linalg.norm(at, axis=0) * rows)).max() * (-(-scheme.n // scheme.m)) ** 0.5
        roundings += 3 * (scheme.n + 2) + scheme.blocks
    return float(growth * (roundings + summation_error(problem, terms)))


KINDS = WOVEN | {"call", "elements", "kernels", "matrices", "blocks"} | {
    f"{form}{part}"
    for form in ("layer", "kernel")
    for part in (" products", ", over rows", ", over columns", " input", " output", ", short rows")
}  # fmt: skip


# A Problem's phases are all computed in its own form: only that one is known to have no stride.
def run(problem: Problem, x: Array, w: Array, precision=None, platform="cpu") -> Array:
    return runner(_layer if problem.is_layer else _kernel)(problem, x, w, precision, platform)


WINOGRAD = Engine("winograd", never, refusal, work, memory, run, error, KINDS)
