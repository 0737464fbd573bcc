"""The operator norm of a layer: how much it can lengthen an input, from its symbol.

On a torus a layer is diagonal in the Fourier basis: at each frequency f it multiplies the features by the matrix
A(f) = sum over k of kernel[k] exp(2 pi i f D k / P), and its norm is the greatest singular value of them all. What
nnx.SpectralNorm normalises is the norm of the kernel reshaped to one matrix, which is another number.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxconv.arguments import is_integer, per_axis, promoted
from jaxconv.layers.convolutional import BOUNDARIES, inputs_of


# A stride S keeps the outputs on multiples of S: the S frequencies f + a P/S meet in one, and the layer is the block
# row [A(f), A(f + P/S), ...] / sqrt(S). An input dilation is the adjoint of that, a block column.
#
# With zeros beyond the border the layer is a piece of the same layer on a torus so large that nothing wraps around,
# P >= I + K - 1: its norm is no greater. Another boundary first extends the input; the extension copies entries, and
# its squared norm is the number of copies of the entry that has most.
def operator_norm(layer: nnx.Conv | nnx.ConvTranspose, spatial: int | Sequence[int]) -> Array:
    """The norm of a layer without its bias, for inputs of these spatial extents; or an upper bound of it.

        max over x of |layer(x) - bias| / |x| = max over f of sigma_max(A(f))

    with A(f) the matrices at the frequencies f of the torus. Exact, up to rounding, where the boundary is
    circular and the strides divide the extents, without input dilation; otherwise no less than the norm, and with
    zeros beyond the border close to it. Differentiable in the kernel.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv.layers import Correlate
    >>> layer = Correlate(1, 1, 3, padding="CIRCULAR", rngs=nnx.Rngs(0))
    >>> layer.kernel[...] = jnp.array([1., -2., 1.]).reshape(3, 1, 1)
    >>> operator_norm(layer, (16,))
    Array(4., dtype=float32)

    Parameters
    ----------
    layer : Correlate, Convolve, CorrelateTranspose, ConvolveTranspose, nnx.Conv or nnx.ConvTranspose
    spatial : int | ints
        The extents of the input, one for each axis of the kernel; of one axis also the int alone.

    Returns an Array without axes. The cost is one singular value of an in_features by out_features matrix (of a
    group) for each frequency.

    Raises
    ------
    TypeError
        Another kind of layer.
    ValueError
        Another number of extents, or extents below 1.

    Static under `jax.jit`: everything but the layer's parameters.

    Source: Sedghi, Gupta and Long, The singular values of convolutional layers, 2019.
    """
    if not isinstance(layer, nnx.Conv | nnx.ConvTranspose):
        raise TypeError(
            f"`jaxconv.layers.operator_norm` got a layer of type {type(layer).__name__}: it must be an nnx.Conv, an "
            "nnx.ConvTranspose or one of jaxconv's. For nnx.Linear use `jnp.linalg.norm(kernel, 2)`."
        )
    rank = len(layer.kernel_size)
    spatial = _extents(layer, spatial)
    transposed = isinstance(layer, nnx.ConvTranspose)
    groups = getattr(layer, "feature_group_count", 1)
    kernel = layer.kernel[...] if layer.mask is None else layer.kernel[...] * layer.mask
    kernel = kernel.astype(promoted(kernel.dtype, jnp.float32))
    names = ("strides", "kernel_dilation", "input_dilation")
    steps = (per_axis("jaxconv.layers.operator_norm", n, getattr(layer, n, 1) or 1, rank) for n in names)
    strides, D, L = steps
    S, L = ((1,) * rank, strides) if transposed else (strides, L)
    K = [d * (k - 1) + 1 for k, d in zip(layer.kernel_size, D, strict=True)]
    outside = BOUNDARIES.get(layer.padding) if isinstance(layer.padding, str) else None
    dilated = [l * n for l, n in zip(L, spatial, strict=True)]
    copies = 1
    circular = transposed or (max(L) == 1 and all(n % s == 0 for n, s in zip(spatial, S, strict=True)))
    if outside and outside.name == "wrap" and circular:
        P = dilated
    else:
        extents = spatial
        if outside and outside.name != "constant":
            reach = [(k, k) if transposed else ((k - 1) // 2, k // 2) for k in K]
            mode: Any = outside.numpy[0]
            entries = [np.pad(np.arange(n), r, mode=mode) for n, r in zip(spatial, reach, strict=True)]
            copies = math.prod(int(np.bincount(e).max()) for e in entries)
            extents = [len(e) for e in entries]
        P = [l * (n - 1) + 1 + k - 1 for l, n, k in zip(L, extents, K, strict=True)]
        P = [s * l * -(-p // (s * l)) for p, s, l in zip(P, S, L, strict=True)]
    T = S if max(S) > 1 else L  # where both are, the dilation alone lengthens nothing
    whole = max(T) > 1
    half = not whole and not jnp.iscomplexobj(kernel)  # A(-f) is the conjugate of A(f)
    symbol = jnp.moveaxis(kernel, (-2, -1), (0, 1))  # a, (g b), k...
    wave = promoted(symbol.dtype, jnp.complex64)
    for axis, (p, k, d) in enumerate(zip(P, kernel.shape, D, strict=False)):
        f = np.arange(p // 2 + 1 if half and axis == rank - 1 else p)
        fourier = np.exp(2j * np.pi * (np.outer(f, d * np.arange(k)) % p) / p)
        symbol = jnp.tensordot(symbol.astype(wave), jnp.asarray(fourier, wave), ((2,), (1,)))
    a, gb = symbol.shape[:2]
    parts = [n for p, t in zip(symbol.shape[2:], T, strict=True) for n in (t, p // t)] if whole else []
    symbol = symbol.reshape(a, groups, gb // groups, *(parts or symbol.shape[2:]))
    aliases = range(3, 3 + len(parts), 2)
    # The frequencies join the input's side for a stride, the output's for a dilation. a is the input's side, but for
    # transpose_kernel.
    if (max(S) == 1 and max(L) > 1) != (transposed and layer.transpose_kernel):
        symbol = jnp.swapaxes(symbol, 0, 2)
    symbol = jnp.moveaxis(symbol, (0, *aliases), range(-1 - len(aliases), 0))  # g, b, f..., a, aliases
    symbol = jnp.moveaxis(symbol, 1, -2 - len(aliases))
    matrices = symbol.reshape(*symbol.shape[: symbol.ndim - len(aliases) - 1], -1)
    if matrices.shape[-1] > matrices.shape[-2]:
        matrices = jnp.swapaxes(matrices, -1, -2)
    gram = jnp.einsum("...ij,...ik->...jk", matrices.conj(), matrices)
    square = gram.real.max() if gram.shape[-1] == 1 else jnp.linalg.eigvalsh(gram).max()
    square = jnp.maximum(square, jnp.finfo(square.dtype).tiny)  # its root has a derivative
    return jnp.sqrt(square) * math.sqrt(copies / math.prod(T))


def _extents(layer: nnx.Conv | nnx.ConvTranspose, spatial: Any) -> tuple[int, ...]:
    rank = len(layer.kernel_size)
    extents = (spatial,) if is_integer(spatial) else tuple(spatial) if np.iterable(spatial) else ()
    if len(extents) != rank or not all(is_integer(n) and n >= 1 for n in extents):
        raise ValueError(
            f"`jaxconv.layers.operator_norm` got spatial={spatial!r} for a kernel of shape {layer.kernel.shape}: it "
            f"must have {rank} extents, integers of at least 1. Pass the input's spatial shape."
        )
    return extents


class SpectralNorm(nnx.Module):
    """A layer whose kernel is divided by the norm of the operator, so that it lengthens nothing by more than `bound`.

        y = layer(x) with kernel * bound / operator_norm(layer)

    The norm is that for x's extents: exact for circular boundaries, so that the layer's norm is `bound`; otherwise
    a bound, and the layer's norm is at most `bound`. Gradients flow through the norm.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv.layers import Correlate
    >>> layer = SpectralNorm(Correlate(3, 8, (3, 3), padding="CIRCULAR", rngs=nnx.Rngs(0)))
    >>> x = jnp.ones((1, 8, 8, 3))
    >>> bool(jnp.linalg.norm(layer(x)) <= jnp.linalg.norm(x) * (1 + 1e-6))
    True

    Parameters
    ----------
    layer : as in `operator_norm`
    bound : float

    Returns a module with the layer's call. Raises as `operator_norm`, when it is called; ValueError for a bound that
    is not positive.

    Static under `jax.jit`: everything but the parameters and x.

    Source: Miyato et al., Spectral normalization for generative adversarial networks, 2018; with the operator's
    norm as in Sedghi, Gupta and Long, 2019.
    """

    def __init__(self, layer: nnx.Conv | nnx.ConvTranspose, bound: float = 1.0):
        if not bound > 0:
            raise ValueError(f"`jaxconv.layers.SpectralNorm` got bound={bound!r}: it must be positive. Pass 1.0.")
        self.layer, self.bound = layer, bound

    def __call__(self, x: ArrayLike) -> Array:
        x = inputs_of(self, x, "x")
        rank = len(self.layer.kernel_size) if hasattr(self.layer, "kernel_size") else 0
        norm = operator_norm(self.layer, x.shape[x.ndim - 1 - rank : x.ndim - 1])
        scaled = nnx.clone(self.layer)
        kernel = self.layer.kernel[...]
        # Divided in the norm's dtype: its inverse may be more than float16 holds.
        scaled.kernel[...] = (kernel / norm * self.bound).astype(kernel.dtype)
        return scaled(x)
