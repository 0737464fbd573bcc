"""Running error analysis: how far rounding may take what a jaxpr computes.

Every equation of the jaxpr is read in NumPy's extended precision, together with a bound on
the distance between that value and the computed one (Wilkinson's running error analysis;
Higham, Accuracy and Stability of Numerical Algorithms, 3.3). A contraction brings the bound
of its engine's own analysis, `Engine.error`; a sum of t products t*u*sum|a||b|; other
arithmetic one rounding; moving numbers brings none. Where all numbers are integers and the
sums of their sizes fit the mantissa, arithmetic by sums and products is exact: the bound is 0.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxconv.arguments import promoted
from jaxconv.engines import Engine
from jaxconv.identities.base import Bounded
from jaxconv.planner import Options, choose
from jaxconv.problem import Problem

TINY = float(np.finfo(np.longdouble).eps)  # the extended precision's own


def bounds(closed: ClosedJaxpr, args: Sequence, platform: str) -> list[Bounded]:
    """(value, error) of each result of a jaxpr for these arguments: exact ones, or `Bounded`.

    >>> import jax
    >>> f = lambda x: (x / 3).sum()
    >>> [found] = bounds(jax.make_jaxpr(f)(jnp.ones(3)), [np.ones(3)], "cpu")
    >>> float(found.value), bool(1e-9 < found.error < 1e-6)
    (1.0, True)
    """
    return _read(closed.jaxpr, closed.consts, [_given(a) for a in args], platform)


def _given(a) -> Bounded:
    if isinstance(a, Bounded):
        return a
    return Bounded(_wide(a), np.zeros(np.shape(a)))


def _wide(a) -> np.ndarray:
    a = np.asarray(a)
    if a.dtype.kind in "biu":
        return a
    return a.astype(np.clongdouble if a.dtype.kind == "c" else np.longdouble)


def _read(jaxpr: Jaxpr, consts, args: list[Bounded], platform: str) -> list[Bounded]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*map(_given, consts), *args], strict=True))

    def read(atom) -> Bounded:
        return _given(atom.val) if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands, params, name = [read(atom) for atom in equation.invars], equation.params, equation.primitive.name
        out: Any = equation.outvars[0].aval
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        if isinstance(inner, ClosedJaxpr):
            results = _read(inner.jaxpr, inner.consts, operands, platform)
        elif name == "contract":
            engine = choose(params["problem"], params["options"] or Options(), platform)
            results = [_contract(params["problem"], engine, *operands)]
        elif name in MOVES:
            move = MOVES[name]
            results = [Bounded(*(move(*parts, **params) for parts in zip(*operands, strict=True)))]
        elif name == "split":
            cuts = np.cumsum(params["sizes"])[:-1]
            parts = [np.split(part, cuts, params["axis"]) for part in operands[0]]
            results = [Bounded(*pair) for pair in zip(*parts, strict=True)]
        elif name == "unstack":
            parts = [list(np.moveaxis(part, params["axis"], 0)) for part in operands[0]]
            results = [Bounded(*pair) for pair in zip(*parts, strict=True)]
        elif name == "empty":  # whatever stands there: nothing is known of it
            results = [Bounded(np.zeros(out.shape), np.full(out.shape, np.inf))]
        elif name == "iota":
            d = params["dimension"]
            counts = np.arange(out.shape[d]).reshape([-1 if a == d else 1 for a in range(len(out.shape))])
            results = [_given(np.broadcast_to(counts, out.shape))]
        elif name in COMPARISONS:
            results = [_given(COMPARISONS[name](*(a.value for a in operands)))]
        elif name == "select_n":
            which, *cases = operands
            pick = [np.choose(np.asarray(which.value, int), [c[end] for c in cases]) for end in (0, 1)]
            results = [Bounded(*pick)]
        elif name in SUMS:
            results = [SUMS[name](out.dtype, *operands, **params)]
        elif name in ARITHMETIC:
            f, spread = ARITHMETIC[name]
            value = f(*(a.value for a in operands), **params)
            error = spread(*operands, **params) if name == "integer_pow" else spread(*operands)
            whole = name not in ("div", "integer_pow") or _is_integer(value)
            results = [_rounded(out.dtype, value, error, np.abs(value), operands, is_exact=whole)]
        else:
            raise NotImplementedError(
                f"`bounds` met the primitive {name!r}, for which it has no error analysis. Write the claim without it, "
                "or add its rule to jaxconv/identities/rounding.py."
            )
        values.update(zip(equation.outvars, results, strict=False))
    return [read(atom) for atom in jaxpr.outvars]


def unit(dtype) -> float:
    """The unit roundoff; 0 for integers."""
    return float(jnp.finfo(dtype).eps) / 2 if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def _is_integer(a) -> bool:
    if np.asarray(a).dtype.kind in "biu":
        return True
    return bool(np.all(np.isfinite(a)) and np.all(np.asarray(a) == np.round(a)))


def _exact(dtype, total, operands: Sequence[Bounded]) -> bool:
    """Whether sums and products of these numbers, whose sizes add up to `total`, are not rounded at all."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return True
    fits = 4 * np.max(total, initial=0) <= 1 / unit(dtype)  # 4: a complex product adds real and imaginary parts
    return bool(fits and all(not np.any(a.error) and _is_integer(a.value) for a in operands))


