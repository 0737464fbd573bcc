"""What an engine is, and the few moves that several engines share.

An engine is one algorithm for `y = contract(problem, x, w)`. It says when it cannot
(`refusal`), how much work it would be (`work`), how exact it is (`error`), and it
computes (`run`). It never chooses; the planner does, and computes nothing.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxconv.problem import SPATIAL, Problem
from jaxconv.processor import processor


@dataclass(frozen=True)
class Engine:
    """One algorithm.

    name: what `method=` calls it.
    elementwise: problem -> whether its error is bounded element by element and a NaN or an
        infinity in x reaches only the outputs that read it.
    refusal: (problem, platform) -> None, or one sentence that says why not. The platform
        is "cpu", "gpu", "tpu", or None for the reasons that hold on every platform.
    work: (problem, platform, precision) -> how much there is to do, by kind of work: products, elements
        moved, ... The planner knows what a unit of each costs on a device, and adds up.
    memory: (problem, platform) -> about how many bytes it holds beside x, w and y.
    run: (problem, x, w, precision, platform) -> y.
    error: problem -> (a, b), which bound the rounding error: with u the unit roundoff of
        `accumulator(problem)`, and before y is rounded to its own type,
        |y' - y| <= u * (a * sum |x||w| + b * norm(x) * norm(w)), to first order in u, the
        sum over the terms of that element, the norms over the n, g and the g, m it reads.
        On accelerators it is the bound at precision 'highest', which accuracy='elementwise' asks
        for; below that, and where cuDNN picks an algorithm of its own, it has not been derived.
    kinds: the words that `work` has on CPU, each with the rate of a machine that it is measured in (`RATES`); on
        accelerators all engines have those of `launches`. Those of `COMPILED` cost time once, when the program is
        compiled.
    rates: seconds for a unit of each, where costs.json has no row for the engine. Without either it is only taken if
        it is asked for.
    opaque: whether XLA cannot see into it, to export a program or to partition it over devices.
    """

    name: str
    elementwise: Callable[[Problem], bool] = field(repr=False)
    refusal: Callable[[Problem, str | None], str | None] = field(repr=False)
    work: Callable[..., dict[str, float]] = field(repr=False)
    memory: Callable[..., float] = field(repr=False)
    run: Callable[..., Array] = field(repr=False)
    error: Callable[[Problem], tuple[float, float]] = field(repr=False)
    kinds: Mapping[str, str] = field(repr=False)
    rates: Mapping[str, float] = field(default_factory=dict, repr=False)
    opaque: bool = False


class Form(NamedTuple):
    """One of the ways in which an engine computes: the first of its forms that applies is taken.

    applies: (problem, platform) -> bool.
    work, memory: as the engine's.
    run: (problem, x, w, precision, platform) -> y, of an oriented Problem with L = 1.
    """

    applies: Callable[[Problem, str], bool]
    work: Callable[[Problem, str, Any], dict[str, float]]
    memory: Callable[[Problem, str], float]
    run: Callable[..., Array]


def form_of(forms: Sequence[Form], problem: Problem, platform: str) -> Form:
    """The first form that applies."""
    return next(form for form in forms if form.applies(problem, platform))


class Limits(NamedTuple):
    """How much a platform bears at a time; what is more is cut into parts."""

    fused: int  # terms that one fused loop sums
    part: int  # and where there are more, of each part
    layer: int  # bytes between in a block of matrix products of a layer
    kernel: int  # and of a gradient in the kernel
    windows: int  # bytes of windows that are transformed together


# On CPU, blocks are parts of the last cache: a quarter for a layer, an eighth for a gradient. More than 32 MB are new
# pages at each call, and less than 8 MB are many small products. Fused loops that read 250 arrays and more take five
# times as long: they make no vectors. On a GPU each trip of a loop is some launches, and XLA takes five seconds to
# compile 125 terms, eighty for 225.
ACCELERATOR = Limits(fused=128, part=64, layer=256 << 20, kernel=256 << 20, windows=1 << 30)
CACHE = min(max(processor().cache, 8 << 20), 32 << 20)
LIMITS = {
    "cpu": Limits(fused=248, part=225, layer=CACHE // 4, kernel=CACHE // 8, windows=CACHE),
    "gpu": ACCELERATOR,
    "tpu": ACCELERATOR,
}


def always(problem: Problem) -> bool:
    """True: of an engine that is `elementwise` for every problem."""
    return True


def never(problem: Problem) -> bool:
    """False: of an engine whose error is bounded by norms only."""
    return False


def varying(array) -> frozenset:
    """The mesh axes over which an array varies, inside `jax.shard_map`."""
    aval = jax.typeof(array)
    kind = getattr(aval, "manual_axis_type", None)  # `vma` until jax 0.9
    return frozenset(kind.varying if kind is not None else getattr(aval, "vma", ()))


def varying_over(array: Array, axes: frozenset) -> Array:
    """The array as one that varies over these mesh axes, too."""
    missing = tuple(sorted(axes - varying(array)))
    return lax.pcast(array, missing, to="varying") if missing else array


def zeros(shape: Sequence[int], like: Array, dtype=None) -> Array:
    """Zeros that vary over the mesh axes that `like` does: what a loop begins with must be as what it ends with."""
    return varying_over(jnp.zeros(shape, dtype or like.dtype), varying(like))


def apart(f: Callable) -> Callable:
    """f as a computation of its own, into which XLA on CPU fuses nothing, and out of which nothing.

    What it is given lies in memory before. A slice at a traced place that were fused into a loop instead would be read
    number by number.
    """

    def inner(*args):
        with set_xla_metadata(inlineable=None):  # of the call, not of what is in it
            return f(*args)

    def called(*args):
        with set_xla_metadata(inlineable="false"):
            return jax.jit(inner)(*args)

    return called


def elements(problem: Problem) -> float:
    """How many numbers there are in x, w and y."""
    return sum(prod(shape) for shape in (problem.x_shape, problem.w_shape, problem.y_shape))


def array_bytes(problem: Problem) -> float:
    """Bytes of x, w and y."""
    shapes = (problem.x_shape, problem.w_shape, problem.y_shape)
    return float(sum(prod(s) * jnp.dtype(t).itemsize for s, t in zip(shapes, problem.dtypes, strict=True)))


UNITS = ("float64", "float32", "tf32", "half", "integer", "shifted", "summed")  # and those of depthwise kernels
DEPTHWISE = tuple(f"depthwise {images}{gradient}" for images in ("image", "other") for gradient in ("", " gradient"))
LAUNCHED = frozenset(("kernels", "bytes", "trips", "steps", *(f"{unit} products" for unit in (*UNITS, *DEPTHWISE))))
COMPILED = ("program", "programs", "branches")  # what compiling costs, once

# What a machine is measured by: a product of a large matrix product, and one in a loop that XLA compiles; a number that
# is moved within caches, and to and from memory; a step of a transform (a point times the logarithm of its length); a
# trip of a loop; a call; a loop that is compiled.
RATES = ("product", "loop", "cached", "streamed", "step", "trip", "call", "compilation")


def kinds_of(**by_rate: Iterable[str]) -> Mapping[str, str]:
    """kind of work -> rate, of an engine: those that all have, and its own."""
    common = dict.fromkeys(COMPILED, "compilation") | {"call": "call", "elements": "streamed", "products": "product"}
    woven = {"woven": "cached", "woven rows": "cached", "phases": "trip"}
    return common | woven | {kind: rate for rate, kinds in by_rate.items() for kind in kinds}


def compiled(programs: float, branches: float) -> dict[str, float]:
    """What XLA compiles on CPU: one program, of so many in it (phases), with so many slices, terms or points between.

    It takes its time for each loop that it makes of them, whatever their size.
    """
    return {"program": 1.0, "programs": programs, "branches": branches}


def launches(kernels: float, moved: float, products: float = 0.0, unit: str = "float32", **extra: float):
    """The work on an accelerator: launches of kernels, bytes moved, products by what multiplies, and `extra`."""
    return {"kernels": kernels, "bytes": moved, f"{unit} products": products} | extra


def multiplier(problem: Problem, precision) -> str:
    """What an accelerator multiplies matrices with: "float64", "float32", "tf32", "half" or "integer" units."""
    dtype = accumulator(problem)
    if problem.is_exact:
        return "integer"
    if dtype.name in ("float64", "complex128"):
        return "float64"
    if operand(problem, "gpu").itemsize <= 2:
        return "half"
    default = precision is None or lax.Precision.DEFAULT in precision
    return "tf32" if default else "float32"


def tiled(size: int) -> int:
    """A size as tiles of matrix units fill it."""
    return -(-size // 8) * 8


def all_products(problem: Problem) -> float:
    """Products of every kernel position with every output, also where no input meets them: what a plain loop does."""
    pairs = prod(axis.K * axis.O / abs(axis.L) for axis in problem.axes)
    return problem.n * problem.g * problem.c * problem.m * pairs


def itemsize(problem: Problem) -> int:
    """Bytes of a number while it is computed with."""
    return accumulator(problem).itemsize


def padded_elements(problem: Problem) -> float:
    """How many numbers `padded` returns for an oriented problem, of all phases of L > 1 together."""
    extents = [(abs(a.S) * (a.O - 1) + abs(a.D) * (a.K - 1)) // abs(a.L) + 1.0 for a in problem.axes]
    return problem.n * problem.g * problem.c * prod(extents)


def operand(problem: Problem, platform: str):
    """The dtype of what is multiplied where sums are taken in `accumulator`'s: accelerators multiply half types."""
    tx, tw, _ = map(jnp.dtype, problem.dtypes)
    return tx if platform != "cpu" and tx == tw and jnp.issubdtype(tx, jnp.inexact) else accumulator(problem)


