"""Boundaries: how an array goes on beyond its border, what each library calls that, and the extended array."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

Names = tuple[str, ...]  # a library may have several for one boundary, or none


@dataclass(frozen=True)
class Boundary:
    """One way to go on: its name here, and those that other libraries have for it.

    `ndimage` are scipy.ndimage's, which every filter and convolution here takes; `signal` scipy.signal's for images;
    `upfirdn` and `savgol` its functions' of these names; `numpy` modes of numpy.pad; `torch` PyTorch's padding_mode;
    `flax` Flax's padding.
    """

    name: str
    ndimage: Names
    signal: Names
    upfirdn: Names
    savgol: Names
    numpy: Names
    torch: Names
    flax: Names


# v v | a b c d | v v    constant, a given value          reflect    d c b a | a b c d | d c b a
# a a | a b c d | d d    nearest                          mirror       d c b | a b c d | c b a
# c d | a b c d | a b    wrap                             antisymmetric, antireflect: these two, negated or turned
# smooth goes on by the line through the last two entries, line by that through both ends.
TABLE = """
name           ndimage                 signal          upfirdn        savgol    numpy      torch      flax
constant       constant,grid-constant  fill,pad        constant       constant  constant   zeros      -
reflect        reflect,grid-mirror     symm,symmetric  symmetric      -         symmetric  -          -
mirror         mirror                  -               reflect        mirror    reflect    reflect    REFLECT
nearest        nearest                 -               edge           nearest   edge       replicate  -
wrap           wrap,grid-wrap          wrap,circular   wrap           wrap      wrap       circular   CIRCULAR
antisymmetric  -                       -               antisymmetric  -         -          -          -
antireflect    -                       -               antireflect    -         -          -          -
smooth         -                       -               smooth         -         -          -          -
line           -                       -               line           -         -          -          -
"""
BOUNDARIES = tuple(
    Boundary(name, *(() if entry == "-" else tuple(entry.split(",")) for entry in entries))
    for name, *entries in (line.split() for line in TABLE.strip().splitlines()[1:])
)


@cache
def names(library: str) -> Mapping[str, Boundary]:
    """What a library's names mean.

    >>> names("upfirdn")["reflect"].name
    'mirror'
    """
    return {name: boundary for boundary in BOUNDARIES for name in getattr(boundary, library)}


NDIMAGE = names("ndimage")


def extended(x: Array, axis: int, low: int, high: int, boundary: Boundary, value: ArrayLike = 0) -> Array:
    """x with so many positions more at the ends of an axis; `value` stands there if the boundary is 'constant'.

    What is repeated is repeated again and again: both may be many times as long as x. An axis of a single entry has no
    slope: lines go on as that entry.

    >>> extended(jnp.array([1., 2., 4.]), 0, 2, 1, names("upfirdn")["smooth"])
    Array([-1.,  0.,  1.,  2.,  4.,  6.], dtype=float32)
    """
    n = x.shape[axis]
    pads = [(low, high) if d == axis else (0, 0) for d in range(x.ndim)]
    along = [-1 if d == axis else 1 for d in range(x.ndim)]
    if boundary.name == "constant":
        return jnp.pad(x, pads, constant_values=value)
    if boundary.numpy:
        return jnp.pad(x, pads, boundary.numpy[0])
    if boundary.name == "antisymmetric":  # every second copy is negated
        signs = np.where(np.arange(-low, n + high) // n % 2 == 0, 1, -1)
        return jnp.pad(x, pads, "symmetric") * signs.astype(x.dtype).reshape(along)
    if n == 1:
        return jnp.pad(x, pads, "edge")
    if boundary.name == "antireflect":
        return jnp.pad(x, pads, "reflect", reflect_type="odd")
    first, second, last_but_one, last = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, 1, n - 2, n - 1))
    start, end = (second - first, last - last_but_one) if boundary.name == "smooth" else [(last - first) / (n - 1)] * 2
    before, after = (np.arange(*r).astype(x.dtype).reshape(along) for r in ((-low, 0), (1, high + 1)))
    return jnp.concatenate([first + start * before, x, last + end * after], axis)
