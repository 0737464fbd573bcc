"""The layers of networks: nnx.Conv and nnx.ConvTranspose on jaxconv's engines, as correlations and as convolutions.

nnx.Conv takes the operation as an argument, and Correlate and Convolve are that argument. nnx.ConvTranspose does
not; there the parameters are Flax's, and the call is ours.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxconv.arguments import as_array, described, is_integer
from jaxconv.boundary import NDIMAGE, Boundary, extended, names
from jaxconv.lax import conv_general_dilated, conv_transpose
from jaxconv.lax.base import Padding
from jaxconv.planner import Accuracy, Method, options_of

FLAX = names("flax")
BOUNDARIES = {**FLAX, **NDIMAGE}
# What to pass instead of Flax's names where the input is dilated.
DILATED = {name: f"{row.name!r}, which extends the input before its dilation" for name, row in FLAX.items()}
DILATED |= {"CAUSAL": "pairs (low, high), which pad the dilated input"}
NAMES = ("SAME", "VALID", "CAUSAL", *BOUNDARIES)


@dataclass(frozen=True)
class Operation:
    """`jaxconv.lax.conv_general_dilated` with its extra arguments set, as nnx.Conv and linen.Conv call it.

        y[n,m,o] = sum over c and k of x[n,c,i] * w[m,c,k]   where L*i + p = S*o + D*k

    Equal operations compare equal, so that models made alike are compiled once. The name of a boundary of
    `jaxconv.ndimage` is padding, too: beyond the border the input goes on by ((K-1)//2, K//2) positions, with K the
    dilated kernel's.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.arange(4.).reshape(1, 4, 1), jnp.array([1., 10., 100.]).reshape(3, 1, 1)
    >>> Operation()(x, w, (1,), "nearest", dimension_numbers=("NHC", "HIO", "NHC")).ravel()
    Array([100., 210., 321., 332.], dtype=float32)
    >>> Operation(flip_kernel=True) == Operation(flip_kernel=True)
    True

    flip_kernel and accuracy are those of `jaxconv.lax.conv_general_dilated`, and so is method, but that a mapping
    is given as pairs: (("forward", "fft"),). Returns an Array; raises as that function, and ValueError for a boundary
    of an empty axis.

    Static under `jax.jit`: everything but lhs and rhs. Source: flax.nnx.Conv, its argument conv_general_dilated.
    """

    flip_kernel: bool = False
    method: str | tuple[tuple[str, str], ...] = "auto"
    accuracy: Accuracy = "normwise"

    def __call__(self, lhs, rhs, window_strides, padding, lhs_dilation=None, rhs_dilation=None, **arguments) -> Array:
        lhs, rhs = (jnp.asarray(as_array("jaxconv.layers.Operation", n, a)) for n, a in (("lhs", lhs), ("rhs", rhs)))
        if isinstance(padding, str) and padding in NDIMAGE and lhs.ndim == rhs.ndim:
            K = [
                max(d * (k - 1) + 1, 1) for k, d in zip(rhs.shape, rhs_dilation or (1,) * (rhs.ndim - 2), strict=False)
            ]
            pads = [((k - 1) // 2, k // 2) for k in K]
            empty = any(k > 1 and n == 0 for k, n in zip(K, lhs.shape[1:], strict=False))
            if empty and NDIMAGE[padding].name != "constant":
                raise ValueError(
                    f"`jaxconv.layers.Operation` got padding={padding!r} for an input of {described(lhs)}: an empty "
                    "axis has no entry that could be repeated. Pass padding='SAME', or leave out empty inputs."
                )
            lhs, padding = _extended(lhs, pads, NDIMAGE[padding]), [(0, 0)] * len(pads)
        return conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation,
            flip_kernel=self.flip_kernel, **self.choice, **arguments,
        )  # fmt: skip

    @property
    def choice(self) -> dict[str, Any]:
        method = self.method if isinstance(self.method, str) else dict(self.method)
        return {"method": method, "accuracy": self.accuracy}


def _extended(x: Array, pads: Sequence[tuple[int, int]], boundary: Boundary) -> Array:
    """x (batch, spatial..., features) with so many positions more at the ends of its spatial axes."""
    for d, (low, high) in enumerate(pads, 1):
        x = extended(x, d, low, high, boundary) if low or high else x
    return x


def operation_of(call: str, flip_kernel: bool, method: Method, accuracy: Accuracy, padding, names, groups, *features):
    options_of(call, method, accuracy)
    if isinstance(padding, str) and padding not in names:
        raise ValueError(
            f"`{call}` got padding={padding!r}: the names are {', '.join(map(repr, names))}. Pass one of them, an "
            "int, or an int or a pair (low, high) for each axis. Upper case is Flax's, lower case scipy.ndimage's."
        )
    if not is_integer(groups) or groups < 1 or any(f % groups for f in features):
        raise ValueError(
            f"`{call}` got feature_group_count={groups!r} for in_features={features[0]}, out_features={features[1]}: "
            "it must be a positive divisor of both. Change it or the features."
        )
    return Operation(flip_kernel, tuple(sorted(method.items())) if isinstance(method, Mapping) else method, accuracy)


def inputs_of(layer: nnx.Module, inputs: Any, name: str = "inputs") -> Array:
    return jnp.asarray(as_array(f"jaxconv.layers.{type(layer).__name__}", name, inputs))


class _Layer(nnx.Conv):
    flip_kernel: ClassVar[bool]

    def __init__(
        self, in_features: int, out_features: int, kernel_size: int | Sequence[int], *args: Any,
        padding: Any = "SAME", feature_group_count: int = 1,
        method: Method = "auto", accuracy: Accuracy = "normwise", **kwargs: Any,
    ):  # fmt: skip
        call = f"jaxconv.layers.{type(self).__name__}"
        operation = operation_of(
            call, self.flip_kernel, method, accuracy, padding, (*NAMES, "SAME_LOWER"),
            feature_group_count, in_features, out_features,
        )  # fmt: skip
        super().__init__(
            in_features, out_features, kernel_size, *args, padding=padding, feature_group_count=feature_group_count,
            conv_general_dilated=operation, **kwargs,
        )  # fmt: skip
        if isinstance(padding, str) and padding in DILATED and np.max(self.input_dilation or 1) > 1:
            raise ValueError(
                f"`{call}` got padding={padding!r} with input_dilation={self.input_dilation!r}: Flax does not define "
                f"it for a dilated input. Pass {DILATED[padding]}."
            )

    def __call__(self, inputs: ArrayLike, *args: Any, **kwargs: Any) -> Array:
        return super().__call__(inputs_of(self, inputs), *args, **kwargs)


class Correlate(_Layer):
    """A layer of correlations with learned kernels: `nnx.Conv`, on jaxconv's engines.

        y[n,o,m] = b[m] + sum over c and k of x[n,i,c] * kernel[k,c,m]   where L*i + p = S*o + D*k

    with L the input_dilation, S the strides, D the kernel_dilation and p the low padding.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = Correlate(3, 8, (3, 3), padding="CIRCULAR", method="direct", rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 16, 16, 3))).shape
    (2, 16, 16, 8)

    Parameters
    ----------
    in_features, out_features, kernel_size, feature_group_count
    *args, **kwargs : strides, input_dilation, kernel_dilation, use_bias, mask, dtype, param_dtype, precision,
        kernel_init, bias_init, promote_dtype, preferred_element_type, rngs, kernel_metadata, bias_metadata: those of
        nnx.Conv, with its defaults.
    padding : 'SAME' | 'SAME_LOWER' | 'VALID' | 'CAUSAL' | 'CIRCULAR' | 'REFLECT' | a boundary | ints or pairs
        As nnx.Conv; or the name of a boundary of `jaxconv.ndimage` in lower case: 'reflect' (d c b a | a b c d |
        d c b a), 'mirror' (Flax's 'REFLECT'), 'nearest', 'wrap' (Flax's 'CIRCULAR') or 'constant', which pads by
        ((K-1)//2, K//2) whatever the stride.
    method : 'auto' | 'direct' | 'shifts' | 'gemm' | 'winograd' | 'fft' | 'overlap', or a mapping from pass to one
    accuracy : 'normwise' | 'close' | 'elementwise'
        As in `jaxconv.convolve`.

    Returns
    -------
    A module. Its call takes x (batch..., spatial..., in_features) to (batch..., spatial..., out_features), with any
    number of batch axes, and has the parameters `kernel` (spatial..., in_features/groups, out_features) and `bias`.

    Raises
    ------
    ValueError, TypeError
        Unknown names of padding, method or accuracy, groups that do not divide the features, 'CAUSAL', 'CIRCULAR' or
        'REFLECT' with an input_dilation; at the call, shapes that do not fit, a boundary of an empty axis, and a method
        that refuses.

    Static under `jax.jit`: everything but the parameters and x.

    Source: flax.nnx.Conv.
    """

    flip_kernel = False


class Convolve(_Layer):
    """A layer of true convolutions with learned kernels: `nnx.Conv` with its kernel turned by 180 degrees.

        y[n,o,m] = b[m] + sum over c and k of x[n,i,c] * kernel[k,c,m]   where L*i + p = S*o - D*(k - (K-1))

    Arguments, results and errors are those of `Correlate`; with a flipped kernel (`flip_kernels`) the two are
    the same layer, and so are their trainings. Static under `jax.jit`: everything but the parameters and x.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> a, b = Correlate(3, 8, (3, 3), rngs=nnx.Rngs(0)), Convolve(3, 8, (3, 3), rngs=nnx.Rngs(0))
    >>> b.kernel[...] = jnp.flip(a.kernel[...], (0, 1))
    >>> x = jnp.ones((2, 16, 16, 3))
    >>> bool(jnp.allclose(a(x), b(x), rtol=1e-4, atol=1e-4))
    True

    Returns a module; raises as `Correlate`. Source: flax.nnx.Conv.
    """

    flip_kernel = True


class _Transposed(nnx.ConvTranspose):
    flip_kernel: ClassVar[bool]

    def __init__(
        self, in_features: int, out_features: int, kernel_size: int | Sequence[int], *args: Any,
        padding: Any = "SAME", feature_group_count: int = 1, output_padding: int | Sequence[int] | None = None,
        method: Method = "auto", accuracy: Accuracy = "normwise",
        kernel_init: Callable[..., Array] | None = None, **kwargs: Any,
    ):  # fmt: skip
        call = f"jaxconv.layers.{type(self).__name__}"
        self.operation = operation_of(
            call, self.flip_kernel, method, accuracy, padding, NAMES, feature_group_count, in_features, out_features
        )
        if output_padding is not None and isinstance(padding, str) and padding not in ("SAME", "VALID"):
            raise ValueError(
                f"`{call}` got output_padding={output_padding!r} with padding={padding!r}: only 'SAME', 'VALID' and "
                "pairs leave the extent of the output open. Leave one of the two out."
            )
        self.feature_group_count = feature_group_count
        self.output_padding = output_padding
        # Of the two features' axes the first is the one that the groups split; Flax knows no groups.
        init = kernel_init or nnx.initializers.lecun_normal()

        def grouped(key, shape, dtype):
            return init(key, (*shape[:-2], shape[-2] // feature_group_count, shape[-1]), dtype)

        super().__init__(in_features, out_features, kernel_size, *args, padding=padding, kernel_init=grouped, **kwargs)
        self.kernel_shape = self.kernel.shape

    def __call__(self, inputs: ArrayLike) -> Array:
        inputs, spatial = inputs_of(self, inputs), len(self.kernel_size)
        batch = inputs.shape[: inputs.ndim - spatial - 1]
        x = inputs.reshape(math.prod(batch), *inputs.shape[len(batch) :])
        kernel = self.kernel[...]
        if self.mask is not None:
            if self.mask.shape != kernel.shape:
                raise ValueError(
                    f"`jaxconv.layers.{type(self).__name__}` got a mask of shape {self.mask.shape} for a kernel of "
                    f"shape {kernel.shape}: they must be the same. Make the mask of the kernel's shape."
                )
            kernel = kernel * self.mask
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = self.promote_dtype((x, kernel, bias), dtype=self.dtype)
        strides, dilation, more = (
            (given,) * spatial if isinstance(given, int) else tuple(given or (default,) * spatial)
            for given, default in ((self.strides, 1), (self.kernel_dilation, 1), (self.output_padding, 0))
        )
        x, padding = self._padded(x, strides, dilation)
        y = conv_transpose(
            x, kernel, strides, padding, dilation, _channels_last(spatial), self.transpose_kernel,
            self.precision, self.preferred_element_type,
            feature_group_count=self.feature_group_count, output_padding=more, flip_kernel=self.flip_kernel,
            **self.operation.choice,
        )  # fmt: skip
        y = y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
        return y.reshape(*batch, *y.shape[1:])

    # A name asks for S*N positions o of S*i + p = o + D*k. 'VALID' has p = K-1, K dilated, and max(K, S) - S
    # positions more, of which half are cut off at the low end: the lesser half, or with transpose_kernel the
    # greater, as in Flax (for S = 2, and S = 1 and odd K, (K-1)//2: the adjoint). 'CAUSAL' cuts at the high end alone.
    # i then runs from -(p // S) to (S*N + K-2 - p) // S, and what is beyond 0 to N-1 the boundary says.
    def _padded(self, x: Array, strides: Sequence[int], dilation: Sequence[int]) -> tuple[Array, Padding]:
        padding = self.padding
        if not isinstance(padding, str):
            spatial = len(strides)
            given = (padding,) * spatial if isinstance(padding, int) else padding
            return x, [(p, p) if isinstance(p, int) else p for p in given]
        if padding in ("SAME", "VALID"):
            return x, padding
        boundary = BOUNDARIES.get(padding)
        reach, pads = [], []
        for n, k, s, d in zip(x.shape[1:], self.kernel_size, strides, dilation, strict=False):
            K = d * (k - 1) + 1
            over = 0 if padding == "CAUSAL" else max(K, s) - s
            p = K - 1 - (over + self.transpose_kernel) // 2
            outside = boundary is not None and boundary.name != "constant"
            low, high = (p // s, (s * n + K - 2 - p) // s - (n - 1)) if outside and n else (0, 0)
            reach.append((low, high))
            pads.append((p - s * low, s * n + K - 2 - p - s * (n + high - 1)))
        return (x if boundary is None else _extended(x, reach, boundary)), pads


def _channels_last(spatial: int) -> tuple[str, str, str]:
    letters = "XYZUVW"[:spatial]
    return f"N{letters}C", f"{letters}IO", f"N{letters}C"


class CorrelateTranspose(_Transposed):
    """The fractionally strided layer with learned kernels: `nnx.ConvTranspose`, on jaxconv's engines, with groups.

        y[n,o,m] = b[m] + sum over c and k of x[n,i,c] * kernel[k,c,m]   where S*i + p = o + D*k

    The kernel is not flipped, as in Flax; with transpose_kernel=True it is, and its features are exchanged: the layer
    is then the adjoint of the `Correlate` that has this kernel, with 'SAME' and 'VALID', and with 'CIRCULAR' where the
    strides are 2, or 1 and the kernel odd (for others Flax's, and so this one, is that adjoint rolled).

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = CorrelateTranspose(8, 4, (4, 4), strides=2, feature_group_count=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 16, 16, 8))).shape
    (2, 32, 32, 4)

    Parameters
    ----------
    in_features, out_features, kernel_size, kernel_init
    *args, **kwargs : strides, kernel_dilation, use_bias, mask, dtype, param_dtype, precision, bias_init,
        transpose_kernel, promote_dtype, preferred_element_type, rngs, kernel_metadata, bias_metadata: those of
        nnx.ConvTranspose, with its defaults.
    padding : 'SAME' | 'VALID' | 'CAUSAL' | 'CIRCULAR' | 'REFLECT' | a boundary | ints or pairs
        As nnx.ConvTranspose: pairs pad the dilated input. A boundary's name extends the input as in `Correlate`, and
        the output has strides times its positions. 'CAUSAL': no output depends on an input after it.
    feature_group_count : int
        The kernel is (spatial..., in_features/groups, out_features), with transpose_kernel
        (spatial..., out_features/groups, in_features).
    output_padding : None | int | ints
        As many positions more at the end of each axis, fewer than the stride or the dilation.
    method, accuracy
        As in `Correlate`.

    Returns
    -------
    A module; its call takes (batch..., spatial..., in_features) to (batch..., spatial..., out_features).

    Raises
    ------
    ValueError, TypeError
        As `Correlate`; output_padding with a name that settles the output's extent; a mask of another shape.

    Static under `jax.jit`: everything but the parameters and x.

    Source: flax.nnx.ConvTranspose; Dumoulin and Visin, A guide to convolution arithmetic, 2016.
    """

    flip_kernel = False


class ConvolveTranspose(_Transposed):
    """The fractionally strided layer with its kernel turned by 180 degrees, as PyTorch's and Keras's are.

        y[n,o,m] = b[m] + sum over c and k of x[n,i,c] * kernel[k,c,m]   where S*i + p = o - D*(k - (K-1))

    Arguments, results and errors are those of `CorrelateTranspose`. Static under `jax.jit`: everything but the
    parameters and x.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = ConvolveTranspose(1, 1, 3, strides=2, padding="VALID", use_bias=False, rngs=nnx.Rngs(0))
    >>> layer.kernel[...] = jnp.array([1., 10., 100.]).reshape(3, 1, 1)
    >>> layer(jnp.array([[[1.], [2.]]])).ravel()
    Array([  1.,  10., 102.,  20., 200.], dtype=float32)

    Returns a module; raises as `CorrelateTranspose`. Source: flax.nnx.ConvTranspose.
    """

    flip_kernel = True