def _rounded(
    dtype, value, spread, total, operands: Sequence[Bounded], roundings: float = 1, is_exact: bool = True
) -> Bounded:
    """One operation's result: what its operands' errors spread to, and its own roundings of `total`."""
    if is_exact and _exact(dtype, total, operands):
        return Bounded(value, np.zeros(np.shape(value)))
    u = unit(dtype) * (2.0**1.5 if np.asarray(value).dtype.kind == "c" else 1.0) * roundings
    error = spread + _share(u) * (total + spread) + TINY * total * roundings
    return Bounded(value, _finite(dtype, error + (total > 0) * _smallest(dtype), total))


def _share(u: float) -> float:
    """u / (1 - u): of so many roundings to first order, all of them; no bound where there are too many."""
    return u / (1 - u) if u < 1 else np.inf


def _finite(dtype, error, size) -> np.ndarray:
    """The errors; there is no bound where the numbers leave the dtype's range."""
    with np.errstate(invalid="ignore"):
        error = np.asarray(error, np.float64)
        beyond = size + error > float(jnp.finfo(dtype).max) if jnp.issubdtype(dtype, jnp.inexact) else False
        return np.where(beyond | np.isnan(error), np.inf, error)


def _smallest(dtype) -> float:
    """What may be lost where a result is too small for its dtype, which accelerators flush to zero."""
    return float(jnp.finfo(dtype).tiny) if jnp.issubdtype(dtype, jnp.inexact) else 0.0


# y = sum x w.  With x + dx, w + dw:  |dy| <= sum |dx| (|w| + |dw|) + sum |x| |dw|, and the engine's
# own error for operands of the sizes |x| + |dx|, |w| + |dw|.
def _contract(problem: Problem, engine: Engine, x: Bounded, w: Bounded) -> Bounded:
    value = by_taps(problem, x.value, w.value)
    (ax, ex), (aw, ew) = ((np.abs(a.value), a.error) for a in (x, w))
    total = by_taps(problem, ax + ex, aw + ew)
    sums = engine.elementwise(problem) or engine.name in ("direct", "shifts", "gemm")
    summed = _summed(problem)
    if sums and _exact(summed, total, (x, w)) and _exact(problem.dtypes.y, np.abs(value), (x, w)):
        return Bounded(value, np.zeros(problem.y_shape))
    spread = by_taps(problem, ex, aw + ew) + by_taps(problem, ax, ew) if np.any(ex) or np.any(ew) else 0.0
    a, b = engine.error(problem)
    norms = _norms(problem, ax + ex, aw + ew)
    u = unit(summed)
    own = u * (a * total + b * norms) * (1 + _share(u * (a + b))) + TINY * (problem.terms + 3) * total
    own = own + unit(problem.dtypes.y) * 2 * (np.abs(value) + own + spread) + _smallest(problem.dtypes.y)
    return Bounded(value, _finite(problem.dtypes.y, spread + own, np.abs(value)))


def _summed(problem: Problem):
    """The dtype in which an engine must sum at least: the widest of x, w and y, and no less than float32."""
    if not jnp.issubdtype(problem.dtypes.y, jnp.inexact):
        return jnp.dtype(problem.dtypes.y)
    return promoted(*problem.dtypes, np.float32)


