"""The literal sums of the definitions, in NumPy: the route that judges the others.

Nothing of jaxconv is called here, and nothing is fast. Integers stay integers and
Gaussian integers are exact in complex128, so most truths have no error at all.
"""

from itertools import product

import numpy as np

PI = np.arctan2(np.longdouble(0), np.longdouble(-1))  # in extended precision


def convolve(x, h, mode: str = "full") -> np.ndarray:
    """y[o] = sum over k of x[o-k] h[k], cut as SciPy's modes are."""
    x, h = np.asarray(x), np.asarray(h)
    y = np.zeros([n + m - 1 for n, m in zip(x.shape, h.shape, strict=True)], np.result_type(x, h))
    for k in np.ndindex(h.shape):
        y[tuple(slice(j, j + n) for j, n in zip(k, x.shape, strict=True))] += x * h[k]
    return cut(y, x.shape, h.shape, mode)


def correlate(x, h, mode: str = "full") -> np.ndarray:
    """y[o] = sum over k of x[o+k-(M-1)] conj(h[k]), cut as SciPy's modes are."""
    x, h = np.asarray(x), np.asarray(h)
    y = np.zeros([n + m - 1 for n, m in zip(x.shape, h.shape, strict=True)], np.result_type(x, h))
    for k in np.ndindex(h.shape):
        y[tuple(slice(m - 1 - j, m - 1 - j + n) for j, n, m in zip(k, x.shape, h.shape, strict=True))] += (
            x * h[k].conj()
        )
    return cut(y, x.shape, h.shape, mode)


def cut(y, extents, kernel, mode: str) -> np.ndarray:
    """The part of the full sum that a mode keeps, for each axis."""
    kept = []
    for n, m in zip(extents, kernel, strict=True):
        begin, count = {
            "full": (0, n + m - 1),
            "same": ((m - 1) // 2, n),
            "valid": (min(n, m) - 1, abs(n - m) + 1),
        }[mode]
        kept.append(slice(begin, begin + count))
    return y[tuple(kept)]


def outside(j: int, n: int, boundary: str) -> int | None:
    """Which of n positions stands at position j, maybe outside; None for a zero."""
    if 0 <= j < n:
        return j
    match boundary:
        case "wrap":
            return j % n
        case "nearest":
            return min(max(j, 0), n - 1)
        case "reflect":  # d c b a | a b c d | d c b a
            j %= 2 * n
            return min(j, 2 * n - 1 - j)
        case "mirror":  # d c b | a b c d | c b a
            j %= max(2 * n - 2, 1)
            return min(j, 2 * n - 2 - j) if n > 1 else 0
    return None


def bounded_by(x, h, boundary: str, flip: bool) -> np.ndarray:
    """Mode 'same' beyond a boundary: y[o] = sum over k of x[o -+ (k - centre)] h[k] (conj if not flipped)."""
    y = np.zeros(x.shape, np.result_type(x, h))
    for o, k in product(np.ndindex(x.shape), np.ndindex(h.shape)):
        i = []
        for oo, kk, n, m in zip(o, k, x.shape, h.shape, strict=True):
            j = oo - kk + (m - 1) // 2 if flip else oo + kk - m // 2
            i.append(outside(j, n, boundary))
        if None not in i:
            y[o] += x[tuple(i)] * (h[k] if flip else h[k].conj())
    return y


def layer(x, w, strides, pads, L, D, groups: int = 1) -> np.ndarray:
    """lax's layer: y[n,m,o] = sum over c, k of x[n,c,i] w[m,c,k], where L*i + p = S*o + D*k."""
    n, _, *I = x.shape
    F, c, *K = w.shape
    room = [l * (i - 1) + 1 + lo + hi for l, i, (lo, hi) in zip(L, I, pads, strict=True)]
    O = [(r - d * (k - 1) - 1) // s + 1 for r, d, k, s in zip(room, D, K, strides, strict=True)]
    y = np.zeros((n, F, *O), np.result_type(x, w))
    for o, k in product(np.ndindex(*O), np.ndindex(*K)):
        found = [
            divmod(s * a + d * b - lo, l) for s, a, d, b, (lo, _), l in zip(strides, o, D, k, pads, L, strict=True)
        ]
        if any(rest or not 0 <= i < size for (i, rest), size in zip(found, I, strict=True)):
            continue
        i = tuple(i for i, _ in found)
        for f in range(F):
            low = f // (F // groups) * c
            y[(slice(None), f, *o)] += x[(slice(None), slice(low, low + c), *i)] @ w[(f, slice(None), *k)]
    return y


def dft(x) -> np.ndarray:
    """X[k] = sum over n of x[n] exp(-2 pi i k n / N), in extended precision."""
    return fourier(len(x)) @ np.asarray(x, np.clongdouble)


def fourier(n: int) -> np.ndarray:
    """The matrix of the discrete Fourier transform, exp(-2 pi i k n / N)."""
    turns = np.outer(np.arange(n), np.arange(n)) % n
    angle = -2 * PI * turns / n
    return np.cos(angle) + 1j * np.sin(angle)
