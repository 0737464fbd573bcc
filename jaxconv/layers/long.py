"""Convolutions as long as the sequence, for training in one piece and for inference sample by sample.

A state-space model, a Hyena operator and a CKConv are this layer with other parametrisations of the kernel. As many
products as the kernel is long would be needed for every output; the planner takes the FFT or overlap-save instead.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jaxconv.arguments import as_array, described, positive, promoted
from jaxconv.lax import conv_general_dilated
from jaxconv.layers.convolutional import inputs_of
from jaxconv.planner import Accuracy, Method, options_of

CHANNELS_LAST = ("NTC", "TIO", "NTC")


class ImplicitKernel(nnx.Module):
    """A kernel that a small network draws, so that its parameters do not grow with its length.

        kernel[t,c] = exp(-rate[c] * |t|/length) * (W2 sin(W1 [t/length, cos, sin of 2 pi f t/length] + b1) + b2)[c]

    for f = 1 to `frequencies`, with rates that begin between 1 and 10 and are learned; t is the position, 0 now.

    >>> from flax import nnx
    >>> ImplicitKernel(features=4, length=1000, rngs=nnx.Rngs(0))(1000).shape
    (1000, 4)

    Its call takes the number of taps, and for a two-sided kernel `first`, the position of the first one. Static under
    `jax.jit`: everything but the parameters. Returns an array (taps, features). Raises ValueError or TypeError for
    sizes that are not positive integers.

    Source: Romero et al., CKConv, 2021; Poli et al., Hyena Hierarchy, 2023.
    """

    def __init__(
        self, features: int, length: int, *, hidden: int = 32, frequencies: int = 16,
        param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs,
    ):  # fmt: skip
        call = "jaxconv.layers.ImplicitKernel"
        sizes = dict(features=features, length=length, hidden=hidden, frequencies=frequencies)
        for name, size in sizes.items():
            positive(call, name, size)
        self.length, self.frequencies = length, frequencies
        self.into = nnx.Linear(1 + 2 * frequencies, hidden, param_dtype=param_dtype, rngs=rngs)
        # The taps' sum of squares begins near 1: a sine has the mean square 1/2, the window about 1/(2 * 4) of length.
        scale = nnx.initializers.variance_scaling(16.0 / length, "fan_in", "normal")
        self.out = nnx.Linear(hidden, features, kernel_init=scale, param_dtype=param_dtype, rngs=rngs)
        self.rate = nnx.Param(jnp.linspace(1.0, 10.0, features, dtype=param_dtype))

    def __call__(self, taps: int, first: int = 0) -> Array:
        t = (first + jnp.arange(taps, dtype=self.rate.dtype))[:, None] / self.length
        angles = 2 * jnp.pi * t * jnp.arange(1, self.frequencies + 1, dtype=t.dtype)[None]
        position = jnp.concatenate([t, jnp.cos(angles), jnp.sin(angles)], 1)
        return jnp.exp(-self.rate[...][None] * jnp.abs(t)) * self.out(jnp.sin(self.into(position)))


class LongConvolve(nnx.Module):
    """A convolution along time, each channel with a kernel of its own as long as the sequence.

        y[n,t,c] = b[c] + sum over k of kernel[k,c] * x[n,t-k,c]

    with k from 0 to length-1, so that nothing depends on what comes later; with causal=False k goes
    from -(length-1) to length-1.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = LongConvolve(4, 512, rngs=nnx.Rngs(0))
    >>> x = jnp.ones((2, 512, 4))
    >>> y = layer(x)
    >>> state = layer.stream(batch=2)
    >>> first, state = layer.step(x[:, :100], state)
    >>> rest, state = layer.step(x[:, 100:], state)
    >>> bool(jnp.allclose(jnp.concatenate([first, rest], 1), y, atol=1e-5))
    True

    Parameters
    ----------
    features : int
        Channels.
    length : int
        Of the kernel: no sample acts on outputs `length` or more after it. Sequences may be shorter or longer.
    causal : bool
    kernel : None | nnx.Param | a function (taps, first) -> (taps, features)
        None for a parameter for each tap; or that parameter, (length, features), with causal=False
        (2*length - 1, features); or a module that gives the taps from position `first` on, such as
        `ImplicitKernel(features, length, rngs=rngs)`.
    use_bias, dtype, param_dtype, kernel_init, bias_init, rngs
        As nnx.Conv; the initial taps are normal, with squares that sum to 1 in each channel.
    method, accuracy
        As in `jaxconv.convolve`.

    Returns
    -------
    A module; its call takes x (batch..., time, features) to an array of this shape. `stream(batch)` is the state
    before the first sample, `step(x, state)` takes the next samples (batch, any number, features) to (y, state).
    The state is (batch, length-1, features): what the samples up to now add to outputs still to come (overlap-add). It
    is float32 where the outputs are of 16 bits, in which a sum of small terms would stand still.

    Raises
    ------
    ValueError, TypeError
        Sizes that are not positive integers, an x of another number of channels, `stream` and `step` of a layer that
        is not causal, a kernel that is neither a parameter nor a function, or of another shape; names of method and
        accuracy that do not exist.

    Static under `jax.jit`: everything but the parameters, x and the state.

    Source: Oppenheim and Schafer, Discrete-Time Signal Processing (overlap-add); Romero et al., CKConv, 2021.
    """

    def __init__(
        self, features: int, length: int, *, causal: bool = True,
        kernel: nnx.Param | Callable[..., Array] | None = None, use_bias: bool = True,
        dtype: DTypeLike | None = None, param_dtype: DTypeLike = jnp.float32,
        kernel_init: Callable[..., Array] | None = None, bias_init: Callable[..., Array] = nnx.initializers.zeros,
        method: Method = "auto", accuracy: Accuracy = "normwise", rngs: nnx.Rngs,
    ):  # fmt: skip
        call = "jaxconv.layers.LongConvolve"
        self.features, self.length = positive(call, "features", features), positive(call, "length", length)
        options_of(call, method, accuracy)
        self.causal, self.dtype = causal, dtype
        self.accuracy: Accuracy = accuracy
        self.method = method if isinstance(method, str) else nnx.static(dict(method))
        taps = length if causal else 2 * length - 1
        self.kernel: nnx.Param | Callable[..., Array]
        if isinstance(kernel, nnx.Param):
            if kernel.shape != (taps, features):
                raise ValueError(
                    f"`{call}` got a kernel of {described(kernel)}: it must be (taps, features) = ({taps}, "
                    f"{features}). Change its shape, or features and length."
                )
        elif kernel is not None and (isinstance(kernel, nnx.Variable) or not callable(kernel)):
            raise TypeError(
                f"`{call}` got a kernel of type {type(kernel).__name__}: it must be a function (taps, first) -> (taps, "
                "features) or an nnx.Param. Pass `nnx.Param(kernel)`."
            )
        if kernel is None:
            init = kernel_init or nnx.initializers.normal(taps**-0.5)
            self.kernel = nnx.Param(init(rngs.params(), (taps, features), param_dtype))
        else:
            self.kernel = kernel
        self.bias = nnx.Param(bias_init(rngs.params(), (features,), param_dtype)) if use_bias else nnx.data(None)

    def __call__(self, x: ArrayLike) -> Array:
        x = self._checked(x)
        *batch, time, _ = x.shape
        reach = max(min(self.length, time) - 1, 0)  # farther taps meet no sample
        taps = self._taps(0 if self.causal else -reach, reach)
        y = self._convolved(
            x.reshape(math.prod(batch), time, self.features), taps, (reach, 0 if self.causal else reach)
        )
        return self._biased(y).reshape(*batch, time, self.features)

    def stream(self, batch: int = 1) -> Array:
        """The state of a stream of which nothing was seen yet: zeros (batch, length-1, features)."""
        self._check_causal("stream")
        dtype = self._promoted(self._taps(0, 0))[0].dtype
        shape = (positive("LongConvolve.stream", "batch", batch), self.length - 1, self.features)
        return jnp.zeros(shape, promoted(dtype, jnp.float32))

    def step(self, x: ArrayLike, state: ArrayLike) -> tuple[Array, Array]:
        """The outputs for the next samples x (batch, samples, features), and the state after them."""
        self._check_causal("step")
        x, state = self._checked(x), jnp.asarray(as_array("LongConvolve.step", "state", state))
        if x.ndim != 3 or state.shape != (x.shape[0], self.length - 1, self.features):
            raise ValueError(
                f"`LongConvolve.step` got x of {described(x)} and a state of {described(state)}: x must be (batch, "
                f"samples, {self.features}) and the state (batch, {self.length - 1}, {self.features}). Begin with "
                "`stream(batch)`, and pass the state that the last step returned."
            )
        samples, tail = x.shape[1], self.length - 1
        x, taps = self._promoted(x, self._taps(0, tail))
        wide = promoted(x.dtype, jnp.float32)
        full = self._convolved(x, taps, (tail, tail), wide)  # every output that these samples act on
        full += jnp.pad(state, ((0, 0), (0, samples), (0, 0)))
        return self._biased(full[:, :samples].astype(x.dtype)), full[:, samples:]

    # Taps at the positions first to last, of those that the layer has.
    def _taps(self, first: int, last: int) -> Array:
        count = last - first + 1
        if isinstance(self.kernel, nnx.Param):
            start = first if self.causal else first + self.length - 1
            return self.kernel[...][start : start + count]
        taps = self.kernel(count, first)
        if taps.shape != (count, self.features):
            raise ValueError(
                f"`jaxconv.layers.LongConvolve` got a kernel function that returned {described(taps)} for {count} "
                f"taps: it must be (taps, features) = ({count}, {self.features}). Change its features."
            )
        return taps

    def _convolved(self, x: Array, taps: Array, pads: tuple[int, int], dtype: DTypeLike | None = None) -> Array:
        x, taps = self._promoted(x, taps)
        return conv_general_dilated(
            x, taps[:, None], (1,), [pads], dimension_numbers=CHANNELS_LAST, feature_group_count=self.features,
            flip_kernel=True, method=self.method, accuracy=self.accuracy, preferred_element_type=dtype,
        )  # fmt: skip

    def _promoted(self, *arrays: Array):
        return promote_dtype(arrays, dtype=self.dtype)

    def _biased(self, y: Array) -> Array:
        return y if self.bias is None else y + self.bias[...].astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))

    def _checked(self, x: ArrayLike) -> Array:
        x = inputs_of(self, x, "x")
        if x.ndim < 2 or x.shape[-1] != self.features:
            raise ValueError(
                f"`jaxconv.layers.LongConvolve` got x of {described(x)}: it must be (batch..., time, features) with "
                f"{self.features} features. Move the channels last, or make a layer of as many features."
            )
        return x

    def _check_causal(self, name: str) -> None:
        if not self.causal:
            raise ValueError(
                f"`LongConvolve.{name}` was called of a layer with causal=False: its outputs depend on samples that "
                "have not come yet. Make the layer with causal=True, or call it on whole sequences."
            )