def by_taps(problem: Problem, x, w) -> np.ndarray:
    """The Problem's sum, one kernel position at a time."""
    lx, lw, ly = problem.layouts
    x = np.asarray(x).transpose([lx.index(letter) for letter in problem.spatial + "ngc"])
    w = np.asarray(w).transpose([lw.index(letter) for letter in problem.spatial + "gmc"])
    y = np.zeros((*(axis.O for axis in problem.axes), problem.n, problem.g, problem.m), np.result_type(x, w))
    pairs = []  # for each axis and k, the i and the o that meet
    for axis in problem.axes:
        o = np.arange(axis.O)
        found = [np.divmod(axis.S * o + axis.D * k - axis.p, axis.L) for k in range(axis.K)]
        meets = [(rest == 0) & (i >= 0) & (i < axis.I) for i, rest in found]
        pairs.append([(i[good], o[good]) for (i, _), good in zip(found, meets, strict=True)])
    for k in np.ndindex(*(axis.K for axis in problem.axes)):
        chosen = [axis[j] for axis, j in zip(pairs, k, strict=True)]
        i, o = (np.ix_(*(pair[end] for pair in chosen)) for end in (0, 1))
        products = (x[i][..., :, :, None, :] * w[k][None, :, :, :]).sum(-1)  # n g (m) c, (n) g m c
        y[o] += products
    return y.transpose([(problem.spatial + "ngm").index(letter) for letter in ly])


def _norms(problem: Problem, x, w) -> np.ndarray:
    def norm(a, layout, kept):
        a = a.transpose([layout.index(c) for c in kept + "".join(c for c in layout if c not in kept)])
        return np.sqrt((a.astype(np.float64) ** 2).sum(tuple(range(2, a.ndim))))

    each = np.einsum("ng,gm->ngm", norm(x, problem.layouts.x, "ng"), norm(w, problem.layouts.w, "gm"))
    each = each.reshape(each.shape + (1,) * len(problem.axes)) * np.ones([axis.O for axis in problem.axes])
    return each.transpose([("ngm" + problem.spatial).index(letter) for letter in problem.layouts.y])


def _dot(dtype, a: Bounded, b: Bounded, *, dimension_numbers, **_) -> Bounded:
    (ca, cb), (ba, bb) = dimension_numbers
    letters_a = list(range(np.ndim(a.value)))
    letters_b = [100 + d for d in range(np.ndim(b.value))]
    for da, db in [*zip(ca, cb, strict=True), *zip(ba, bb, strict=True)]:
        letters_b[db] = letters_a[da]
    rest = [d for d in letters_a if d not in {letters_a[c] for c in (*ca, *ba)}]
    rest += [letters_b[d] for d in range(len(letters_b)) if d not in (*cb, *bb)]
    numbers = {d: n for n, d in enumerate(dict.fromkeys(letters_a + letters_b))}
    out = [numbers[letters_a[d]] for d in ba] + [numbers[d] for d in rest]
    la, lb = [numbers[d] for d in letters_a], [numbers[d] for d in letters_b]

    def product(u, v):
        return np.einsum(u, la, v, lb, out)

    aa, ab = np.abs(a.value) + a.error, np.abs(b.value) + b.error
    total = product(aa, ab)
    spread = product(a.error, ab) + product(np.abs(a.value), b.error)
    t = prod(np.shape(a.value)[d] for d in ca)
    return _rounded(dtype, product(a.value, b.value), spread, total, (a, b), t + 1)


def _reduce_sum(dtype, a: Bounded, *, axes, **_) -> Bounded:
    total = np.abs(a.value).sum(axes)
    count = prod(np.shape(a.value)[d] for d in axes)
    return _rounded(dtype, a.value.sum(axes), np.asarray(a.error).sum(axes), total, (a,), count)


def _cumsum(dtype, a: Bounded, *, axis, reverse, **_) -> Bounded:
    def along(v):
        return np.flip(np.flip(v, axis).cumsum(axis), axis) if reverse else np.cumsum(v, axis)

    return _rounded(dtype, along(a.value), along(a.error), along(np.abs(a.value)), (a,), np.shape(a.value)[axis])


def _convert(dtype, a: Bounded, **_) -> Bounded:
    if not jnp.issubdtype(dtype, jnp.inexact):
        return a
    value = a.value.astype(np.clongdouble if jnp.issubdtype(dtype, jnp.complexfloating) else np.longdouble)
    return _rounded(dtype, value, a.error, np.abs(a.value), (a,))


# Of exact numbers, such as positions.
COMPARISONS: dict[str, Callable] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}

