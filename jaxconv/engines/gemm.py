"""gemm: matrix products of patches.

With L = 1, the positions that one output reads are v[S*o + D*k], v = x with p before. Written
side by side for some of the kernel's axes they are the rows of a matrix (im2col), and the
layer is its product with the kernel. There are two forms, by which is longer, kernel or output:

    layer        z[n,o,(k0,m)] = sum over (k1..,c) of patch[n,o,(k1..,c)] * w[(k1..,c),(k0,m)]
                 y[n,o,m]      = sum over k0 of z[n, o + D*k0, k0, m]
    its kernel   y[(o0,n),(o1,m)] = sum over (c,k0,t1) of window[(c,k0,t1),(o0,n)] * shifted[(c,k0,t1),(o1,m)]

The first axis of a layer is summed after the product (if it has no stride), so that its
patches are K0 times smaller. Where the inputs are few beside the features, so that most of
what is read is the kernel, all axes are: each tap is multiplied as it lies in w, without a copy.
A loop over blocks of images, or of rows of one, keeps patches and products in cache: a patch
matrix that is written to memory costs more than its product.
"""

from dataclasses import replace
from functools import partial
from itertools import combinations
from math import prod

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.engines.base import (
    LIMITS,
    Engine,
    Form,
    accumulator,
    all_products,
    array_bytes,
    beside,
    compiled,
    elements,
    itemsize,
    kinds_of,
    launches,
    multiplier,
    multiply,
    operand,
    padded,
    padded_along,
    padded_elements,
    pairwise,
    summation_error,
    tiled,
    window,
)
from jaxconv.engines.blocks import over_outputs, over_sums
from jaxconv.engines.polyphase import formed, phase_count, woven
from jaxconv.problem import Problem

COPIES = 64  # of x or w that are written out
NARROW = 48  # rows that are shorter are not split further
FEW = 4  # times as many features as inputs: of so few, all taps are multiplied before they are summed


def refusal(problem: Problem, platform: str | None) -> str | None:
    count = _copies(problem)
    if count > COPIES:
        return f"gemm: its patches would be {count} shifted copies, and it makes {COPIES} at most; use method='shifts'."
    return None


# A shifted copy of w has zeros beside it, which are multiplied with all of x.
def elementwise(problem: Problem) -> bool:
    one = min(problem.taps, problem.outputs) <= 1
    return one or problem.is_layer or not _moved(_turned(problem))


def _has_few_inputs(problem: Problem) -> bool:
    """Whether there are so few inputs beside the features that most of what is read is the kernel."""
    unit = all(abs(axis.L) == abs(axis.S) == 1 for axis in problem.axes)
    small = itemsize(problem) * _columns_elements(problem) <= LIMITS["cpu"].layer
    return problem.is_layer and unit and small and FEW * _inputs(problem) <= problem.c


def _inputs(problem: Problem) -> int:
    return problem.n * prod(axis.I for axis in problem.axes)


def _copies(problem: Problem) -> int:
    """The windows of x, and of w, that stand side by side."""
    if min(problem.taps, problem.outputs) <= 1:
        return 1
    if _has_few_inputs(problem):
        return sum(axis.K for axis in problem.axes)
    if problem.is_layer:
        return prod(problem.axes[d].K for d in _layer_split(problem)[0])
    moved = _moved(_turned(problem))
    both = [prod(a.O for d, a in enumerate(problem.axes) if (d in moved) == side) for side in (False, True)]
    return sum(both)


def _turned(problem: Problem) -> Problem:
    return replace(problem, axes=tuple(axis.oriented(+1)[0] for axis in problem.axes))


def _counted(
    problem: Problem, platform: str, precision, form: str, rows: float, columns: float, between: float = 0.0,
    slices: float = 0, **extra: float,
) -> dict[str, float]:  # fmt: skip
    """The work of a form with so many numbers between: patches, products that are summed later, windows.

    `slices` are those that are written out in a phase.
    """
    products = all_products(problem)
    if platform != "cpu":
        phases, moved = phase_count(problem), operand(problem, platform).itemsize * between
        blocks = max(1.0, moved / _limit(problem, platform))
        pairs = products / (problem.c * problem.m) * tiled(problem.c) * tiled(problem.m)
        counts = launches(
            4.0 * phases * blocks, array_bytes(problem) + 2 * moved, pairs, multiplier(problem, precision)
        )
        return counts | {"trips": blocks - 1}
    counts = {"call": 1.0, "products": products, "elements": elements(problem), form: products}
    counts |= {f"{form}, over rows": products / rows, f"{form}, over columns": products / columns}
    counts |= {f"{form}, over both": products / (rows * columns)} | woven(problem) | extra
    phases = phase_count(problem)
    return counts | compiled(float(phases), float(phases * slices))


