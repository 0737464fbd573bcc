"""shifts: the sum over kernel positions of the shifted input times one kernel entry.

    y[o] = sum over k of v[S*o + D*k] * w[k],   v = x with p before

Each term is a (strided) slice of v, multiplied and summed over c; without channels XLA
fuses the terms into one pass over memory. Where there are fewer outputs than kernel
positions, as in the kernel pass of a layer, the other sum is the shorter one: one
output at a time, a slice of v against the whole of w. With few features that is done in
strips, with an accumulator for each output that is short enough for the nearest cache,
and summed over its remaining positions at the end; where the features are innermost, the
terms along one axis are written out, and summed for all outputs along it in one pass.

Nothing but slices, products and sums, so it serves every dtype on every platform. A
bounded number of terms is written out; beyond that a loop runs over them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from math import gcd, lcm, prod

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxconv.engines.base import (
    LIMITS,
    Engine,
    Form,
    accumulator,
    all_products,
    always,
    apart,
    array_bytes,
    compiled,
    elements,
    itemsize,
    kinds_of,
    launches,
    multiplier,
    multiply,
    padded,
    padded_elements,
    pairwise,
    spread,
    summation_error,
    window,
    zeros,
)
from jaxconv.engines.blocks import divisor, over_rows, over_sums
from jaxconv.engines.polyphase import formed, phase_count, woven
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.processor import processor

NARROW = 16  # channels that are written out, of which every pair is a product of its own
UNROLLED = 64  # products or outputs that are written out
PRODUCT, LOOP = 6, 40  # terms that take as long to compile as a product with its window, and as a loop of these
WRITTEN = 4  # taps on CPU, where XLA compiles a loop for the window of each
ACCUMULATED = 8192  # elements of an accumulator
LANES = 32  # features that are worth a loop along them
TERMS, KEPT = 64, 1 << 19  # products that such a loop adds up; elements that all of them write
SHARED = 1 << 17  # products that are worth other threads
EVEN, SHORT = lcm(192, processor().cores), 1 << 12  # what threads divide; a vector that is not shared among them
STREAMED = 1 << 21  # elements of an image that is read from memory
STREAMS = 16  # products that are added to it at a time
PAGE, LINE, WAYS = 4096, 64, 8  # bytes of a page and of a cache line; lines in a set of a core's nearest cache


def refusal(problem: Problem, platform: str | None) -> str | None:
    return None


def _counted(problem: Problem, branches: float) -> dict[str, float]:
    """The work on CPU that every form has; `branches` are the terms that are written out, or what takes as long."""
    products = all_products(problem)
    common = {"call": 1.0, "shared": float(products > SHARED), "products": products, "elements": elements(problem)}
    return common | woven(problem) | compiled(float(phase_count(problem)), branches)


def _held(problem: Problem, numbers: float) -> float:
    """Bytes of the padded input, of so many numbers, and of the phases' outputs before they are woven."""
    weaving = 2 * prod(problem.y_shape) if any(abs(axis.L) != 1 for axis in problem.axes) else 0
    return itemsize(problem) * (padded_elements(problem) + weaving + numbers)


# ---- few taps and features: all terms in one pass over memory, or in one for each part, which is added


