"""fft: the convolution theorem.

Phases bring the relation to L = S = 1 (polyphase.py), and a flip of the kernel to D = -1: then it is a
sum of positions, i + k = s, with s = o - p: a full linear convolution, of which some values are
wanted. The discrete Fourier transform turns the circular convolution of length N into products,

    z = inverse(forward(x) * forward(w)),

summed over c in the frequency domain. A circular result is the linear one wherever
s + N and s - N hold nothing, which fixes the shortest N (see `_span`). Axes along which
x or w has a single entry are multiplied, not transformed.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from math import log2, prod, sqrt
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.engines.base import (
    Engine,
    accumulator,
    array_bytes,
    elements,
    itemsize,
    kinds_of,
    launches,
    multiply,
    never,
    oriented,
    summation_error,
)
from jaxconv.engines.polyphase import by_units, runner, units, work_of_units
from jaxconv.problem import Axis, Problem

RADICES = (2, 3, 5, 7)
PLAN = 4e9  # bytes that one plan of cuFFT may hold, beyond which XLA ends the process (jax-ml/jax issue 9591)
LONG = 1 << 17  # a transform that does not fit the caches near a core


def refusal(problem: Problem, platform: str | None) -> str | None:
    if no := refuse_types("fft", problem, platform):
        return no
    if platform == "gpu" and (size := memory(problem)) > 3 * PLAN:  # of x, w and y
        return f"fft: its transforms hold {size / 1e9:.0f} GB, more than plans of cuFFT do; use method='overlap'."
    return None


def refuse_types(name: str, problem: Problem, platform: str | None) -> str | None:
    """The sentence of an engine that transforms, for types that it cannot."""
    if platform == "tpu" and accumulator(problem).name in ("float64", "complex128"):
        return f"{name}: XLA has no FFT in double precision on tpu; use method='shifts', or cast to float32."
    return refuse_exact(name, problem)


def refuse_exact(name: str, problem: Problem) -> str | None:
    """The sentence of an engine that rounds, for integers."""
    if problem.is_exact:
        return (
            f"{name}: it rounds, and {problem.dtypes.y} arithmetic is exact; use method='direct', 'shifts' or 'gemm', "
            "or cast to a floating type."
        )
    return None


def work(problem: Problem, platform="cpu", precision=None) -> dict[str, float]:
    return transforms_launched(problem, work_of_units(problem, _work), platform)


def transforms_launched(problem: Problem, counts: dict[str, float], platform: str) -> dict[str, float]:
    """`counts`, and for an accelerator what that is there: two kernels a transform, its products, what lies between."""
    if platform == "cpu":
        return counts
    moved = array_bytes(problem) + 4 * itemsize(problem) * counts.get("points", 0.0)
    pairs = 4 * (counts.get("pairs", 0.0) + counts.get("products", 0.0))  # of complex numbers
    steps = counts.get("steps", 0.0) + counts.get("long steps", 0.0)
    unit = "float64" if itemsize(problem) > 4 + 4 * problem.is_complex else "float32"
    return launches(8.0 * counts["call"], moved, pairs, unit, steps=steps)


def _work(problem: Problem) -> dict[str, float]:
    spans = _spans(problem)
    if spans is None:
        return {}
    points = prod(max(span.length, span.x[1] - span.x[0] + 1, span.w[1] - span.w[0] + 1) for span in spans)
    length = prod(span.length for span in spans)
    transforms = problem.g * (problem.n * problem.c + problem.m * problem.c + problem.n * problem.m)
    return transform_work(problem, transforms * points, length, transforms * points)


def transform_work(problem: Problem, points: float, length: int, moved: float) -> dict[str, float]:
    """The work of transforms of `length` over `points` in all, and of the products between them."""
    transforms = problem.g * (problem.n * problem.c + problem.m * problem.c + problem.n * problem.m)
    pairs = problem.n * problem.g * problem.c * problem.m * points / transforms
    counts = {
        "points": points,
        "transforms": points / length,
        "elements": elements(problem),
        "moved": moved,
    }
    counts["steps" if length < LONG else "long steps"] = points * log2(length)
    counts["pairs" if problem.c > 1 else "products"] = pairs
    if problem.layouts.y[-1] not in problem.spatial:
        counts["transposed"] = points
    return counts


def memory(problem: Problem, platform="cpu") -> float:
    return 2 * itemsize(problem) * work(problem).get("points", 0.0)


class Span(NamedTuple):
    """How one axis is transformed."""

    x: tuple[int, int]  # the input's positions that are needed, from and to
    w: tuple[int, int]  # likewise the kernel's
    s: tuple[int, int]  # the wanted s that hold something, counted from x[0] + w[0]
    length: int  # of the transform; 1 where there is nothing to transform


# Only i and k that can add up to a wanted s are kept. Counted from the first kept pair,
# s runs over 0 .. hi, hi = (kept i - 1) + (kept k - 1), and [a, b] of it is wanted. The
# circular sum at s holds also s + N and s - N: nothing is there if N > hi - a and N > b.
def _span(axis: Axis) -> Span | None:
    """The span of an axis with L = S = 1 and D = -1, or None if no output has a term."""
    last_i, last_k = axis.I - 1, axis.K - 1
    first, last = max(0, -axis.p), min(last_i + last_k, axis.O - 1 - axis.p)
    if first > last:
        return None
    i = max(0, first - last_k), min(last_i, last)
    k = max(0, first - last_i), min(last_k, last)
    a, b = first - i[0] - k[0], last - i[0] - k[0]
    ni, nk = i[1] - i[0] + 1, k[1] - k[0] + 1
    if ni == 1 or nk == 1:
        return Span(i, k, (a, b), 1)
    return Span(i, k, (a, b), fast_length(max(ni, nk, ni + nk - 1 - a, b + 1)))


def _spans(problem: Problem) -> list[Span] | None:
    """The spans of all axes of a unit, or None if no output has a term."""
    spans = [_span(axis.oriented(-1)[0]) for axis in problem.axes]
    reached = [span for span in spans if span is not None]
    return reached if len(reached) == len(spans) else None


@cache
def fast_length(n: int) -> int:
    """The least length of at least n whose only prime factors are 2, 3, 5 and 7.

    >>> [fast_length(n) for n in (1, 11, 13, 97, 1023)]
    [1, 12, 14, 98, 1024]
    """
    best = 1 << max(0, n - 1).bit_length()
    for a in (7**e for e in range(20) if 7**e < best):
        for b in (a * 5**e for e in range(20) if a * 5**e < best):
            for c in (b * 3**e for e in range(30) if b * 3**e < best):
                best = min(best, c << max(0, -(-n // c) - 1).bit_length())
    return best


def _run(problem: Problem, x: Array, w: Array, precision, platform: str) -> Array:
    problem, w, _ = oriented(problem, w, -1)
    spans = _spans(problem)
    if spans is None:
        return jnp.zeros(problem.y_shape, x.dtype)
    lx, lw, ly = problem.layouts
    x = _kept(problem, x, lx, [span.x for span in spans])
    w = _kept(problem, w, lw, [span.w for span in spans])

    # From here on the spatial axes of all three arrays are the last, in one order.
    x, lx = _spatial_last(problem, x, lx)
    w, lw = _spatial_last(problem, w, lw)
    lz = "".join(letter for letter in ly if letter not in problem.spatial) + problem.spatial
    lengths = {d - len(spans): span.length for d, span in enumerate(spans) if span.length > 1}
    x, w = (forward(array, lengths, problem.is_complex) for array in (x, w))
    if problem.c > 1:  # where c is summed the extents must agree; elsewhere lengths 1 broadcast
        extents = jnp.broadcast_shapes(x.shape[3:], w.shape[3:])
        x, w = (jnp.broadcast_to(a, a.shape[:3] + extents) for a in (x, w))
    z = inverse(multiply(x, lx, w, lw, lz, precision), lengths, problem.is_complex)
    for d, (axis, span) in enumerate(zip(problem.axes, spans, strict=True)):
        z = _wanted(z, 3 + d, axis, span)
    return lax.transpose(z, [lz.index(letter) for letter in ly])


def _kept(problem: Problem, array: Array, layout: str, ranges) -> Array:
    """The positions that are needed."""
    for letter, (low, high) in zip(problem.spatial, ranges, strict=True):
        array = lax.slice_in_dim(array, low, high + 1, axis=layout.index(letter))
    return array


def _spatial_last(problem: Problem, array: Array, layout: str) -> tuple[Array, str]:
    target = "".join(letter for letter in layout if letter not in problem.spatial) + problem.spatial
    return lax.transpose(array, [layout.index(letter) for letter in target]), target


def forward(array: Array, lengths: Mapping[int, int], is_complex: bool) -> Array:
    """The transform along some axes, of these lengths; where there are none, the array."""
    if not lengths:
        return array
    return (jnp.fft.fftn if is_complex else jnp.fft.rfftn)(array, list(lengths.values()), list(lengths))


def inverse(array: Array, lengths: Mapping[int, int], is_complex: bool) -> Array:
    """What `forward` undoes."""
    if not lengths:
        return array
    return (jnp.fft.ifftn if is_complex else jnp.fft.irfftn)(array, list(lengths.values()), list(lengths))


def _wanted(z: Array, d: int, axis: Axis, span: Span) -> Array:
    """The outputs o of one axis from z: s = o - p, zero where s holds nothing."""
    (a, b), start = span.s, -axis.p - span.x[0] - span.w[0]
    config = [(0, 0, 0)] * z.ndim
    config[d] = (a - start, start + axis.O - 1 - b, 0)
    return lax.pad(lax.slice_in_dim(z, a, b + 1, axis=d), jnp.zeros((), z.dtype), config)


# A transform of N = r1*r2*... points, divided by sqrt(N), is a product of unitary passes.
# A pass of radix r sums r products, each with a twiddle factor: in the 2-norm, its relative
# error is at most e(r) = sqrt(r)*2*sqrt(2)*(r + 4) units (sqrt(r) = norm(|F|)/norm(F); the
# complex products by summation_error's argument; 4 for twiddle factor and its rounding),
# and e, the transform's, is their sum over the prime factors of N. (Butterflies of composite
# radix are taken to be made of smaller ones, as those of XLA's FFT on CPU, DUCC, are.) By
# Cauchy's inequality the two forward transforms contribute 2*e*norm(x)*norm(w) to any element,
# the sum over c another 4*(c+3), and the inverse e*norm(z), where norm(z) <= norm1(w)*norm(x)
# <= sqrt(K)*norm(w)*norm(x); K and I are interchangeable here.
def error(problem: Problem) -> tuple[float, float]:
    errors = [_error(unit) for unit in dict.fromkeys(units(problem))] or [(0.0, 0.0)]
    return max(a for a, _ in errors), max(b for _, b in errors)


def _error(problem: Problem) -> tuple[float, float]:
    spans = _spans(problem) or []
    lengths = [span.length for span in spans if span.length > 1]
    if not lengths:
        return summation_error(problem, problem.terms), 0.0
    e = transform_error(lengths)
    shorter = prod(min(axis.K, axis.I) for axis in problem.axes)
    return 0.0, 2 * e + 4.0 * (problem.c + 3) + sqrt(shorter) * e


def transform_error(lengths: Sequence[int]) -> float:
    """e of the transform over axes of these lengths, in units of the roundoff."""
    return sum(_pass_error(2) + sum(map(_pass_error, _factors(n))) for n in lengths)  # 2: from complex to real


def _pass_error(radix: int) -> float:
    return sqrt(radix) * 2 * sqrt(2) * (radix + 4)


def _factors(n: int) -> list[int]:
    factors = []
    for r in RADICES:
        while n % r == 0:
            n //= r
            factors.append(r)
    return factors


TRANSFORMED = kinds_of(
    cached=("points", "moved", "pairs", "transposed"), step=("steps", "long steps"), trip=("transforms",)
)
FFT = Engine("fft", never, refusal, work, memory, runner(_run, by_units), error, TRANSFORMED)
