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
from functools import cache, lru_cache, partial, reduce
from itertools import product
from math import inf, prod
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv.engines.base import (
    LIMITS,
    Engine,
    array_bytes,
    compiled,
    elements,
    itemsize,
    kinds_of,
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
LETTERS = "PQR"  # the points of each axis
TILES = (2, 3, 4)
TRANSFORMED, KERNEL = 8.0, 12.0  # products that take as long as a number of the input or output, or of the kernel


class Scheme(NamedTuple):
    """How one axis is cut: tiles of m, blocks of r taps, `blocks` of them; n = m + r - 1 points."""

    m: int
    r: int
    blocks: int

    @property
    def n(self) -> int:
        return self.m + self.r - 1


@cache
def schemes(taps: int) -> tuple[Scheme, ...]:
    """The ways to cut an axis of that many taps."""
    if taps == 1:
        return (Scheme(1, 1, 1),)
    ways = []
    for blocks, m in product(range(1, 4), TILES):
        r = -(-taps // blocks)
        if blocks > 1:
            r = -(-r // m) * m
        if m + r - 1 <= len(POINTS) + 1 and r * (blocks - 1) < taps:
            ways.append(Scheme(m, r, blocks))
    return tuple(ways)


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


def refusal(problem: Problem, platform: str | None, most: float) -> str | None:
    if no := refuse_exact("winograd", problem):
        return no
    if len(problem.axes) > len(LETTERS):
        axes = f"it transforms at most {len(LETTERS)} axes, and there are {len(problem.axes)}"
        return f"winograd: {axes}; use method='gemm'."
    layer = problem.is_layer
    taps = problem.taps if layer else problem.outputs
    if taps <= 1:
        return (
            "winograd: a kernel or an output of one entry leaves nothing to transform; use method='gemm' or 'shifts'."
        )
    step = max((abs(axis.S if layer else axis.D) for axis in problem.axes), default=1)
    if step != 1:
        return f"winograd: it has no stride, and there is one of {step}; use method='gemm' or 'direct'."
    if not all(_plan(phase, layer, most) for phase in phases(problem)):
        return f"winograd: {taps} taps are too many for its error; use method='gemm', 'fft' or 'shifts'."
    return None


class Size(NamedTuple):
    """How much there is to do with some schemes: products, numbers that are transformed on each side, and matrices."""

    products: float
    input: float
    output: float
    kernel: float
    matrices: float

    @property
    def cost(self) -> float:
        return self.products + TRANSFORMED * (self.input + self.output) + KERNEL * self.kernel


def _size(problem: Problem, layer: bool, plan: Sequence[Scheme]) -> Size:
    """Of an oriented Problem with L = 1 in one of the two forms, for the schemes of its axes."""
    along = [(axis.O, axis.D) if layer else (axis.K, axis.S) for axis in problem.axes]
    cells = prod(-(-extent // (s.m * step)) * step for (extent, step), s in zip(along, plan, strict=True))
    points, blocks = prod(s.n for s in plan), prod(s.blocks for s in plan)
    rows, columns = (problem.c, problem.m * blocks) if layer else (problem.n * blocks, problem.m)
    images = problem.g * (problem.n if layer else problem.c)
    kernel = points * problem.g * (problem.c * columns if layer else rows * columns)
    one = float(points * cells * images)
    return Size(one * rows * columns, one * rows, one * columns, float(kernel), float(points * problem.g))


# How errors of random numbers grow, and what of them the norm of the error is beside that of the plain sum's. In units
# of roundoff, the square of an error is taken as terms/10 + 2 of the sums between, and terms/12 + 1/2 of the plain sum:
# fitted to what was seen for 16 to 256 channels; beyond some hundred terms a library sums in blocks.
LONGEST = 500


@cache
def _growth(scheme: Scheme) -> float:
    """By how much the root mean square of an error along one axis exceeds that of a plain sum; in both forms."""
    if scheme.n == 1:
        return 1.0
    at, g, bt = (matrix**2 for matrix in matrices(scheme.m, scheme.r))
    return float((at @ (g.sum(1) * bt.sum(1))).mean() / scheme.r) ** 0.5


def _error_ratio(problem: Problem, layer: bool, plan: Sequence[Scheme]) -> float:
    """About how many times the plain sum's error that of these schemes is."""
    if all(scheme.n == 1 for scheme in plan):
        return 1.0
    terms = problem.c * prod(axis.K for axis in problem.axes)
    between = problem.c * (1 if layer else prod(-(-a.K // s.m) for a, s in zip(problem.axes, plan, strict=True)))
    squares = (min(between, LONGEST) / 10 + 2) / (min(terms, LONGEST) / 12 + 0.5)
    return prod(map(_growth, plan)) * squares**0.5


@lru_cache(maxsize=4096)
def _plan(problem: Problem, layer: bool, most: float) -> tuple[Scheme, ...]:
    """The schemes of the axes that take the least time together, for an oriented Problem with L = 1, in one form.

    Where maps are small or channels many, the transformed kernel is what there is most of: then tiles are small. None
    if all that there are would have more than `most` times the plain sum's error.
    """
    ways = product(*(schemes(axis.K if layer else axis.O) for axis in problem.axes))
    able = (plan for plan in ways if _error_ratio(problem, layer, plan) <= most)
    return min(able, key=lambda plan: _size(problem, layer, plan).cost, default=())


def work(problem: Problem, platform="cpu", precision=None, *, most: float) -> dict[str, float]:
    form, row = "layer" if problem.is_layer else "kernel", problem.x_shape[-1]
    parts, total = phases(problem), _whole_size(problem, most)
    blocks = itemsize(problem) * (total.input + total.output) / _limit(problem, platform)
    if platform != "cpu":  # two passes of each transform, one kernel an axis; full precision, see `run`
        between = 2 * len(problem.axes) * (total.input + total.output) + total.kernel
        moved = array_bytes(problem) + itemsize(problem) * between
        launched = 9.0 * len(parts) * max(1.0, blocks)
        return launches(launched, moved, total.products, "float32", trips=max(0.0, blocks - 1))
    layer = problem.is_layer
    branches = sum(s.n for phase in parts for s in _plan(phase, layer, most)) * (1 if layer else 2)  # V, and A w
    return woven(problem) | compiled(float(len(parts)), float(branches)) | {
        "call": float(len(parts)), f"{form} products": total.products, f"{form} input": total.input,
        f"{form} output": total.output, f"{form}, short rows": (total.input + total.output) / row,
        "kernels": total.kernel, "matrices": total.matrices * (1 + blocks), "elements": elements(problem),
        "blocks": 1 + blocks,
    }  # fmt: skip


def memory(problem: Problem, platform="cpu", *, most: float) -> float:
    total, size = _whole_size(problem, most), itemsize(problem)
    return 2 * min(size * (total.input + total.output), float(_limit(problem, platform))) + size * total.kernel


def _whole_size(problem: Problem, most: float) -> Size:
    """Of all phases."""
    layer = problem.is_layer
    sizes = [_size(phase, layer, _plan(phase, layer, most)) for phase in phases(problem)]
    return Size(*map(sum, zip(*sizes, strict=True)))


def _limit(problem: Problem, platform: str) -> int:
    """Bytes of a block."""
    return LIMITS[platform].layer if problem.is_layer else LIMITS[platform].kernel


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


def _combined(matrix: np.ndarray, parts: Sequence[Array], platform: str, place: int = 0, whole: bool = False) -> Array:
    """matrix @ parts along a new axis at `place`: row by row without the zeros, or `whole`, in one loop.

    XLA compiles a loop for each row. In one loop a row is as long as the matrix, and transforms of several axes
    would be fused: it is for the last of few.
    """
    if whole:
        columns = [column.reshape(-1, *[1] * parts[0].ndim) for column in matrix.T]
        y = pairwise([jnp.asarray(c, part.dtype) * part[None] for c, part in zip(columns, parts, strict=True)])
        return jnp.moveaxis(y, 0, place)
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


def _multiplied(matrices: Sequence[np.ndarray], array: Array, layout: str, letters: str) -> Array:
    """The Kronecker product of the matrices times an array, whose axes `letters` they transform: these in front."""
    if not letters:
        return array
    front = jnp.moveaxis(array, [layout.index(letter) for letter in letters], range(len(letters)))
    matrix = reduce(np.kron, matrices)
    y = jnp.dot(jnp.asarray(matrix, array.dtype), front.reshape(matrix.shape[1], -1), precision=lax.Precision.HIGHEST)
    return y.reshape(*(m.shape[0] for m in matrices), *front.shape[len(letters) :])


def _length(scheme: Scheme, tiles: int, step: int) -> int:
    return step * scheme.m * (tiles + -(-(scheme.n - scheme.m) // scheme.m))


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
    lengths = {letter: _length(*plan) for letter, plan in zip(problem.spatial, plans, strict=True)}
    lows = {c: axis.p for c, axis in zip(problem.spatial, problem.axes, strict=True)}
    v = _pad(x, problem.layouts.x, lows, lengths)
    return _transformed_tiles(v, problem.layouts.x, problem.spatial, plans, "input", platform)


def _transformed_tiles(
    v: Array, layout: str, spatial: str, plans: list[tuple[Scheme, int, int]], of: str, platform: str
) -> tuple[Array, str]:
    """B^T v of an "input", A v of an "output", for every tile of each axis; the points' axes in front."""
    transformed = [d for d, (scheme, *_) in enumerate(plans) if scheme.n > 1]
    for d in transformed:
        scheme, tiles, step = plans[d]
        at, _, bt = matrices(scheme.m, scheme.r)
        matrix = bt if of == "input" else at.T
        entries = _tiled(v, layout, spatial[d], scheme, tiles, step, matrix.shape[1])
        whole = platform == "cpu" and d == transformed[-1] and len(transformed) < 3
        v, layout = _combined(matrix, entries, platform, whole=whole), LETTERS[d] + layout
    return v, layout


# The transforms multiply what products of fewer digits lose (ml-explore/mlx issue 4242).
def _exact(precision, platform: str):
    """The precision of the products: on accelerators full."""
    return precision if platform == "cpu" else lax.Precision.HIGHEST


def _layer(problem: Problem, x: Array, w: Array, precision, platform: str, most: float) -> Array:
    lw, plans = problem.layouts.w, _plan(problem, True, most)
    # U = G w, with a letter for the blocks of each axis: the axis' own.
    u = _pad(w, lw, {}, {c: s.r * s.blocks for c, s in zip(problem.spatial, plans, strict=True)})
    for d, (letter, scheme) in enumerate(zip(problem.spatial, plans, strict=True)):
        place = lw.index(letter)
        u = u.reshape(*u.shape[:place], scheme.blocks, scheme.r, *u.shape[place + 1 :])
        lw = lw.replace(letter, letter + LETTERS[d])
    points = "".join(LETTERS[d] for d, scheme in enumerate(plans) if scheme.n > 1)
    u = jnp.squeeze(u, [lw.index(LETTERS[d]) for d, scheme in enumerate(plans) if scheme.n == 1])
    lw = "".join(c for c in lw if c not in LETTERS or c in points)
    u = _multiplied([matrices(s.m, s.r)[1] for s in plans if s.n > 1], u, lw, points)
    lw = points + "".join(c for c in lw if c not in points)
    points = prod(s.n for s in plans)
    blocks = prod(s.blocks for s in plans)
    cells = prod(-(-axis.O // s.m) for axis, s in zip(problem.axes, plans, strict=True))
    between = itemsize(problem) * problem.n * problem.g * points * cells * (problem.c + blocks * problem.m)
    unit = [s.m * axis.D for axis, s in zip(problem.axes, plans, strict=True)]
    block = partial(_layer_block, lu=lw, schemes=plans, precision=_exact(precision, platform), platform=platform)
    return over_outputs(problem, x, u, LIMITS[platform].layer / between, block, unit)


def _layer_block(
    problem: Problem, x: Array, u: Array, lu: str, schemes: Sequence[Scheme], precision, platform: str
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


def _kernel(problem: Problem, x: Array, w: Array, precision, platform: str, most: float) -> Array:
    plans = _plan(problem, False, most)
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
    letters = layout[: -len(ly)]
    z = _multiplied([matrices(s.m, s.r)[1].T for s in plans if s.n > 1], z, layout, letters)  # y = G^T z
    for d, letter in enumerate(problem.spatial):  # the blocks of taps lie along the axis' own letter
        if LETTERS[d] in letters:
            place = layout.index(letter)
            z = jnp.moveaxis(z, layout.index(LETTERS[d]), place)
            layout = layout.replace(LETTERS[d], "").replace(letter, letter + LETTERS[d])
            z = z.reshape(*z.shape[: place - 1], -1, *z.shape[place + 1 :])
            layout = layout.replace(LETTERS[d], "")
    return lax.slice(z, [0] * z.ndim, problem.y_shape)


def _kernel_block(problem: Problem, x: Array, w: Array, schemes: Sequence[Scheme], precision, platform: str) -> Array:
    lw, ly = problem.layouts.w, problem.layouts.y
    steps = [axis.S for axis in problem.axes]
    tiles = [-(-axis.K // (s.m * axis.S)) for axis, s in zip(problem.axes, schemes, strict=True)]
    offsets = [s.r // s.m for s in schemes]
    extended = [t + j * (s.blocks - 1) for t, j, s in zip(tiles, offsets, schemes, strict=True)]
    v, lv = _transformed_input(problem, x, list(zip(schemes, extended, steps, strict=True)), platform)
    lengths = {c: step * s.m * t for c, step, s, t in zip(problem.spatial, steps, schemes, tiles, strict=True)}
    plans = list(zip(schemes, tiles, steps, strict=True))
    e, lw = _transformed_tiles(_pad(w, lw, {}, lengths), lw, problem.spatial, plans, "output", platform)
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
# a constant that is no short binary fraction), as many as it sums and one more where G of all axes
# is one matrix, and one for each term summed between. In absolute
# values, an output is a sum over points p of |A_p| (|G| |w|)_p (|B^T| |x|)_p, at most the norms of
# these rows times those of the w and x that they read (Cauchy), axis by axis. In the kernel's
# form w and y change places, and the tiles of x overlap: each entry is read by ceil(n / m) of them.
def error(problem: Problem, most: float) -> tuple[float, float]:
    layer = problem.is_layer
    return 0.0, max((_error(phase, layer, most) for phase in phases(problem)), default=0.0)


def _error(problem: Problem, layer: bool, most: float) -> float:
    """The factor b of an oriented problem with L = 1."""
    plan = _plan(problem, layer, most)
    if not plan:
        return inf
    roundings, growth, terms, taps = 3.0, 1.0, problem.c, 1
    for axis, scheme in zip(problem.axes, plan, strict=True):
        positions, step = (axis.O, axis.D) if layer else (axis.K, axis.S)
        terms *= 1 if layer else step * -(-positions // (step * scheme.m))
        at, g, bt = (
            (np.abs(matrix) for matrix in matrices(scheme.m, scheme.r)) if scheme.n > 1 else [np.ones((1, 1))] * 3
        )
        rows = np.linalg.norm(bt, axis=1)
        if layer:
            growth *= (at @ (np.linalg.norm(g, axis=1) * rows)).max() * scheme.blocks
        else:
            growth *= (g.T @ (np.linalg.norm(at, axis=0) * rows)).max() * (-(-scheme.n // scheme.m)) ** 0.5
        roundings += 2 * (scheme.n + 2) + scheme.blocks
        taps *= scheme.r if layer else scheme.n
    roundings += taps + 1
    return float(growth * (roundings + summation_error(problem, terms)))


KINDS = kinds_of(
    product=("layer products", "kernel products"),
    loop=[
        "kernels",
        *(f"{form}{part}" for form in ("layer", "kernel") for part in (" input", " output", ", short rows")),
    ],
    trip=("matrices", "blocks"),
)


def winograd(most: float) -> Engine:
    """The engine with an error of about `most` times the plain sum's, of random numbers and in the norm."""

    # A Problem's phases are all computed in its own form: only that one is known to have no stride.
    def run(problem: Problem, x: Array, w: Array, precision=None, platform="cpu") -> Array:
        form = partial(_layer if problem.is_layer else _kernel, most=most)
        return runner(form)(problem, x, w, precision, platform)

    of = partial(partial, most=most)
    return Engine("winograd", never, of(refusal), of(work), of(memory), run, of(error), KINDS)


WINOGRAD = winograd(3.0)
CLOSE = winograd(1.6)  # for accuracy='close'
