"""overlap: overlap-save, the convolution theorem block by block.

With L = S = D = 1 (to which polyphase.py brings the relation), a block of V outputs reads v[o + k] in a
window of N = V + K - 1 positions of v. A transform of N points gives V right values (the circular sum
is the linear one where the whole kernel lies within the window):

    the layer      y block = first V of inverse( forward(window) * reversed(w) )
    its kernel     y = first O of inverse( sum over blocks of forward(window) * reversed(w block) )
where reversed is the transform at negative frequencies, for real w the conjugate.

In the second form (fewer outputs than kernel positions) w is cut into blocks of V, and each meets
the window of v that its outputs read; the sum is taken before the one inverse transform.
Short transforms stay in cache, and their number grows with the longer array only. A loop over
groups of blocks bounds the memory.

Source: Stockham (1966); Oppenheim and Schafer, Discrete-Time Signal Processing, 8.7.
"""

from collections.abc import Sequence
from functools import partial
from math import log2, prod, sqrt

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.engines.base import (
    LIMITS,
    Engine,
    itemsize,
    multiply,
    never,
    padded_elements,
)
from jaxconv.engines.blocks import over_outputs, over_sums
from jaxconv.engines.fft import (
    TRANSFORMED,
    fast_length,
    forward,
    inverse,
    refuse_types,
    transform_error,
    transform_work,
    transforms_launched,
)
from jaxconv.engines.polyphase import by_units, runner, units, work_of_units
from jaxconv.problem import Problem

SHORTEST = 32


def refusal(problem: Problem, platform: str | None) -> str | None:
    if no := refuse_types("overlap", problem, platform):
        return no
    if len(problem.axes) > 3:
        return f"overlap: it transforms at most 3 axes, and there are {len(problem.axes)}; use method='fft'."
    if all((axis.K if problem.is_layer else axis.O) == 1 for axis in problem.axes):
        return "overlap: a kernel or an output of one entry leaves nothing to transform; use method='gemm' or 'shifts'."
    return None


def work(problem: Problem, platform="cpu", precision=None) -> dict[str, float]:
    return transforms_launched(problem, work_of_units(problem, _work), platform)