def _limit(problem: Problem, platform: str) -> int:
    """Bytes of a block."""
    return LIMITS[platform].layer if problem.is_layer else LIMITS[platform].kernel


def _product_work(problem: Problem, platform: str, precision) -> dict[str, float]:
    rows, extra = problem.n if problem.outputs == 1 else problem.c, {"matrices": problem.g + 0.0}
    if any(abs(axis.S * axis.D) > 1 or axis.p for axis in problem.axes):
        extra["window"] = problem.n * problem.g * problem.c * max(problem.taps, problem.outputs) + 0.0
    if problem.g > 1 and problem.layouts.x[0] != "g":
        extra["inner groups"] = elements(problem)
    return _counted(problem, platform, precision, "product", rows, problem.m, **extra)


def _layer_work(problem: Problem, platform: str, precision) -> dict[str, float]:
    patched, summed = _layer_split(problem)
    rows = problem.c * prod(problem.axes[d].K for d in patched)
    columns = problem.m * prod(problem.axes[d].K for d in summed)
    between = problem.g * _layer_elements(problem)
    blocks = problem.g * (1 + itemsize(problem) * between / LIMITS["cpu"].layer)
    extra = {f"patches{_by_groups(problem)}": between, "pieces": between / problem.c, "blocks": blocks}
    if problem.layouts.w.index("m") < problem.layouts.w.index("c"):
        extra["kernel moved"] = prod(problem.w_shape) + 0.0
    slices = sum(-(-axis.K // abs(axis.L)) for axis in problem.axes)
    return _counted(problem, platform, precision, "layer", rows, columns, between, slices, **extra)


def _columns_work(problem: Problem, platform: str, precision) -> dict[str, float]:
    products, slices = _columns_elements(problem), sum(axis.K for axis in problem.axes)
    extra = {"matrices": problem.g * problem.taps + 0.0, "scattered": products}
    return _counted(problem, platform, precision, "product", _inputs(problem), problem.m, products, slices, **extra)


def _columns_elements(problem: Problem) -> float:
    """The products of all taps with all inputs, that are summed afterwards."""
    return float(problem.taps * _inputs(problem) * problem.g * (problem.m + problem.c))


def _columns_memory(problem: Problem, platform: str) -> float:
    return 2 * itemsize(problem) * _columns_elements(problem)


def _kernel_work(problem: Problem, platform: str, precision) -> dict[str, float]:
    turned = _turned(problem)
    moved = _moved(turned)
    columns = problem.m * prod(problem.axes[d].O for d in moved)
    rows = problem.n * problem.outputs * problem.m // columns
    between = problem.g * _kernel_elements(turned, moved)
    blocks = problem.g * (1 + itemsize(problem) * between / LIMITS["cpu"].kernel)
    extra = {"windows by groups" if problem.g > 1 else "windows": between, "blocks": blocks}
    slices = sum(-(-axis.O // abs(axis.L)) for axis in problem.axes)
    return _counted(problem, platform, precision, "kernel", rows, columns, between, slices, **extra)


def _by_groups(problem: Problem) -> str:
    """How groups are multiplied: one after the other, and of a layer brought to the front before."""
    return "" if problem.g == 1 else " by groups" if problem.layouts.x[0] == "g" else " by inner groups"


def _held(problem: Problem, platform: str, between: float) -> float:
    """Bytes of a block's numbers between, and of the padded input where it is not cut."""
    size = itemsize(problem)
    padded_bytes = size * padded_elements(problem) if problem.n == 1 or problem.c == 1 else 0
    return 2 * min(float(_limit(problem, platform)), size * between) + padded_bytes


def _layer_memory(problem: Problem, platform: str) -> float:
    return _held(problem, platform, problem.g * _layer_elements(problem))


def _kernel_memory(problem: Problem, platform: str) -> float:
    turned = _turned(problem)
    return _held(problem, platform, problem.g * _kernel_elements(turned, _moved(turned)))


def _layers(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    size = LIMITS[platform].layer / (itemsize(problem) * problem.g * _layer_elements(problem))
    return over_outputs(problem, x, w, size, partial(_layer, precision=precision))


def _kernels(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    size = LIMITS[platform].kernel / (itemsize(problem) * problem.g * _kernel_elements(problem, _moved(problem)))
    return over_sums(problem, x, w, size, partial(_kernel, precision=precision))


def _product(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    """Where there is one tap, or one output: the product of w and one window."""
    lx, lw, ly = problem.layouts
    taps = problem.taps == 1
    counts = [axis.O if taps else axis.K for axis in problem.axes]
    steps = [axis.S if taps else axis.D for axis in problem.axes]
    v = window(lx, padded(problem, x), [0] * len(counts), counts, steps)
    if taps:
        w, lw = (
            w.reshape([size for size, c in zip(w.shape, lw, strict=True) if c in "gmc"]),
            "".join(c for c in lw if c in "gmc"),
        )
        return multiply(v, lx, w, lw, ly, precision, accumulator(problem))
    point = "".join(c for c in ly if c in "ngm")
    return multiply(v, lx, w, lw, point, precision, accumulator(problem)).reshape(problem.y_shape)


def _layer_elements(problem: Problem) -> int:
    outputs = problem.n * problem.outputs
    patched, summed = _layer_split(problem)
    return outputs * (
        problem.c * prod(problem.axes[d].K for d in patched) + (prod(problem.axes[d].K for d in summed)) * problem.m
    )


def _kernel_elements(problem: Problem, moved: tuple[int, ...]) -> int:
    """Of the windows of x and the shifted copies of w, of one group."""
    axes = problem.axes
    positions = prod(a.K + a.S * (a.O - 1) if d in moved else a.K for d, a in enumerate(axes))
    rows = problem.n * prod(a.O for d, a in enumerate(axes) if d not in moved)
    columns = problem.m * prod(axes[d].O for d in moved)
    return problem.c * positions * (rows + columns)


def _layer_split(problem: Problem) -> tuple[list[int], list[int]]:
    """(patched, summed): the axes whose taps stand side by side, and the one summed after the product."""
    d = list(range(len(problem.axes)))
    narrow = problem.c * prod(axis.K for axis in problem.axes[1:]) < NARROW
    if not d or problem.axes[0].S > 1 or problem.axes[0].K == 1 or narrow:
        return d, []
    return d[1:], d[:1]


def _layer(problem: Problem, x: Array, w: Array, precision) -> Array:
    lx, lw, ly = problem.layouts
    patched, summed = _layer_split(problem)
    axes = problem.axes
    v = padded(problem, x)
    if problem.g > 1:
        v, lx = jnp.moveaxis(v, lx.index("g"), 0), "g" + lx.replace("g", "")
        ly = "g" + ly.replace("g", "")
    # The taps' axis T stands before c; S is the tap that is summed after the product.
    cuts = {problem.spatial[d]: [(axes[d].D * k, axes[d].O, axes[d].S) for k in range(axes[d].K)] for d in patched}
    patches, lp = beside(v, lx, cuts, "c")
    order = [lw.index(c) for c in problem.spatial + "gcm"]
    w = lax.transpose(w, order).reshape(-1, prod(axes[d].K for d in patched), problem.g, problem.c, problem.m)
    place = ly.index("m")
    z = multiply(patches, lp, w, "STgcm", ly[:place] + "S" + ly[place:], precision, accumulator(problem))
    if not summed:
        return lax.transpose(z[(slice(None),) * place + (0,)], [ly.index(letter) for letter in problem.layouts.y])
    axis = axes[0]
    row = (ly[:place] + "S" + ly[place:]).index("0")
    rows = [
        lax.slice_in_dim(
            lax.index_in_dim(z, k, place, False), axis.D * k, axis.D * k + axis.O, axis=row - (row > place)
        )
        for k in range(axis.K)
    ]
    return lax.transpose(pairwise(rows), [ly.index(letter) for letter in problem.layouts.y])


def _columns(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    """Of an oriented Problem with L = S = 1: o = i + p - D*k, so each tap's products lie elsewhere in y."""
    (lx, lw, ly), spatial = problem.layouts, problem.spatial
    tap = "".join(letter for letter in lw if letter not in spatial)
    w = lax.transpose(w, [lw.index(letter) for letter in spatial + tap])
    w = w.reshape(problem.taps, *w.shape[len(spatial) :])
    z = multiply(jnp.broadcast_to(x, (problem.taps, *x.shape)), "T" + lx, w, "T" + tap, "T" + ly, precision,
                 accumulator(problem))  # fmt: skip
    for d, axis in reversed(list(enumerate(problem.axes))):
        z = z.reshape(-1, axis.K, *z.shape[1:])
        z = pairwise([padded_along(z[:, k], "T" + ly, spatial[d], axis.p - axis.D * k, axis.O) for k in range(axis.K)])
    return z[0]


# With windows of x for some of the outputs' axes, and shifted copies of w for the others,
#     y[(o0,n),(o1,m)] = sum over c, k0 and t1 of v[t1 + S*o0 + D*k0, n] * w[k0, t1 - S*o1, m],
# the patches are of two kinds, and each is smaller than one of both would be. w is shifted only where
# D = 1: its positions must be those of v.
def _kernel(problem: Problem, x: Array, w: Array, precision) -> Array:
    lx, lw, ly = problem.layouts
    axes, moved = problem.axes, _moved(problem)
    v = padded(problem, x)
    kept = [d for d in range(len(axes)) if d not in moved]
    cuts = {problem.spatial[d]: [(axes[d].S * o, axes[d].K, axes[d].D) for o in range(axes[d].O)] for d in kept}
    windows, lv = beside(v, lx, cuts, "n")
    low = {problem.spatial[d]: axes[d].S * (axes[d].O - 1) for d in moved}
    w = lax.pad(w, jnp.zeros((), w.dtype), [(low.get(c, 0), low.get(c, 0), 0) for c in lw])
    lengths = {d: v.shape[lx.index(problem.spatial[d])] for d in moved}
    cuts = {
        problem.spatial[d]: [(axes[d].S * (axes[d].O - 1 - o), lengths[d], 1) for o in range(axes[d].O)] for d in moved
    }
    shifted, lw = beside(w, lw, cuts, "m")
    z = multiply(windows, lv.replace("T", "P"), shifted, lw.replace("T", "Q"), "gPnQm", precision, accumulator(problem))
    z = z.reshape(problem.g, *(axes[d].O for d in kept), problem.n, *(axes[d].O for d in moved), problem.m)
    order = "g" + "".join(problem.spatial[d] for d in kept) + "n" + "".join(problem.spatial[d] for d in moved) + "m"
    return lax.transpose(z, [order.index(letter) for letter in ly])


def _moved(problem: Problem) -> tuple[int, ...]:
    """The axes for which copies of w are shifted: those that make the patches smallest."""
    able = [d for d, axis in enumerate(problem.axes) if axis.D == 1 and axis.O > 1][:3]
    return min(
        (some for count in range(len(able) + 1) for some in combinations(able, count)),
        key=lambda some: _kernel_elements(problem, some),
    )


def error(problem: Problem) -> tuple[float, float]:
    return summation_error(problem, problem.terms), 0.0


FORMS = (
    Form(lambda problem, _: min(problem.taps, problem.outputs) <= 1, _product_work, lambda *_: 0.0, _product),
    Form(lambda problem, _: _has_few_inputs(problem), _columns_work, _columns_memory, _columns),
    Form(lambda problem, _: problem.is_layer, _layer_work, _layer_memory, _layers),
    Form(lambda *_: True, _kernel_work, _kernel_memory, _kernels),
)
PRODUCTS = ("product", "layer", "kernel")
KINDS = kinds_of(
    product=PRODUCTS,
    loop=[f"{form}, over both" for form in PRODUCTS],
    cached=[
        "window", "kernel moved", "patches", "patches by groups", "patches by inner groups", "inner groups",
        "scattered", "pieces", "windows", "windows by groups",
        *(f"{form}, over {of}" for form in PRODUCTS for of in ("rows", "columns")),
    ],
    trip=("matrices", "blocks"),
)  # fmt: skip


def _factors(problem: Problem, platform: str):
    return operand(problem, platform), operand(problem, platform)


GEMM = Engine("gemm", elementwise, refusal, error=error, kinds=KINDS, **formed(FORMS, factors=_factors))