def accumulator(problem: Problem):
    """The dtype in which to sum: the widest of x, w and y, and at least float32; y's own for integers."""
    if problem.is_exact:
        return jnp.dtype(problem.dtypes.y)
    doubled = any(jnp.dtype(dtype).name in ("float64", "complex128") for dtype in problem.dtypes)
    if problem.is_complex:
        return jnp.dtype(jnp.complex128 if doubled else jnp.complex64)
    return jnp.dtype(jnp.float64 if doubled else jnp.float32)


# A sum of t products in any order has an error of at most t*u*sum|x||w| (Higham, Accuracy
# and Stability, 3.1). A complex product by three or four real ones sums up to two real
# products of t terms, of sums of parts: each part of y is within (t+3)*u*2*sqrt(2)*sum|x||w|,
# so y is within 4*(t+3)*u*sum|x||w|. Integers that are summed in a floating type are rounded
# once each on the way in: two units more.
def summation_error(problem: Problem, terms: int) -> float:
    """The factor a of `Engine.error` for sums of `terms` products in any order."""
    if problem.is_exact:
        return 0.0
    if problem.is_complex:
        return 4.0 * (terms + 3)
    return terms + 2.0 * any(jnp.issubdtype(dtype, jnp.integer) for dtype in problem.dtypes)