def _work(problem: Problem) -> dict[str, float]:
    x_points = w_points = y_points = 1.0
    layer = problem.is_layer
    sizes, spans, positions = _cut(problem)
    for n, span, count in zip(sizes, spans, positions, strict=True):
        blocks = -(-count // (n - span + 1)) * n
        x_points *= blocks
        w_points *= n if layer else blocks
        y_points *= blocks if layer else n
    n, g, c, m = problem.n, problem.g, problem.c, problem.m
    points = g * (n * c * x_points + m * c * w_points + n * m * y_points)
    counts = transform_work(problem, points, prod(sizes), g * n * c * x_points)
    counts["pairs" if c > 1 else "products"] = n * g * c * m * (x_points if layer else w_points)
    return counts


def memory(problem: Problem, platform="cpu") -> float:
    size = itemsize(problem)
    points = work_of_units(problem, _work).get("points", 0.0)
    return min(2 * size * points, 4.0 * LIMITS[platform].windows) + size * padded_elements(problem)


def _cut(problem: Problem) -> tuple[list[int], list[int], list[int]]:
    """The transforms' lengths, the spans and the positions of each axis."""
    spans, positions = [axis.K for axis in problem.axes], [axis.O for axis in problem.axes]
    if not problem.is_layer:
        spans, positions = positions, spans
    return lengths(spans, positions), spans, positions


def lengths(spans: Sequence[int], positions: Sequence[int]) -> list[int]:
    """The transform length of each axis: the cheapest for its span, and no longer than one block of all positions.

    >>> lengths([101], [10**6]), lengths([31, 31], [1024, 1024]), lengths([3], [5])
    ([1024], [1080, 1080], [7])
    """
    chosen = []
    for span, count in zip(spans, positions, strict=True):
        if span == 1:
            chosen.append(1)
            continue
        one_block = fast_length(count + span - 1)
        candidates = [n for e in range(5, 25) if 2 * span <= (n := 1 << e) < one_block] + [one_block]
        dimension = sum(s > 1 for s in spans)
        least = 1024 if dimension == 1 else 128 if dimension == 2 else 32
        chosen.append(min(candidates, key=lambda n: -(-count // (n - span + 1)) * n * (log2(max(n, least)) + 4)))
    return chosen


def _layer(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    sizes, spans, _ = _cut(problem)
    w = lax.transpose(w, [problem.layouts.w.index(letter) for letter in "gmc" + problem.spatial])
    w = jnp.pad(w, [(0, 0)] * 3 + [(0, n - span) for n, span in zip(sizes, spans, strict=True)])
    u = _reversed(w, sizes, problem.is_complex)
    elements = problem.n * problem.g * (problem.c + problem.m) * prod(2 * axis.O for axis in problem.axes)
    hops = [n - span + 1 for n, span in zip(sizes, spans, strict=True)]
    group = partial(_layer_group, sizes=sizes, precision=precision)
    return over_outputs(problem, x, u, LIMITS[platform].windows / (itemsize(problem) * elements), group, hops)


def _layer_group(problem: Problem, x: Array, u: Array, sizes: list[int], precision) -> Array:
    ly, spatial = problem.layouts.y, problem.spatial
    hops = [n - axis.K + 1 for n, axis in zip(sizes, problem.axes, strict=True)]
    counts = [-(-axis.O // hop) for axis, hop in zip(problem.axes, hops, strict=True)]
    windows = _windows(problem, x, sizes, hops, counts)  # n g c, blocks, positions
    blocks = "ABC"[: len(spatial)]
    z = multiply(
        forward(windows, _along(sizes), problem.is_complex), "ngc" + blocks + spatial, u, "gmc" + spatial,
        "ngm" + blocks + spatial, precision,
    )  # fmt: skip
    z = inverse(z, _along(sizes), problem.is_complex)
    for d, hop in enumerate(hops):
        z = lax.slice_in_dim(z, 0, hop, axis=3 + len(hops) + d)
    # Blocks and their positions become neighbours, then one axis.
    order = []
    for letter in ly:
        order += (
            [3 + spatial.index(letter), 3 + len(hops) + spatial.index(letter)]
            if letter in spatial
            else ["ngm".index(letter)]
        )
    z = lax.transpose(z, order)
    long = dict(zip(spatial, (h * t for h, t in zip(hops, counts, strict=True)), strict=True))
    z = z.reshape([long.get(letter, size) for letter, size in zip(ly, problem.y_shape, strict=True)])
    return lax.slice(z, [0] * z.ndim, problem.y_shape)


def _kernel(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    sizes, spans, _ = _cut(problem)
    elements = problem.c * problem.g * (problem.n + problem.m) * prod(2 * axis.K for axis in problem.axes)
    hops = [n - span + 1 for n, span in zip(sizes, spans, strict=True)]
    group = partial(_kernel_group, sizes=sizes, precision=precision)
    z = over_sums(problem, x, w, LIMITS[platform].windows / (itemsize(problem) * elements), group, hops)
    z = inverse(z, _along(sizes), problem.is_complex)
    z = lax.slice(z, [0] * z.ndim, [*z.shape[:3], *spans])
    return lax.transpose(z, [("ngm" + problem.spatial).index(letter) for letter in problem.layouts.y])


def _kernel_group(problem: Problem, x: Array, w: Array, sizes: list[int], precision) -> Array:
    lw, spatial = problem.layouts.w, problem.spatial
    hops = [n - axis.O + 1 for n, axis in zip(sizes, problem.axes, strict=True)]
    counts = [-(-axis.K // hop) for axis, hop in zip(problem.axes, hops, strict=True)]
    windows = _windows(problem, x, sizes, hops, counts)
    w = lax.transpose(w, [lw.index(letter) for letter in "gmc" + spatial])
    ends = [(0, hop * count - axis.K) for axis, hop, count in zip(problem.axes, hops, counts, strict=True)]
    w = jnp.pad(w, [(0, 0)] * 3 + ends)
    w = w.reshape(*w.shape[:3], *(size for pair in zip(counts, hops, strict=True) for size in pair))
    d = len(hops)
    w = lax.transpose(w, [0, 1, 2, *range(3, 3 + 2 * d, 2), *range(4, 4 + 2 * d, 2)])
    w = jnp.pad(w, [(0, 0)] * (3 + d) + [(0, n - hop) for n, hop in zip(sizes, hops, strict=True)])
    blocks = "ABC"[:d]
    return multiply(
        forward(windows, _along(sizes), problem.is_complex), "ngc" + blocks + spatial,
        _reversed(w, sizes, problem.is_complex), "gmc" + blocks + spatial, "ngm" + spatial, precision,
    )  # fmt: skip


def _windows(problem: Problem, x: Array, sizes: list[int], hops: list[int], counts: list[int]) -> Array:
    """v in overlapping windows: n g c, then the blocks of each axis, then the positions in them."""
    letters = "ngc" + problem.spatial
    v = lax.transpose(x, [problem.layouts.x.index(letter) for letter in letters])
    config = [(0, 0, 0)] * 3
    shifts = [-(-n // hop) for n, hop in zip(sizes, hops, strict=True)]
    for axis, n, hop, count, shift in zip(problem.axes, sizes, hops, counts, shifts, strict=True):
        length = n if count == 1 else hop * (count + shift - 1)
        config.append((axis.p, length - axis.p - axis.I, 0))
    v = lax.pad(v, jnp.zeros((), v.dtype), config)
    for d, (n, hop, count, shift) in enumerate(zip(sizes, hops, counts, shifts, strict=True)):
        place = 3 + 2 * d  # a block is its own hop, and the beginning of those that follow
        shape = v.shape
        if count == 1:
            v = lax.slice_in_dim(v, 0, n, axis=place).reshape(*shape[:place], 1, n, *shape[place + 1 :])
            continue
        v = v.reshape(*shape[:place], -1, hop, *shape[place + 1 :])
        parts = [lax.slice_in_dim(v, j, j + count, axis=place) for j in range(shift)]
        parts[-1] = lax.slice_in_dim(parts[-1], 0, n - hop * (shift - 1), axis=place + 1)
        v = jnp.concatenate(parts, place + 1) if shift > 1 else parts[0]
    d = len(hops)
    return lax.transpose(v, [0, 1, 2, *range(3, 3 + 2 * d, 2), *range(4, 4 + 2 * d, 2)])


def _along(sizes: list[int]) -> dict[int, int]:
    """The lengths of the transforms along the last axes."""
    return {d - len(sizes): n for d, n in enumerate(sizes) if n > 1}


def _reversed(array: Array, sizes: list[int], is_complex: bool) -> Array:
    """The transform at negative frequencies: that of the array read backwards."""
    return forward(array.conj(), _along(sizes), is_complex).conj()


# As for fft, with the block's transform; norms of blocks are at most those of x and w. In the
# kernel's form the products of the blocks are summed first: the windows overlap, each position
# of x in at most ceil(N / V) of them along an axis.
def error(problem: Problem) -> tuple[float, float]:
    return 0.0, max(map(_error, dict.fromkeys(units(problem))), default=0.0)


def _error(problem: Problem) -> float:
    """The factor b of a unit."""
    layer = problem.is_layer
    sizes, spans, positions = _cut(problem)
    blocks = prod(-(-count // (n - span + 1)) for n, span, count in zip(sizes, spans, positions, strict=True))
    e = transform_error([n for n in sizes if n > 1])
    shorter = prod(min(axis.K, axis.I) for axis in problem.axes)
    if layer:
        return 2 * e + 4.0 * (problem.c + 3) + sqrt(shorter) * e
    repeated = sqrt(prod(-(-n // (n - span + 1)) for n, span in zip(sizes, spans, strict=True)))
    return repeated * (2 * e + 4.0 * (problem.c * blocks + 3) + sqrt(shorter) * e)


def _run(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    return (_layer if problem.is_layer else _kernel)(problem, x, w, precision, platform)


OVERLAP = Engine("overlap", never, refusal, work, memory, runner(_run, by_units), error, TRANSFORMED)
