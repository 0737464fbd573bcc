"""The dense matrices of the relation: the route of linear algebra.

T[o, i] = sum of h[k] over the k with L*i + p = S*o + D*k, each axis by itself. Built here
from the four integers, by index arithmetic; nothing of jaxconv is called.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from jaxconv.identities.sums import outside


def relation(I: int, K: int, O: int, p: int = 0, L: int = 1, S: int = 1, D: int = 1) -> np.ndarray:
    """k[o, i]: the kernel position at which output o meets input i, or -1."""
    o, i = np.ix_(np.arange(O), np.arange(I))
    k, rest = np.divmod(L * i + p - S * o, D)
    return np.where((rest == 0) & (k >= 0) & (k < K), k, -1)


def matrix(h: np.ndarray, positions: Sequence[np.ndarray]) -> np.ndarray:
    """The matrix of the operator whose axes have these relations, of shape (outputs, inputs)."""
    rank = len(positions)
    index, meets = [], np.ones((), bool)
    for d, k in enumerate(positions):
        shape = [1] * (2 * rank)
        shape[d], shape[rank + d] = k.shape
        index.append(k.reshape(shape))
        meets = meets & (index[-1] >= 0)
    T = np.where(meets, h[tuple(index)], 0)
    outputs = prod(k.shape[0] for k in positions)
    return T.reshape(outputs, -1)


def convolution(h: np.ndarray, extents: Sequence[int], mode: str = "full") -> np.ndarray:
    """The Toeplitz matrix of x -> x * h in a mode of SciPy's."""
    return _toeplitz(h, extents, mode, flip=True)


def correlation(h: np.ndarray, extents: Sequence[int], mode: str = "full") -> np.ndarray:
    """The Toeplitz matrix of x -> x ⋆ h in a mode of SciPy's."""
    return _toeplitz(h.conj(), extents, mode, flip=False)


def _toeplitz(h, extents, mode: str, flip: bool) -> np.ndarray:
    positions = []
    for n, m in zip(extents, h.shape, strict=True):
        first, count = {  # of the full sum
            "full": (0, n + m - 1),
            "same": ((m - 1) // 2, n),
            "valid": (min(n, m) - 1, abs(n - m) + 1),
        }[mode]
        p = -first if flip else m - 1 - first
        positions.append(relation(n, m, count, p, D=-1 if flip else 1))
    return matrix(h, positions)


def circulant(h: np.ndarray, n: int) -> np.ndarray:
    """C[o, i] = h[(o - i) mod n], h with zeros up to n."""
    long = np.zeros(n, h.dtype)
    long[: len(h)] = h
    return long[np.subtract.outer(np.arange(n), np.arange(n)) % n]


def bounded(h: np.ndarray, extents: Sequence[int], boundary: str, flip: bool) -> np.ndarray:
    """The matrix of mode 'same' beyond a boundary: each position outside lends its column to the one it repeats."""
    positions, fold = [], []
    for n, m in zip(extents, h.shape, strict=True):
        low = m - 1 - (m - 1) // 2 if flip else m // 2
        long = n + m - 1  # the positions from -low on
        centre = (m - 1) // 2 + low if flip else 0
        positions.append(relation(long, m, n, -centre, D=-1 if flip else 1))
        F = np.zeros((long, n), int)
        for j in range(long):
            i = outside(j - low, n, boundary)
            if i is not None:
                F[j, i] = 1
        fold.append(F)
    T = matrix(h if flip else h.conj(), positions)
    every = np.ones((1, 1), int)
    for F in fold:
        every = np.kron(every, F)
    return T @ every


def layer(x: np.ndarray, w: np.ndarray, strides, pads, L, D, groups: int = 1) -> np.ndarray:
    """A layer, y[n,m] = sum over c of T(w[m,c]) x[n,c], T the matrix of that relation."""
    inputs, kernel, per = x.shape[2:], w.shape[2:], len(w) // groups
    axes = list(zip(inputs, kernel, strides, pads, L, D, strict=True))
    outputs = [(l * (i - 1) + 1 + lo + hi - d * (k - 1) - 1) // s + 1 for i, k, s, (lo, hi), l, d in axes]
    positions = [relation(i, k, o, lo, l, s, d) for (i, k, s, (lo, _), l, d), o in zip(axes, outputs, strict=True)]
    y = np.zeros((len(x), len(w), prod(outputs)), np.result_type(x, w))
    for m, c in np.ndindex(w.shape[:2]):
        y[:, m] += x[:, m // per * w.shape[1] + c].reshape(len(x), -1) @ matrix(w[m, c], positions).T
    return y.reshape(len(x), len(w), *outputs)
