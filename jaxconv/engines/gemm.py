"""gemm: matrix products of patches.

With L = 1, the positions that one output reads are v[S*o + D*k], v = x with p before. Written
side by side for some of the kernel's axes they are the rows of a matrix (im2col), and the
layer is its product with the kernel. There are two forms, by which is longer, kernel or output:

    layer        z[n,o,(k0,m)] = sum over (k1..,c) of patch[n,o,(k1..,c)] * w[(k1..,c),(k0,m)]
                 y[n,o,m]      = sum over k0 of z[n, o + D*k0, k0, m]
    its kernel   y[(n,o),m]    = sum over (c,k) of window[(n,o),(c,k)] * w[(c,k),m]

The first axis of a layer is summed after the product (if it has no stride), so that its
patches are K0 times smaller. A loop over blocks of images, or of rows of one, keeps patches
and products in cache: a patch matrix that is written to memory costs more than its product.
"""

from functools import partial
from itertools import product
from math import prod

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.engines.base import (
    Engine,
    accumulator,
    all_products,
    elements,
    itemsize,
    multiply,
    oriented,
    padded,
    padded_elements,
    pairwise,
    summation_error,
    window,
)
from jaxconv.engines.blocks import over_outputs, over_sums
from jaxconv.engines.phases import by_phases, woven
from jaxconv.problem import Problem

LAYER_BYTES, KERNEL_BYTES = 8 << 20, 4 << 20  # of what lies between, at a time: about the size of caches
NARROW = 48  # rows that are shorter are not split further


def refusal(problem: Problem, platform: str | None) -> str | None:
    return None


def work(problem: Problem) -> dict[str, float]:
    axes, products = problem.axes, all_products(problem)
    taps, outputs = prod(axis.K for axis in axes), prod(axis.O for axis in axes)
    found = {"call": 1.0, "products": products, "elements": elements(problem)}
    if min(taps, outputs) == 1:
        form, rows, columns = "product", problem.n if outputs == 1 else problem.c, problem.m
        found["matrices"] = problem.g + 0.0
    elif taps <= outputs:
        patched, summed = _layer_split(problem)
        form, rows = "layer", problem.c * prod(axes[d].K for d in patched)
        columns = problem.m * prod(axes[d].K for d in summed)
        between = problem.g * _layer_elements(problem)
        found |= {
            "patches": between,
            "pieces": between / problem.c,
            "blocks": problem.g * (1 + 4 * between / LAYER_BYTES),
        }
    else:
        patched, _ = _kernel_split(problem)
        form, rows, columns = "kernel", problem.n * prod(axes[d].O for d in patched), problem.m
        between = problem.g * _kernel_elements(problem)
        found |= {"windows": between, "sums": problem.g * (1 + 4 * between / KERNEL_BYTES) * outputs}
        found["row ends"] = between / max(axes[-1].K, 1)
    return (
        found
        | woven(problem)
        | {form: products, f"{form}, over rows": products / rows, f"{form}, over columns": products / columns}
    )


def memory(problem: Problem) -> float:
    taps = prod(axis.K for axis in problem.axes)
    outputs = prod(axis.O for axis in problem.axes)
    size = itemsize(problem)
    if min(taps, outputs) == 1:
        return 0.0
    if taps <= outputs:
        between = min(LAYER_BYTES * size / 4, size * problem.g * _layer_elements(problem))
    else:
        between = min(KERNEL_BYTES * size / 4, size * problem.g * _kernel_elements(problem))
    return 2 * between + (size * padded_elements(problem) if problem.n == 1 or problem.c == 1 else 0)


def run(problem: Problem, x: Array, w: Array, precision=None) -> Array:
    dtype = accumulator(problem)
    problem, w, finish = oriented(problem, w.astype(dtype), +1)
    y = by_phases(problem, x.astype(dtype), w, partial(_run, precision=precision))
    return finish(y).astype(problem.dtypes.y)


def _run(problem: Problem, x: Array, w: Array, precision) -> Array:
    taps = prod(axis.K for axis in problem.axes)
    outputs = prod(axis.O for axis in problem.axes)
    if min(taps, outputs) == 1:  # one product, no patches
        return _product(problem, x, w, precision)
    bytes_all = 4 * problem.g * (_layer_elements if taps <= outputs else _kernel_elements)(problem)
    if taps <= outputs:
        return over_outputs(problem, x, w, LAYER_BYTES / bytes_all, partial(_layer, precision=precision))
    return over_sums(problem, x, w, KERNEL_BYTES / bytes_all, partial(_kernel, precision=precision))


def _product(problem: Problem, x: Array, w: Array, precision) -> Array:
    """Where there is one tap, or one output: the product of w and one window."""
    lx, lw, ly = problem.layouts
    taps = prod(axis.K for axis in problem.axes) == 1
    counts = [axis.O if taps else axis.K for axis in problem.axes]
    steps = [axis.S if taps else axis.D for axis in problem.axes]
    v = window(lx, padded(problem, x), [0] * len(counts), counts, steps)
    if taps:
        w, lw = (
            w.reshape([size for size, c in zip(w.shape, lw, strict=True) if c in "gmc"]),
            "".join(c for c in lw if c in "gmc"),
        )
        return multiply(v, lx, w, lw, ly, precision)
    point = "".join(c for c in ly if c in "ngm")
    return multiply(v, lx, w, lw, point, precision).reshape(problem.y_shape)


