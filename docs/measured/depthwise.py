"""Forms of the kernel gradient of a depthwise layer, timed on an accelerator; depthwise.txt has what came.

PYTHONPATH=.:scripts python3 docs/measured/depthwise.py
"""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from accelerator import operands
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from problems import LARGE, by_lax, name_of

from jaxconv.engines.base import padded, window
from jaxconv.problem import Problem
from jaxconv.tune import stopwatch


def by_sums(problem: Problem, x: jax.Array, w: jax.Array, how: str) -> jax.Array:
    """One sum an output ('plain'), or all products stacked, in front ('major') or before the channels ('minor')."""
    lx, lw, _ = problem.layouts
    K, O, S, D = ([getattr(axis, name) for axis in problem.axes] for name in "KOSD")
    v, g = padded(problem, x), lx.index("g")
    w = lax.transpose(w, [lw.replace("m", "n").index(c) for c in lx])
    starts = ([s * j for s, j in zip(S, o, strict=True)] for o in product(*map(range, O)))
    terms = [window(lx, v, start, K, D) * w for start in starts]
    summed = [d for d in range(x.ndim) if d != g]
    if how == "plain":
        y = jnp.stack([term.sum(summed) for term in terms])
    else:
        at = 0 if how == "major" else g
        y = jnp.stack(terms, at).sum([d + (d >= at) for d in summed])
    return y.reshape(problem.y_shape)


def by_pallas(
    problem: Problem, x: jax.Array, w: jax.Array, wide=32, channels=32, warps=4, blocks=1056, interpret=False
):
    """One pass: each program adds its share of the positions, `wide` of them by `channels` at a time."""
    lead = [1] * (2 - len(problem.axes))
    rows, columns = (lead + [axis.K for axis in problem.axes])[:2]
    height, width = (lead + [axis.I for axis in problem.axes])[:2]
    K, S, D = (lead + [getattr(axis, name) for axis in problem.axes] for name in "ODS")  # of the layer
    pads = [0] * len(lead) + [axis.p for axis in problem.axes]
    images, groups, taps = problem.c, problem.g, list(product(*map(range, K)))
    pieces, across = -(-columns // wide), -(-groups // channels)
    items = images * rows * pieces
    shares = min(items, max(1, blocks // across))
    length = -(-items // shares)

    def kernel(x_ref, w_ref, y_ref):
        g = pl.program_id(0) * channels + jnp.arange(channels, dtype=jnp.int32)
        share, lanes = pl.program_id(1), jnp.arange(wide, dtype=jnp.int32)

        def step(i, sums):
            item = share * length + i
            row, q = item // pieces, item % pieces * wide + lanes
            n, p = row // rows, row % rows
            inside = (q < columns) & (item < items)
            at = ((row * columns + q) * groups)[:, None] + g[None, :]
            of_w = triton.load(w_ref.at[at], mask=inside[:, None] & (g < groups)[None, :], other=0.0)
            found = []
            for (a, b), total in zip(taps, sums, strict=True):
                i, j = p * S[0] + a * D[0] - pads[0], q * S[1] + b * D[1] - pads[1]
                seen = inside & (i >= 0) & (i < height) & (j >= 0) & (j < width)
                at = (((n * height + i) * width + j) * groups)[:, None] + g[None, :]
                of_x = triton.load(x_ref.at[at], mask=seen[:, None] & (g < groups)[None, :], other=0.0)
                found.append(total + of_x.astype(jnp.float32) * of_w.astype(jnp.float32))
            return tuple(found)

        sums = lax.fori_loop(0, length, step, (jnp.zeros((wide, channels), jnp.float32),) * len(taps))
        for k, total in enumerate(sums):
            triton.store(y_ref.at[(share * len(taps) + k) * groups + g], total.sum(0), mask=g < groups)

    how = {"interpret": True} if interpret else {"compiler_params": triton.CompilerParams(num_warps=warps)}
    shape = jax.ShapeDtypeStruct((shares * len(taps) * groups,), jnp.float32)
    y = pl.pallas_call(kernel, grid=(across, shares), out_shape=shape, **how)(x.reshape(-1), w.reshape(-1))
    return y.reshape(shares, -1).sum(0).reshape(problem.y_shape)


if __name__ == "__main__":
    kernels = [name for name in LARGE if "depthwise" in name_of(name) and name_of(name).endswith("kernel gradient")]
    blocks = [
        {},
        dict(channels=64),
        dict(channels=64, wide=16),
        dict(channels=64, warps=8),
        dict(channels=128, wide=16),
    ]
    for problem in kernels[:3]:
        x, w = operands(problem)
        expected = np.asarray(by_lax(problem)(x, w))
        forms = {"lax": by_lax(problem)} | {
            how: partial(by_sums, problem, how=how) for how in ("plain", "major", "minor")
        }
        for name, form in (forms | {f"pallas {how}": partial(by_pallas, problem, **how) for how in blocks}).items():
            once = stopwatch(form, x, w)
            off = np.linalg.norm(np.asarray(jax.jit(form)(x, w)) - expected) / np.linalg.norm(expected)
            print(name_of(problem), name, [round(1e6 * once()) for _ in range(4)], f"us, off by {off:.1e}", flush=True)