def _fused_work(problem: Problem, platform: str, precision) -> dict[str, float]:
    products = all_products(problem)
    if platform != "cpu":
        phases, size = phase_count(problem), itemsize(problem)
        terms, part = _terms_of_parts(problem, platform)
        parts = -(-terms // part)
        moved = array_bytes(problem) + (parts - 1) * size * (prod(problem.x_shape) + 3 * prod(problem.y_shape))
        return launches(phases * (3.0 * parts - 2), moved, products, "shifted", trips=max(0.0, parts - 2.0))
    strided = any(abs(axis.S) != 1 for axis in problem.axes)
    form = "fused" + (" by features" if problem.c * problem.m > 1 else "") + (" with stride" if strided else "")
    last, (terms, part) = _innermost(problem), _terms_of_parts(problem, platform)
    counts = _counted(problem, float(part * phase_count(problem))) | {
        form: products,
        f"{form}, short rows": products / problem.y_shape[problem.layouts.y.index(last)],
        "loops": prod(problem.y_shape) * (-(-terms // part) - 1.0),
    }
    if problem.c * problem.m > 1 and last in "gm":
        counts["narrow features"] = products / (problem.g * problem.m)
    return counts


def _terms_of_parts(problem: Problem, platform: str) -> tuple[int, int]:
    """(terms of one phase, terms of a part of them that is one loop)."""
    terms, limits = -(-problem.taps // phase_count(problem)) * problem.c, LIMITS[platform]
    reads = 2 if platform == "cpu" and _innermost(problem) in "gm" else 1  # of a term: x, and along features w too
    return terms, terms if reads * terms <= limits.fused else limits.part // reads


def _innermost(problem: Problem) -> str:
    """The innermost letter of y that is long."""
    long = [letter for letter, size in zip(problem.layouts.y, problem.y_shape, strict=True) if size > 1]
    return long[-1] if long else "m"


def _fused_memory(problem: Problem, platform: str) -> float:
    terms, part = _terms_of_parts(problem, platform)
    of_parts = padded_elements(problem) + prod(problem.y_shape) if part < terms and platform == "cpu" else 0.0
    vector = prod(problem.y_shape) if platform == "cpu" and _is_vector(problem) else 0
    return _held(problem, prod(problem.w_shape) + of_parts + vector)


def _in_parts(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    terms, part = _terms_of_parts(problem, platform)
    share, block = part / terms, partial(_fused, platform=platform)
    if platform != "cpu":
        return _apart(over_sums(problem, x, w, share, block, add=_next))
    if share < 1:  # padded in each part anew, some of its terms would read x without the padding, number by number
        x = padded(problem, x)
        axes = (Axis(a.S * (a.O - 1) + a.D * (a.K - 1) + 1, a.K, a.O, 1, a.S, a.D) for a in problem.axes)
        problem = replace(problem, axes=tuple(axes))
    if _is_vector(problem):
        return _vector(problem, x, w, partial(over_sums, size=share, run=block))
    return over_sums(problem, x, w, share, block)


def _is_vector(problem: Problem) -> bool:
    """Whether y is long along one axis only."""
    return prod(problem.y_shape) == max(problem.y_shape, default=1) > SHORT


# XLA gives each thread a part of the outermost long axis. Where that is the only one, and the threads do not divide it,
# LLVM makes no vectors of the parts.
def _vector(problem: Problem, x: Array, w: Array, run: Callable) -> Array:
    """y of one long axis, by `run` for a multiple of EVEN outputs, in a computation that XLA fuses with nothing."""
    axes = tuple(replace(axis, O=-(-axis.O // EVEN) * EVEN if axis.O > 1 else 1) for axis in problem.axes)
    if axes == problem.axes:
        return run(problem, x, w)
    y = apart(partial(run, replace(problem, axes=axes)))(x, w)
    return lax.slice(y, [0] * y.ndim, problem.y_shape)


# ---- few taps, many features: a product of all of them for each tap


def _taps_work(problem: Problem, platform: str, precision) -> dict[str, float]:
    products, size = all_products(problem), itemsize(problem)
    if platform != "cpu":
        phases = phase_count(problem)
        taps = -(-problem.taps // phases)
        moved = 3.5 * taps * size * (prod(problem.x_shape) + prod(problem.y_shape))
        trips = taps if taps > UNROLLED else 0.0
        return launches(4.0 * phases * taps, moved, products, multiplier(problem, precision), trips=trips)
    phases = phase_count(problem)
    written = -(-problem.taps // phases)
    return _counted(problem, float(phases * (PRODUCT * written if written <= WRITTEN else LOOP))) | {
        "taps": products,
        "terms": float(problem.taps),
        "sums": problem.taps * prod(problem.y_shape) + 0.0,
        "taps, narrow": products / min(problem.c, problem.m),
    }


def _taps_memory(problem: Problem, platform: str) -> float:
    return _held(problem, prod(problem.w_shape) + min(problem.taps, UNROLLED) * prod(problem.y_shape))


# ---- few outputs and features, on CPU: accumulators


def _strips_work(problem: Problem, platform: str, precision) -> dict[str, float]:
    return _kept_work(problem, "accumulated", "strips")


def _lanes_work(problem: Problem, platform: str, precision) -> dict[str, float]:
    return _kept_work(problem, "along lanes", "lanes")


def _kept_work(problem: Problem, form: str, pieces: str) -> dict[str, float]:
    products = all_products(problem)
    form += " by features" if problem.n * problem.m > 1 else ""
    strips = problem.g * problem.n * problem.m * problem.c * problem.taps / STREAMS / ACCUMULATED
    row = problem.w_shape[-1] if problem.layouts.w[-1] in problem.spatial else problem.g * problem.n * problem.m
    if pieces == "strips":
        written = problem.outputs * min(problem.taps, STREAMS)
    else:  # along one axis for all outputs there
        along = problem.axes[problem.spatial.index(_summed_first(problem))]
        written = problem.outputs // along.O * min(along.K, TERMS)
    return _counted(problem, float(written)) | {
        form: products,
        f"{form}, short rows": products / row,
        pieces: problem.outputs * (strips + 1),
    }


def _strips_memory(problem: Problem, platform: str) -> float:
    return _held(problem, prod(problem.w_shape))


def _lanes_memory(problem: Problem, platform: str) -> float:
    return _held(problem, prod(problem.w_shape) + 2 * max(_kept(problem), min(KEPT, problem.c * _kept(problem))))


# ---- few outputs: a product of windows for each


def _outputs_work(problem: Problem, platform: str, precision) -> dict[str, float]:
    products, outputs = all_products(problem), problem.outputs
    windows = outputs * problem.n * problem.g * problem.c * problem.taps
    if platform == "cpu":
        return (
            _counted(problem, float(PRODUCT * outputs if outputs <= UNROLLED else LOOP))
            | {
                "outputs": products,
                "outputs, narrow": products / min(problem.n, problem.m),
                "windows": windows + 0.0,
            }
            | {"terms": float(outputs)}
        )
    size, loop = itemsize(problem), {"trips": outputs + 0.0} if outputs > UNROLLED else {}
    x, w = size * prod(problem.x_shape), size * prod(problem.w_shape)
    if problem.n * problem.m == 1:  # products that are summed, in one kernel, or in one for each output
        passes = outputs if loop else 1.0
        return launches(2.0 * passes, passes * (x + w), products, "summed", **loop)
    moved = 2 * size * windows + outputs * w
    return launches(3.0 * outputs, moved, products, multiplier(problem, precision), **loop)


def _outputs_memory(problem: Problem, platform: str) -> float:
    if platform != "cpu" and problem.n * problem.m == 1 and problem.outputs <= UNROLLED:
        return _held(problem, -padded_elements(problem))  # one kernel makes and sums the products
    return _held(problem, min(problem.outputs, UNROLLED) * problem.n * problem.g * problem.c * problem.taps)


def _accumulates(problem: Problem, platform: str) -> bool:
    narrow = problem.n * problem.m <= NARROW**2 and problem.c <= 4 * STREAMS
    return platform == "cpu" and narrow and 1 < problem.outputs <= UNROLLED


def _terms(problem: Problem, v: Array, w: Array, precision):
    """term(k) for each kernel position k, whose entries may be traced."""
    lx, lw, ly = problem.layouts
    O, S, D = ([getattr(axis, name) for axis in problem.axes] for name in "OSD")
    w, lw = _spatial_first(problem, w, lw)

    def term(k) -> Array:
        shifted = _read(problem, v, [d * j for d, j in zip(D, k, strict=True)], O, S)
        return multiply(shifted.astype(w.dtype), lx, w[tuple(k)], lw, ly, precision)

    return term


# Addresses that are a whole number of pages apart share one set of a core's nearest cache, which
# holds WAYS lines: more terms than that, each on a line of its own there, and every read misses.
def _staggered(problem: Problem, x: Array) -> tuple[Problem, Array]:
    """`padded`, with a line more in the rows where the reads of one output would crowd a set of the cache.

    The Problem that is returned has as many outputs more. (Of rows that nothing reads to their end, XLA
    would leave the end away.)
    """
    sizes, itemsize = dict(zip(problem.layouts.x, x.shape, strict=True)), x.dtype.itemsize
    for letter, axis in zip(problem.spatial, problem.axes, strict=True):
        sizes[letter] = axis.S * (axis.O - 1) + axis.D * (axis.K - 1) + 1
    shape = list(sizes.values())
    strides = {c: prod(shape[d + 1 :]) * itemsize for d, c in enumerate(sizes)}
    steps = [axis.D * strides[c] for c, axis in zip(problem.spatial, problem.axes, strict=True)]
    taps = product(*(range(axis.K) for axis in problem.axes))
    lines = {sum(step * j for step, j in zip(steps, k, strict=True)) // LINE for k in taps}
    crowd = max(Counter(line % (PAGE // LINE) for line in lines).values())
    line = LINE // itemsize
    rows = [c for c, size in sizes.items() if size >= line]
    if not rows or crowd <= WAYS:
        return problem, padded(problem, x)
    if rows[-1] not in problem.spatial:
        return problem, padded(problem, x, {rows[-1]: line})
    axes = [
        replace(axis, O=axis.O + -(-line // axis.S)) if c == rows[-1] else axis
        for c, axis in zip(problem.spatial, problem.axes, strict=True)
    ]
    problem = replace(problem, axes=tuple(axes))
    return problem, padded(problem, x)


def _read(problem: Problem, v: Array, starts, counts, steps) -> Array:
    """A window of v, without the features that `_staggered` adds."""
    entries = window(problem.layouts.x, v, starts, counts, steps)
    extents = [getattr(problem, c) if c in "ngc" else n for c, n in zip(problem.layouts.x, entries.shape, strict=True)]
    return lax.slice(entries, [0] * entries.ndim, extents)


def _fused(problem: Problem, x: Array, w: Array, platform: str) -> Array:
    lx, lw, ly = problem.layouts
    features = "".join(letter for letter in ly if letter in "gm")
    if platform == "cpu" and problem.c * problem.m > 1:
        # The innermost loop runs along features, and must not read w with a stride: it is brought into
        # the order of y. By a loop, since XLA would fuse a mere transpose into every product.
        w, lw = _spatial_first(problem, w, lw)
        tap, lw = lw, problem.spatial + "c" + features
        shape = [axis.K for axis in problem.axes]
        w = lax.map(
            lambda one: lax.transpose(one, [tap.index(c) for c in "c" + features]),
            w.reshape(-1, *w.shape[len(shape) :]),
        )
        w = w.reshape(*shape, *w.shape[1:])
    (wider, v), terms = _staggered(problem, x) if platform == "cpu" else (problem, padded(problem, x)), []
    part = replace(wider, c=1, layouts=Triple(lx, lw, ly))
    for c in range(problem.c):
        of_c = lax.slice_in_dim(v, c, c + 1, axis=lx.index("c"))
        term = _terms(part, of_c, lax.slice_in_dim(w, c, c + 1, axis=lw.index("c")), None)
        terms += [term(k) for k in product(*(range(axis.K) for axis in problem.axes))]
    y = lax.slice(pairwise(terms), [0] * len(ly), problem.y_shape)
    return _apart(y) if platform == "cpu" else y


def _next(y: Array, part: Array) -> Array:
    """A part more: its terms are added in the kernel that makes them, and not fused with those before."""
    return lax.optimization_barrier(y) + part


# Many terms that are fused with what a program does with their sum may be computed again and again: 500 ms
# instead of 15 for a normalised template match. XLA fuses nothing across a change of precision.
def _apart(y: Array) -> Array:
    """y: rounded to its own precision, which is the identity."""
    if not jnp.issubdtype(y.dtype, jnp.floating):
        return y
    info = jnp.finfo(y.dtype)
    return lax.reduce_precision(y, info.nexp, info.nmant)


def _over_taps(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    v = padded(problem, x.astype(w.dtype))
    K = [axis.K for axis in problem.axes]
    term = _terms(problem, v, w, precision)
    if platform != "cpu" and prod(K) <= UNROLLED:  # one after the other: all at once would hold as many results
        first, *others = product(*map(range, K))
        y = term(first)
        for k in others:
            v, y = lax.optimization_barrier((v, y))
            y = y + _terms(problem, v, w, precision)(k)
        return y
    if prod(K) <= WRITTEN:
        return pairwise([term(k) for k in product(*map(range, K))])
    return lax.fori_loop(1, prod(K), lambda t, y: y + term(jnp.unravel_index(t, K)), term([0] * len(K)))


def _over_outputs(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    v = padded(problem, x.astype(w.dtype))
    lx, lw, ly = problem.layouts
    K, O, S, D = ([getattr(axis, name) for axis in problem.axes] for name in "KOSD")
    point = "".join(letter for letter in ly if letter not in problem.spatial)

    def read(o, v=v) -> Array:
        return window(lx, v, [s * j for s, j in zip(S, o, strict=True)], K, D)

    def output(o, v=v) -> Array:
        return multiply(read(o, v), lx, w, lw, point, precision)

    if platform != "cpu" and prod(O) <= UNROLLED and problem.n * problem.m > 1:  # likewise
        results = []
        for o in product(*map(range, O)):
            results.append(output(o, v))
            v, results[-1] = lax.optimization_barrier((v, results[-1]))
        y = jnp.stack(results)
    elif platform != "cpu" and prod(O) <= UNROLLED:  # the products side by side, before g, so that one kernel sums all
        factor, at = spread(w, lw.replace("m", "n"), lx), lx.index("g")
        y = jnp.stack([read(o) * factor for o in product(*map(range, O))], at).sum(
            [d + (d >= at) for d, c in enumerate(lx) if c != "g"]
        )
        y = jnp.expand_dims(y, [1 + d for d, c in enumerate(point) if c != "g"])
    elif prod(O) <= UNROLLED:
        y = jnp.stack([output(o) for o in product(*map(range, O))])
    else:
        y = lax.map(lambda t: output(jnp.unravel_index(t, O)), np.arange(prod(O)))
    y = y.reshape(*O, *y.shape[1:])
    return lax.transpose(y, [(problem.spatial + point).index(letter) for letter in ly])


def _has_lanes(problem: Problem, platform: str) -> bool:
    """Whether g, n and m are innermost and long, too, so that the vectors of a processor lie along them."""
    if not _accumulates(problem, platform):
        return False
    features = problem.g * problem.n * problem.m
    streamed = features * problem.taps > STREAMED and problem.outputs < 10  # from memory, for few outputs
    much = _kept(problem) > max(KEPT, 2 * elements(problem))
    return problem.layouts.w[-1] not in problem.spatial + "c" and features >= LANES and not streamed and not much


def _summed_first(problem: Problem) -> str:
    """The kernel's innermost axis, of those that are long."""
    longest = max(axis.K for axis in problem.axes)
    long = [c for c, axis in zip(problem.spatial, problem.axes, strict=True) if longest <= 2 * axis.K]
    return max(long, key=problem.layouts.w.index)


def _kept(problem: Problem) -> float:
    """Elements of the sums of one c: all outputs, at all kernel positions of the other axes."""
    others = problem.taps / problem.axes[problem.spatial.index(_summed_first(problem))].K
    return problem.g * problem.n * problem.m * problem.outputs * others


# The innermost kernel axis is summed term by term, for all outputs along it at once: one fused loop as
# in `_fused` for each output of the other axes. Their positions are kept, and summed at the end. (In
# the same loop, XLA would go through the positions one number at a time.)
def _along_lanes(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    lx, lw, ly = problem.layouts
    letter = _summed_first(problem)
    along, layout = problem.spatial.index(letter), lw.replace("m", "nm")
    K, O, S, D = ([getattr(axis, name) for axis in problem.axes] for name in "KOSD")
    others = list(product(*([0] if d == along else range(n) for d, n in enumerate(O))))
    # A few groups of zeros more, where the terms along the axis would crowd a set of the cache.
    line = LINE // w.dtype.itemsize
    crowded = problem.n * problem.m == 1 and PAGE // gcd(problem.g * w.dtype.itemsize, PAGE) < WAYS
    added_groups = {"g": line} if crowded and problem.g >= 4 * line else {}
    shape = [dict(zip(lw, w.shape, strict=True)).get(c, problem.n) + added_groups.get(c, 0) for c in layout]
    shape[layout.index(letter)] = O[along]
    count = divisor(problem.c, int(KEPT * problem.c / (len(others) * prod(shape))))
    shape[layout.index("c")] = count
    pieces = max(-(-K[along] // TERMS), 1 + (count == problem.c))  # XLA unrolls a loop of one, and fuses its sums
    pieces = min(pieces, K[along])
    length, rest = divmod(K[along], pieces)

    def added(i, sums, start, pieces, length):
        j, c = start + i % pieces * length, i // pieces * count
        reach = D[along] * (length - 1) + S[along] * (O[along] - 1) + 1
        of_x = padded(problem, lax.dynamic_slice_in_dim(x, c, count, lx.index("c")), added_groups)
        of_x = lax.dynamic_slice_in_dim(of_x, D[along] * j, reach, lx.index(letter))
        of_w = lax.dynamic_slice_in_dim(w, j, length, lw.index(letter))
        of_w = lax.dynamic_slice_in_dim(of_w, c, count, lw.index("c"))
        of_w = lax.pad(of_w, jnp.zeros((), w.dtype), [(0, added_groups.get(c, 0), 0) for c in lw])

        def total(o, of_x, of_w) -> Array:
            terms, counts, steps = [], K.copy(), D.copy()
            at = [s * a for s, a in zip(S, o, strict=True)]
            counts[along], steps[along] = O[along], S[along]
            for t in range(length):
                at[along] = D[along] * t
                entry = lax.slice_in_dim(of_w, t, t + 1, axis=lw.index(letter))
                terms.append(multiply(window(lx, of_x, at, counts, steps), lx, entry, lw, layout))
            return pairwise(terms)

        def added_to(sums, of_x, of_w):
            return [a + total(o, of_x, of_w) for a, o in zip(sums, others, strict=True)]

        return apart(added_to)(sums, of_x, of_w)

    sums = [zeros(shape, w) for _ in others]
    if rest:
        step = partial(added, start=pieces * length, pieces=1, length=rest)
        sums = lax.fori_loop(0, problem.c // count, step, sums)
    step = partial(added, start=0, pieces=pieces, length=length)
    sums = lax.fori_loop(0, pieces * problem.c // count, step, sums)
    summed = [d for d, c in enumerate(layout) if c in problem.spatial + "c" and c != letter]
    y = jnp.stack([a.sum(summed) for a in sums])
    y = y.reshape(*[n for d, n in enumerate(O) if d != along], *y.shape[1:])
    kept = problem.spatial.replace(letter, "") + "".join(c for d, c in enumerate(layout) if d not in summed)
    y = lax.slice_in_dim(y, 0, problem.g, axis=kept.index("g"))
    return lax.transpose(y, [kept.index(c) for c in ly])


# The sum for one output is elementwise over g, n and m and goes over c and k. A strip of the
# terms (some rows) is cut into pieces, which are multiplied by their windows and added; an
# accumulator holds what is left of k, and g, n and m.
def _accumulated(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    O = [axis.O for axis in problem.axes]
    streams = min(STREAMS, LIMITS["cpu"].fused // prod(O))
    terms = problem.g * problem.n * problem.m * problem.c * problem.taps
    rest = _accumulator_layout(problem)

    def finish(sums):
        return jnp.stack([a.sum([d for d, letter in enumerate(rest) if letter in problem.spatial]) for a in sums])

    strip = partial(_strip, streams=streams)
    y = over_rows(problem, x, w, streams * ACCUMULATED / terms, strip, finish)
    letters = "".join(letter for letter in rest if letter in "gnm")
    layout = problem.spatial + letters + "".join(letter for letter in "nm" if letter not in letters)
    y = y.reshape(*O, *y.shape[1:], *[1] * (len(problem.layouts.y) - len(O) - len(letters)))
    return lax.transpose(y, [layout.index(letter) for letter in problem.layouts.y])


def _accumulator_layout(problem: Problem) -> str:
    features = "nm" if problem.n * problem.m > 1 else ""
    return problem.layouts.w.replace("c", "").replace("m", features)


def _strip(problem: Problem, x: Array, w: Array, streams: int) -> tuple[Array, ...]:
    outputs = partial(_strip_outputs, problem, streams)
    return apart(outputs)(x, w) if problem.n * problem.m == 1 else outputs(x, w)


def _strip_outputs(problem: Problem, streams: int, x: Array, w: Array) -> tuple[Array, ...]:
    lx, lw = problem.layouts.x, problem.layouts.w
    K, O, S, D = ([getattr(axis, name) for axis in problem.axes] for name in "KOSD")
    v, layout = padded(problem, x), _accumulator_layout(problem)
    if problem.n * problem.m == 1:
        v, w = jnp.squeeze(v, lx.index("n")), jnp.squeeze(w, lw.index("m"))
        lx, lw = lx.replace("n", ""), lw.replace("m", "")
    pieces, streams = [], max(1, streams // problem.c)
    for extent in K:
        pieces.append(divisor(extent, streams))
        streams //= pieces[-1]
    lengths = [extent // q for extent, q in zip(K, pieces, strict=True)]

    def output(o) -> Array:
        terms = []
        for c, q in product(range(problem.c), product(*map(range, pieces))):
            k = [j * length for j, length in zip(q, lengths, strict=True)]
            at = [s * a + d * b for s, a, d, b in zip(S, o, D, k, strict=True)]
            of_x = lax.index_in_dim(window(lx, v, at, lengths, D), c, lx.index("c"), keepdims=False)
            of_w = lax.index_in_dim(window(lw, w, k, lengths, [1] * len(k)), c, lw.index("c"), keepdims=False)
            terms.append(multiply(of_x, lx.replace("c", ""), of_w, lw.replace("c", ""), layout))
        return pairwise(terms)

    return tuple(output(o) for o in product(*map(range, O)))


def _spatial_first(problem: Problem, w: Array, layout: str) -> tuple[Array, str]:
    """w with its spatial axes in front, and the layout of one of its taps."""
    tap = "".join(letter for letter in layout if letter not in problem.spatial)
    return lax.transpose(w, [layout.index(letter) for letter in problem.spatial + tap]), tap


# One product and one sum a term, in the accumulation type.
def error(problem: Problem) -> tuple[float, float]:
    return summation_error(problem, problem.terms), 0.0


FORMS = (
    Form(lambda problem, _: problem.is_layer and problem.c <= NARROW, _fused_work, _fused_memory, _in_parts),
    Form(lambda problem, _: problem.is_layer, _taps_work, _taps_memory, _over_taps),
    Form(_has_lanes, _lanes_work, _lanes_memory, _along_lanes),
    Form(_accumulates, _strips_work, _strips_memory, _accumulated),
    Form(lambda *_: True, _outputs_work, _outputs_memory, _over_outputs),
)
SHORT_ROWS, BY_FEATURES = ("", ", short rows"), ("", " by features")
KINDS = kinds_of(
    product=("taps", "outputs"),
    loop=[
        "narrow features",
        *(f"fused{of}{by}{rows}" for of in BY_FEATURES for by in ("", " with stride") for rows in SHORT_ROWS),
        *(f"{form}{of}{rows}" for form in ("accumulated", "along lanes") for of in BY_FEATURES for rows in SHORT_ROWS),
    ],
    cached=("loops", "sums", "taps, narrow", "outputs, narrow", "windows"),
    call=("shared",),
    trip=("terms", "strips", "lanes"),
)  # fmt: skip


# On an accelerator x is read in its own type, and widened within the kernel.
def _factors(problem: Problem, platform: str):
    return accumulator(problem) if platform == "cpu" else problem.dtypes.x, accumulator(problem)


SHIFTS = Engine("shifts", always, refusal, error=error, kinds=KINDS, **formed(FORMS, factors=_factors))
