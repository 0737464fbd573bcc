"""Results of integer types: SciPy's, to the last bit.

A sum is made whole toward zero, so its last bit decides between 36 and 37. It is therefore SciPy's own sum: in
float64, whatever `jax_enable_x64` says, of products that are rounded once, in SciPy's order,

    in N dimensions                    w[0]*x[0] + w[1]*x[1] + ...       as C counts; w of at most 2**-52 count as 0
    along an axis                      w[M-1]*x[M-1] + w[0]*x[0] + w[1]*x[1] + ...
    there with M odd and w symmetric   w[c]*x[c] + w[0]*(x[0] + x[M-1]) + w[1]*(x[1] + x[M-2]) + ...   c = M//2
    or antisymmetric                   the same, with x[0] - x[M-1], ...

(of weights that are traced nothing is known, so these count as not symmetric). A compiler may contract w*x + y to one
rounding. It cannot in

    x*w = x*a + x*b,    a: the first 20 bits of w,   b: the others, at most 33

where both products are exact, for integers below 2**20, and so is what it makes of them. Up to 2**33, the second one's
error is less than 2**-19 of the last bit, and changes it in as few cases. Beside a cval that may be no integer, a
comparison reads the product, too, so that it must be there, rounded. None of these sums is differentiated.

Source: NI_Correlate and NI_Correlate1D in scipy/ndimage/src/ni_filters.c; Dekker, A floating-point technique for
extending the available precision (1971).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer

from jaxconv.arguments import once_per_signature
from jaxconv.padding import Centred, extend
from jaxconv.problem import Axis

SAME = np.finfo(float).eps  # weights this far apart are SciPy's equals
UNROLLED, PIECE = 64, 16  # terms that are written out; terms of a pass, where there are more


def summed(
    call: str, flip: bool, image, weights, cval, axes, centres, mode: str, line: bool, size: int | None, dtype
) -> Array:
    """The image's sums with weights of its `axes`, divided by `size` if there is one, in a dtype that is an integer's.

    `flip` is of a convolution; `line` says that this is a filter along one axis.
    """
    weights = weights if isinstance(weights, jax.Array) else np.asarray(weights)
    if flip:
        weights = weights[(slice(None, None, -1),) * len(axes)]
        centres = [m - 1 - centre for m, centre in zip(np.shape(weights), centres, strict=True)]
    symmetry = _symmetry(weights) if line else None
    with jax.enable_x64(True):
        return _apply(
            image, weights, cval,
            call=call, axes=axes, centred=Centred(tuple(centres), False), mode=mode, symmetry=symmetry, size=size,
            dtype=dtype.name,
        )  # fmt: skip


def _symmetry(weights) -> int:
    if isinstance(weights, Tracer) or len(weights) % 2 == 0:
        return 0
    w = np.asarray(weights).astype(float)
    half = len(w) // 2
    before, after = w[:half], w[:half:-1]
    return next((s for s in (1, -1) if not (np.abs(after - s * before) > SAME).any()), 0)


@once_per_signature
def _apply(
    image: Array, weights: Array, cval: Array | None,
    *, call: str, axes: tuple[int, ...], centred: Centred, mode: str, symmetry: int | None, size: int | None,
    dtype: str,
) -> Array:  # fmt: skip
    """`symmetry` is 1, -1 or 0 along one axis, None in N dimensions."""
    if not image.size:
        return jnp.zeros(image.shape, dtype)
    image, weights = lax.stop_gradient((image, weights))
    relations: list[Axis | None] = [None] * image.ndim
    for d, axis in zip(axes, centred.axes(call, [image.shape[d] for d in axes], weights.shape), strict=True):
        relations[d] = axis
    v = image.astype(np.uint8) if image.dtype == np.bool_ else image
    v = v if cval is None else v.astype(float)
    fill = lax.stop_gradient(jnp.asarray(0 if cval is None else cval).reshape(()).astype(v.dtype))
    v, _ = extend(call, v, relations, mode, value=fill)

    w, count = weights.ravel().astype(float), weights.size
    if symmetry is None:
        taps = np.arange(count)
        w = jnp.where(jnp.abs(w) > SAME, w, 0)
    else:
        first = count // 2 if symmetry else count - 1
        taps = np.array([first, *range(first)])
    a = lax.reduce_precision(w, 11, 19)
    b = w - a

    at = np.zeros((count, image.ndim), np.int32)  # where each tap reads first
    at[:, list(axes)] = np.reshape([*np.ndindex(weights.shape)], (count, len(axes)))

    def read(taps, t) -> Array:
        start = at[taps[t]] if isinstance(t, int) else jnp.asarray(at[taps])[t]
        return lax.dynamic_slice(v, start, image.shape).astype(float)

    def add(y, t) -> Array:
        x = read(taps, t)
        if symmetry and y is not None:
            x = x + symmetry * read(count - 1 - taps, t)
        if size is None:
            k = taps[t] if isinstance(t, int) else jnp.asarray(taps)[t]
            x = x * a[k] + x * b[k] if cval is None else _rounded(x * w[k])
        return x if y is None else y + x

    def add_piece(i, y) -> Array:
        for t in range(PIECE):
            y = add(y, 1 + PIECE * i + t)
        return y

    y, pieces = add(None, 0), (len(taps) - 1) // PIECE if len(taps) > UNROLLED else 0
    y = lax.fori_loop(0, pieces, add_piece, y) if pieces else y
    for t in range(1 + PIECE * pieces, len(taps)):
        y = add(y, t)
    if size is not None:  # a divisor that XLA does not know to be one number: see `divided`
        y = y / jnp.where(jnp.isnan(y), y, size)
    return cast(y, jnp.dtype(dtype))


# A condition on the product that holds, but that no compiler finds out, as it does that a constant times what was
# an integer is a number: then nothing would stand between product and sum.
def _rounded(product: Array) -> Array:
    return jnp.where(product <= 2 * jnp.abs(product) + 1, product, jnp.nan)


# XLA multiplies by the reciprocal of what it knows to be one number, and 41 * (1/41) is not 1. A barrier hides that,
# and leaves the mean linear; but `jax.vmap` broadcasts it anew, and a batch may be a unit in the last place off.
def divided(total: Array, size: int) -> Array:
    """total / size, of floating or complex numbers, rounded once."""
    if jnp.iscomplexobj(total):
        return lax.complex(divided(total.real, size), divided(total.imag, size))
    return _divided(total, size)


@partial(jax.jit, static_argnums=1, inline=True)
def _divided(total: Array, size: int) -> Array:
    return total / lax.optimization_barrier(jnp.full_like(total, size))


def stored(dtype: np.dtype) -> np.dtype:
    """The dtype in which sums that end in a dtype are kept: SciPy's booleans are bytes, and true unless 0."""
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype


def cast(y: Array, dtype: np.dtype) -> Array:
    """y in a dtype, as NumPy converts: integers toward zero and modulo 2**bits (XLA would saturate).

    What no 64 bits hold, infinity and NaN, too, is the least number of 64 bits (of 32 for int32): lower bits of 0.
    """
    if dtype == np.bool_:
        return y != 0
    if jnp.issubdtype(dtype, np.integer) and jnp.issubdtype(y.dtype, np.floating):
        with jax.enable_x64(True):
            least = -(2.0**31) if dtype == np.int32 else -(2.0**63)
            whole = jnp.where(jnp.abs(y) < 2.0**63, y, least).astype(np.int64)
            y = jnp.where(y > 0, y.astype(np.uint64), whole.astype(np.uint64)) if dtype == np.uint64 else whole
            return y.astype(dtype)
    return y.astype(dtype)