def oriented(problem: Problem, w: Array, kernel_sign: int) -> tuple[Problem, Array, Callable[[Array], Array]]:
    """(problem, w, finish) with L, S > 0 and D of the given sign; y = finish(result)."""
    turned = [axis.oriented(kernel_sign) for axis in problem.axes]
    lw, ly = problem.layouts.w, problem.layouts.y
    w = _flip(w, [lw.index(letter) for letter, (_, flip, _) in zip(problem.spatial, turned, strict=True) if flip])
    y_flips = [ly.index(letter) for letter, (_, _, flip) in zip(problem.spatial, turned, strict=True) if flip]
    return replace(problem, axes=tuple(axis for axis, _, _ in turned)), w, lambda y: _flip(y, y_flips)


def _flip(array: Array, axes: list[int]) -> Array:
    return jnp.flip(array, axes) if axes else array


def indices(layout: str) -> list[int]:
    """The layout as einsum's list of integers (einsum's letters exclude digits)."""
    return [ord(letter) for letter in layout]


def multiply(x: Array, lx: str, w: Array, lw: str, ly: str, precision=None, dtype=None) -> Array:
    """The sum of x*w over the letters that `ly` lacks, in a dtype (x's, by default); elementwise where it can be.

    Letters of length 1 are left out of matrix products, and neighbours that are both summed are made one: XLA would
    transpose for them.
    """
    sizes = dict(zip(lx, x.shape, strict=True))
    for letter, size in zip(lw, w.shape, strict=True):
        sizes[letter] = max(size, sizes.get(letter, 1)) if size else 0
    if all(sizes[letter] == 1 for letter in lx + lw if letter not in ly):
        return spread(x, lx, ly).astype(dtype or x.dtype) * spread(w, lw, ly).astype(dtype or w.dtype)
    x, lx = _squeezed(x, lx)
    w, lw = _squeezed(w, lw)
    for a, b in itertools.pairwise(lx):
        if a + b in lw and a not in ly and b not in ly:
            x, lx = _joined(x, lx, a, b)
            w, lw = _joined(w, lw, a, b)
    inner = [letter for letter in ly if letter in lx + lw]
    numbers = (x, indices(lx), w, indices(lw), indices("".join(inner)))
    y = jnp.einsum(*numbers, precision=precision, preferred_element_type=dtype)
    return y.reshape([sizes[letter] for letter in ly])