SUMS: dict[str, Callable[..., Bounded]] = {
    "dot_general": _dot,
    "reduce_sum": _reduce_sum,
    "cumsum": _cumsum,
    "convert_element_type": _convert,
}


def _pad(a, fill, *, padding_config):
    a = np.asarray(a)
    long = [0 if n == 0 else n + (n - 1) * inner for n, (_, _, inner) in zip(a.shape, padding_config, strict=True)]
    dilated = np.full(long, fill, np.result_type(a, np.asarray(fill).dtype))
    dilated[tuple(slice(None, None, inner + 1) for _, _, inner in padding_config)] = a
    widths = [(max(lo, 0), max(hi, 0)) for lo, hi, _ in padding_config]
    full = np.pad(dilated, widths, constant_values=fill)
    ends = zip(padding_config, full.shape, strict=True)
    return full[tuple(slice(max(-lo, 0), n - max(-hi, 0)) for (lo, hi, _), n in ends)]


def _spread(a, *, shape, broadcast_dimensions, **_):
    kept = [1] * len(shape)
    for d, n in zip(broadcast_dimensions, np.shape(a), strict=True):
        kept[d] = n
    return np.broadcast_to(np.reshape(a, kept), shape)


def _dynamic_slice(a, *starts, slice_sizes):
    starts = [min(max(int(s), 0), n - size) for s, n, size in zip(starts, a.shape, slice_sizes, strict=True)]
    return a[tuple(slice(s, s + size) for s, size in zip(starts, slice_sizes, strict=True))]


MOVES: dict[str, Callable[..., np.ndarray]] = {
    "reshape": lambda a, *, new_sizes, **_: np.reshape(a, new_sizes),
    "transpose": lambda a, *, permutation: np.transpose(a, permutation),
    "squeeze": lambda a, *, dimensions: np.squeeze(a, dimensions),
    "expand_dims": lambda a, *, dimensions: np.expand_dims(a, dimensions),
    "broadcast_in_dim": _spread,
    "slice": lambda a, *, start_indices, limit_indices, strides: a[
        tuple(map(slice, start_indices, limit_indices, strides or [1] * len(start_indices)))
    ],
    "rev": lambda a, *, dimensions: np.flip(a, dimensions),
    "concatenate": lambda *parts, dimension: np.concatenate(parts, dimension),
    "pad": _pad,
    "tile": lambda a, *, reps: np.tile(a, reps),
    "stack": lambda *parts, axis: np.stack(parts, axis),
    "copy": lambda a: a,
    "real": np.real,
    "conj": lambda a, **_: np.conj(a),
}


def _times(a: Bounded, b: Bounded):
    return np.abs(a.value) * b.error + a.error * (np.abs(b.value) + b.error)


def _divided(a: Bounded, b: Bounded):
    least = np.abs(b.value) - b.error
    return (a.error + np.abs(a.value / b.value) * b.error) / np.where(least > 0, least, 0)


def _either(a: Bounded, b: Bounded):
    return np.maximum(a.error, b.error)


# (value, how errors spread): the operation's own rounding is added by `_rounded`.
ARITHMETIC: dict[str, tuple[Callable, Callable]] = {
    "add": (lambda a, b: a + b, lambda a, b: a.error + b.error),
    "add_any": (lambda a, b: a + b, lambda a, b: a.error + b.error),
    "sub": (lambda a, b: a - b, lambda a, b: a.error + b.error),
    "neg": (lambda a: -a, lambda a: a.error),
    "mul": (lambda a, b, **_: a * b, _times),
    "div": (lambda a, b: a / b, _divided),
    "integer_pow": (lambda a, *, y: a**y, lambda a, *, y: (np.abs(a.value) + a.error) ** y - np.abs(a.value) ** y),
    "square": (lambda a: a * a, lambda a: 2 * np.abs(a.value) * a.error + a.error**2),
    "abs": (np.abs, lambda a: a.error),
    "imag": (np.imag, lambda a: a.error),
    "complex": (lambda a, b: a + 1j * b, lambda a, b: a.error + b.error),
    "rem": (np.fmod, lambda a, b: a.error + b.error),  # of integers, which have no error
    "max": (np.maximum, _either),
    "min": (np.minimum, _either),
    "reduce_max": (lambda a, *, axes, **_: a.max(axes), lambda a: np.max(a.error)),
}
