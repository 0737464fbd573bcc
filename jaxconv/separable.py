"""separable: a kernel known when the program is traced, as a short sum of outer products.

    w[k0, k1, ...] = sum over r of u_r[k0] * v_r[k1] * ...

Each term is a chain of one-dimensional contractions: K0 + K1 + ... products instead of
K0 * K1 * ... . A Gaussian, a box and a Sobel kernel have one term. The terms come from the
singular values of w, one axis split off at a time, in float64; as many are dropped as leave

    norm(w - sum) <= 2u * norm(w)     (and 16 roundoffs of float64 more),

u being the unit roundoff of w's type, so that no element of the result is off by more than
2u * norm(x) * norm(w) beside the roundings of the engines, and of the vectors to the type that is
summed in, a unit each; what lies between the axes stays in that type. Under accuracy='elementwise' the sum
must have one term and be within 4u * |w| entry by entry.

Source: Treitel and Shanks, The design of multistage separable planar filters (1971).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import jax.numpy as jnp
import numpy as np

from jaxconv.engines.base import accumulator
from jaxconv.problem import Axis, Problem, Triple

Terms = tuple[tuple[np.ndarray, ...], ...]
SVD = 16 * 2.0**-53  # the singular values' own error, where w is float64 too


def terms(w: np.ndarray, accuracy: str = "normwise") -> Terms | None:
    """The outer products that sum to w, each one vector per axis, in float64 or complex128; None out of the bound.

    >>> [(u, v)] = terms(np.outer([1.0, 2.0, 1.0], [-1.0, 0.0, 1.0]))
    >>> np.allclose(np.outer(u, v), [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    True
    """
    w = np.ascontiguousarray(w)
    return _terms(w.tobytes(), w.shape, w.dtype.name, accuracy)


@lru_cache(maxsize=64)
def _terms(data: bytes, shape: tuple[int, ...], dtype: str, accuracy: str) -> Terms | None:
    w = np.frombuffer(data, jnp.dtype(dtype)).reshape(shape)
    exact = w.astype(np.complex128 if np.iscomplexobj(w) else np.float64)
    u = float(jnp.finfo(dtype).eps) / 2
    if not np.isfinite(exact).all():
        return None
    # Each split may leave out its share: norms of what is left out add up.
    products = _split(exact, (2 * u + SVD) * float(np.linalg.norm(exact)) / max(1, len(shape) - 1))
    if accuracy == "elementwise":
        if len(products) != 1:
            return None
        if not (np.abs(exact - _outer(products[0])) <= (4 * u + SVD) * np.abs(exact)).all():
            return None
    return tuple(map(tuple, products))


def _split(w: np.ndarray, left_out: float) -> list[tuple[np.ndarray, ...]]:
    if w.ndim == 1:
        return [(w,)]
    a, s, b = np.linalg.svd(w.reshape(w.shape[0], -1), full_matrices=False)
    tails = np.sqrt(np.cumsum(s[::-1] ** 2))[::-1]  # norm of what is left out, if cut before each
    rank = max(1, int(np.sum(tails > left_out)))
    if rank == 1:  # w is u v^T: as sums over u v v, of one sign, small entries come out as exact as large ones
        flat, v = w.reshape(w.shape[0], -1), b[0]
        u = flat @ v.conj() / np.vdot(v, v)
        v = u.conj() @ flat / max(np.vdot(u, u).real, 1e-300)
        norm = max(float(np.linalg.norm(u)), 1e-300)
        return [(u, *vectors) for vectors in _split(v.reshape(w.shape[1:]), left_out / norm)]
    products = []
    for r in range(rank):
        root = np.sqrt(s[r])
        rest = (root * b[r]).reshape(w.shape[1:])
        products += [(root * a[:, r], *vectors) for vectors in _split(rest, left_out / max(root, 1e-300) / rank)]
    return products


def _outer(vectors: Sequence[np.ndarray]) -> np.ndarray:
    product = vectors[0]
    for vector in vectors[1:]:
        product = np.multiply.outer(product, vector)
    return product


def chain(problem: Problem) -> list[Problem]:
    """The one-dimensional Problems of a term, in order: each has done with the axes of those before.

    Axes with K = 1 have no vector of their own; the first Problem does with them.
    """
    summed = accumulator(problem).name  # so that nothing is rounded to a narrower type between the axes
    own = [d for d, axis in enumerate(problem.axes) if axis.K > 1] or [0]
    axes = [Axis(axis.I, 1, axis.I) if d in own else axis for d, axis in enumerate(problem.axes)]
    links = []
    for d in own:
        axes[d] = problem.axes[d]
        links.append(replace(problem, axes=tuple(axes), dtypes=Triple(summed, summed, summed)))
        axes = [Axis(axis.O, 1, axis.O) for axis in axes]
    return links