def _joined(array: Array, layout: str, a: str, b: str) -> tuple[Array, str]:
    """The neighbours a and b as one axis b."""
    place, shape = layout.index(a), array.shape
    joined = array.reshape(*shape[:place], shape[place] * shape[place + 1], *shape[place + 2 :])
    return joined, layout.replace(a, "")


def _squeezed(array: Array, layout: str) -> tuple[Array, str]:
    kept = "".join(letter for letter, size in zip(layout, array.shape, strict=True) if size != 1)
    return array.reshape([size for size in array.shape if size != 1]), kept


def spread(array: Array, layout: str, target: str) -> Array:
    """`array` in the order of `target`: letters that it lacks get length 1, lengths 1 that target lacks go."""
    array = jnp.squeeze(array, [d for d, letter in enumerate(layout) if letter not in target])
    layout = "".join(letter for letter in layout if letter in target)
    array = lax.transpose(array, [layout.index(letter) for letter in target if letter in layout])
    return jnp.expand_dims(array, [d for d, letter in enumerate(target) if letter not in layout])


def pairwise(terms: Sequence[Array]) -> Array:
    """The sum of the terms as a tree: fewer roundings in a row, and additions that need not wait for each other."""
    terms = list(terms)
    while len(terms) > 1:
        terms = [sum(terms[i + 1 : i + 2], terms[i]) for i in range(0, len(terms), 2)]
    return terms[0]


def padded(problem: Problem, x: Array, ends: Mapping[str, int] = MappingProxyType({})) -> Array:
    """v: x dilated by L and padded by p, as long along each axis as the outputs of an oriented Problem ask for.

    Output o and kernel entry k meet at v[S*o + D*k]. `ends` zeros stand at the end of some letters' axes.
    """
    config = []
    for letter in problem.layouts.x:
        if letter in "ngc":
            config.append((0, ends.get(letter, 0), 0))
            continue
        axis = problem.axes[problem.spatial.index(letter)]
        length = axis.S * (axis.O - 1) + axis.D * (axis.K - 1) + 1 + ends.get(letter, 0)
        config.append((axis.p, length - axis.p - axis.L * (axis.I - 1) - 1, axis.L - 1))
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def padded_along(array: Array, layout: str, letter: str, low: int, length: int) -> Array:
    """The array with `low` zeros before it along one axis, and of a length there; both may crop."""
    config = [(0, 0, 0)] * array.ndim
    place = layout.index(letter)
    config[place] = (low, length - low - array.shape[place], 0)
    return lax.pad(array, jnp.zeros((), array.dtype), config)


def beside(array: Array, layout: str, cuts: dict[str, list[tuple[int, int, int]]], feature: str) -> tuple[Array, str]:
    """The windows of an array side by side along a new axis T, which stands before `feature`.

    cuts: by spatial letter (start, count, step) of each window along it. One axis is cut after the other, so that
    there are as many slices as the sum of their windows, and not their product: XLA compiles a loop for each.
    """
    place = layout.index(feature)
    array, layout = jnp.expand_dims(array, place), layout[:place] + "T" + layout[place:]
    for letter, windows in reversed(cuts.items()):
        axis = layout.index(letter)
        parts = [lax.slice_in_dim(array, at, at + step * (n - 1) + 1, step, axis) for at, n, step in windows]
        array = jnp.concatenate(parts, place) if len(parts) > 1 else parts[0]
    return array, layout


def merged(array: Array, outer: int, place: int) -> Array:
    """Axis `outer` moved before axis `place` (counted without it) and merged with it."""
    array = jnp.moveaxis(array, outer, place)
    shape = array.shape
    return array.reshape(*shape[:place], shape[place] * shape[place + 1], *shape[place + 2 :])


def window(layout: str, v: Array, starts, counts, steps) -> Array:
    """v at starts + steps * (0 .. counts-1) along its spatial axes; a start may be traced."""
    begin, spans, stride = [], [], []
    for letter, size in zip(layout, v.shape, strict=True):
        d = SPATIAL.find(letter)
        begin.append(0 if d < 0 else starts[d])
        spans.append(size if d < 0 else steps[d] * (counts[d] - 1) + 1)
        stride.append(1 if d < 0 else steps[d])
    if all(isinstance(b, int) for b in begin):
        return lax.slice(v, begin, [b + s for b, s in zip(begin, spans, strict=True)], stride)
    return lax.slice(lax.dynamic_slice(v, begin, spans), [0] * v.ndim, spans, stride)