def _layer_elements(problem: Problem) -> int:
    outputs = problem.n * prod(axis.O for axis in problem.axes)
    patched, summed = _layer_split(problem)
    return outputs * (
        problem.c * prod(problem.axes[d].K for d in patched) + (prod(problem.axes[d].K for d in summed)) * problem.m
    )


def _kernel_elements(problem: Problem) -> int:
    taps = problem.c * prod(axis.K for axis in problem.axes)
    return taps * (problem.n * prod(problem.axes[d].O for d in _kernel_split(problem)[0]) + problem.m)


def _layer_split(problem: Problem) -> tuple[list[int], list[int]]:
    """(patched, summed): the axes whose taps stand side by side, and the one summed after the product."""
    d = list(range(len(problem.axes)))
    narrow = problem.c * prod(axis.K for axis in problem.axes[1:]) < NARROW
    if not d or problem.axes[0].S > 1 or problem.axes[0].K == 1 or narrow:
        return d, []
    return d[1:], d[:1]


def _kernel_split(problem: Problem) -> tuple[list[int], list[int]]:
    d = list(range(len(problem.axes)))
    narrow = problem.n * prod(axis.O for axis in problem.axes[1:]) < NARROW
    return (d, []) if not d or narrow else (d[1:], d[:1])


def _layer(problem: Problem, x: Array, w: Array, precision) -> Array:
    lx, lw, ly = problem.layouts
    patched, summed = _layer_split(problem)
    axes = problem.axes
    v = padded(problem, x)
    K = [axis.K if d in patched else 1 for d, axis in enumerate(axes)]
    extents = [axis.O if d in patched else v.shape[lx.index(problem.spatial[d])] for d, axis in enumerate(axes)]
    steps = [axis.S if d in patched else 1 for d, axis in enumerate(axes)]
    taps = [
        window(lx, v, [axis.D * j for axis, j in zip(axes, k, strict=True)], extents, steps)
        for k in product(*map(range, K))
    ]
    # The taps' axis Q stands before c; T is the tap that is summed after the product.
    if problem.g > 1:
        taps = [jnp.moveaxis(tap, lx.index("g"), 0) for tap in taps]
        lx, ly = "g" + lx.replace("g", ""), "g" + ly.replace("g", "")
    place = lx.index("c")
    patches, lp = jnp.stack(taps, place), lx[:place] + "Q" + lx[place:]
    order = [lw.index(c) for c in problem.spatial[: len(summed)] + problem.spatial[len(summed) :] + "gcm"]
    w = lax.transpose(w, order).reshape(-1, prod(K), problem.g, problem.c, problem.m)
    place = ly.index("m")
    z = multiply(patches, lp, w, "TQgcm", ly[:place] + "T" + ly[place:], precision)
    if not summed:
        return lax.transpose(z[(slice(None),) * place + (0,)], [ly.index(letter) for letter in problem.layouts.y])
    axis = axes[0]
    row = (ly[:place] + "T" + ly[place:]).index("0")
    rows = [
        lax.slice_in_dim(
            lax.index_in_dim(z, k, place, False), axis.D * k, axis.D * k + axis.O, axis=row - (row > place)
        )
        for k in range(axis.K)
    ]
    return lax.transpose(pairwise(rows), [ly.index(letter) for letter in problem.layouts.y])


def _kernel(problem: Problem, x: Array, w: Array, precision) -> Array:
    lx, lw, ly = problem.layouts
    patched, separate = _kernel_split(problem)
    axes = problem.axes
    v = padded(problem, x)
    # Rows of n and outputs, columns of c and kernel positions: contracted last, as products like it.
    order = "gnc" + problem.spatial
    v = lax.transpose(v, [lx.index(letter) for letter in order])
    w = lax.transpose(w, [lw.index(letter) for letter in "gc" + problem.spatial + "m"])
    w = w.reshape(problem.g, -1, problem.m)
    K, S, D = ([getattr(axis, name) for axis in axes] for name in "KSD")
    results = []
    for first in range(axes[0].O if separate else 1):
        outputs = [range(axis.O) if d in patched else [first] for d, axis in enumerate(axes)]
        windows = [window(order, v, [s * j for s, j in zip(S, o, strict=True)], K, D) for o in product(*outputs)]
        patches = jnp.stack(windows, 1)
        patches = patches.reshape(problem.g, len(windows) * problem.n, -1)
        results.append(lax.dot_general(patches, w, (((2,), (1,)), ((0,), (0,))), precision=precision))
    O = [axis.O for axis in axes]
    y = jnp.stack(results, 1).reshape(problem.g, *O, problem.n, problem.m)
    return lax.transpose(y, [("g" + problem.spatial + "nm").index(letter) for letter in ly])


def error(problem: Problem) -> tuple[float, float]:
    return summation_error(problem, problem.terms), 0.0


GEMM = Engine("gemm", elementwise=True, refusal=refusal, work=work, memory=memory, run=run, error=error)
