"""The layers: against Flax's on lax in exact integers, sums and dense matrices of NumPy, and their own laws."""
# ruff: noqa: E501 (a table of errors: one call a line)

import ast
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.test_util import check_grads

import jaxconv.layers
from jaxconv.engines import ENGINES
from jaxconv.layers import (
    Convolve,
    ConvolveTranspose,
    Correlate,
    CorrelateTranspose,
    ImplicitKernel,
    LongConvolve,
    Operation,
    SpectralNorm,
    operator_norm,
    replace_convs,
)
from jaxconv.padding import lax_axes
from jaxconv.problem import Problem, Triple
from tests.problems import check

# Small integers, which the engines of this accuracy add without rounding: every sum is below 256.
EXACT = dict(accuracy="elementwise")
DIRECT = dict(method="direct")
FLIPPED = {Correlate: Convolve, CorrelateTranspose: ConvolveTranspose}


def integers(rng, shape, dtype=jnp.float32, most=1):
    return jnp.asarray(rng.integers(-most, most + 1, shape), dtype)


def drawn(key, shape, dtype):
    """An initialiser that compiles nothing."""
    return jnp.asarray(np.random.default_rng(3).normal(size=shape), dtype)


def made(cls, *args, **kwargs):
    return cls(*args, **(dict(kernel_init=drawn, rngs=nnx.Rngs(0)) | kwargs))


def with_integers(layer, rng):
    """The layer with parameters from -1 to 1."""
    nnx.update(layer, jax.tree.map(lambda a: integers(rng, a.shape, a.dtype), nnx.state(layer, nnx.Param)))
    return layer


def twice(arrays, dtype=None):
    return tuple(None if a is None else 2 * a for a in arrays)


# 1. Parity with Flax: the input's shape, features out, kernel_size, arguments.

X1, X2 = (2, 7, 4), (2, 6, 5, 4)
MASK = jnp.asarray(np.arange(3 * 4 * 6).reshape(3, 4, 6) % 3 > 0, jnp.float32)
NORMAL = nnx.initializers.normal(3.0)
BOTH = {
    "default": (X2, 6, (3, 3), {}),
    "size int": (X1, 6, 3, {}),
    "size even": (X2, 6, [2, 4], dict(strides=2)),
    "3-D": ((1, 3, 2, 3, 2), 2, (2, 3, 2), dict(strides=(1, 2, 1))),
    "strides tuple, VALID": (X2, 6, (3, 2), dict(strides=(1, 2), padding="VALID")),
    "strides None": (X1, 6, 3, dict(strides=None, kernel_dilation=None)),
    "strides over the kernel": (X1, 6, 2, dict(strides=4, padding="VALID")),
    "SAME, dilated": (X1, 6, 3, dict(kernel_dilation=2)),
    "VALID, dilated": (X2, 6, (2, 2), dict(padding="VALID", kernel_dilation=(1, 2))),
    "CIRCULAR": (X2, 6, (3, 4), dict(padding="CIRCULAR")),
    "CIRCULAR, dilated, strides": (X1, 6, 4, dict(padding="CIRCULAR", kernel_dilation=2, strides=3)),
    "pad int": (X2, 6, (3, 3), dict(padding=2, strides=2)),
    "pad ints": (X2, 6, (3, 2), dict(padding=(2, 1))),
    "pad pairs": (X2, 6, (3, 3), dict(padding=((1, 2), (3, 0)))),
    "pad mixed": (X2, 6, (3, 3), dict(padding=[1, (0, 2)])),
    "no bias, no batch": (X1[1:], 6, 3, dict(use_bias=False)),
    "two batch axes": ((2, 3, 5, 4), 6, 3, {}),
    "two batch axes, CIRCULAR": ((2, 1, 5, 4), 6, 3, dict(padding="CIRCULAR")),
    "mask": (X1, 6, 3, dict(mask=MASK)),
    "bfloat16": (X1, 6, 3, dict(dtype=jnp.bfloat16)),
    "bfloat16 parameters": (X1, 6, 3, dict(param_dtype=jnp.bfloat16, padding="CIRCULAR")),
    "float16 of both": (X1, 6, 3, dict(dtype=jnp.float16, param_dtype=jnp.float16, use_bias=False)),
    "precision": (X1, 6, 3, dict(precision="highest", preferred_element_type=jnp.float32)),
    "inits": (X1, 6, 3, dict(kernel_init=NORMAL, bias_init=NORMAL)),
    "promote_dtype": (X1, 6, 3, dict(promote_dtype=twice)),
}
CONV = BOTH | {
    "REFLECT": (X2, 6, (3, 4), dict(padding="REFLECT", strides=(1, 2))),
    "CAUSAL": (X1, 6, 3, dict(padding="CAUSAL")),
    "CAUSAL, dilated, strides": (X1, 6, 3, dict(padding="CAUSAL", kernel_dilation=2, strides=2)),
    "SAME_LOWER": (X1, 6, 4, dict(padding="SAME_LOWER")),
    "input dilated": (X2, 6, (3, 3), dict(input_dilation=(2, 1), padding=((1, 2), (0, 1)), strides=(2, 1))),
    "input dilated int": (X1, 6, 3, dict(input_dilation=2, padding=2)),
    "input dilated None": (X1, 6, 3, dict(input_dilation=None)),
    "groups": (X2, 6, (3, 3), dict(feature_group_count=2)),
    "groups, CIRCULAR": (X1, 8, 3, dict(feature_group_count=4, padding="CIRCULAR")),
}
TRANSPOSED = BOTH | {
    "transpose_kernel": (X2, 6, (3, 2), dict(transpose_kernel=True, strides=2)),
    "transpose_kernel, mask": (X1, 6, 3, dict(transpose_kernel=True, mask=MASK.swapaxes(1, 2))),
    "transpose_kernel, VALID": (X1, 6, 4, dict(transpose_kernel=True, padding="VALID", kernel_dilation=2)),
    "transpose_kernel, CIRCULAR": (X2, 6, (4, 3), dict(transpose_kernel=True, padding="CIRCULAR", strides=(2, 3))),
    "CIRCULAR, long": ((2, 3, 4), 6, 8, dict(padding="CIRCULAR")),
    "CIRCULAR, long, strides": ((2, 2, 4), 6, 9, dict(padding="CIRCULAR", strides=2)),
    "CIRCULAR, long, both": ((2, 3, 4), 6, 8, dict(padding="CIRCULAR", transpose_kernel=True)),
    "CIRCULAR, strides over the kernel": (X1, 6, 2, dict(padding="CIRCULAR", strides=5)),
}
GRID = {f"{theirs.__name__}: {name}": (ours, theirs, *row)
        for ours, theirs, rows in ((Correlate, nnx.Conv, CONV), (CorrelateTranspose, nnx.ConvTranspose, TRANSPOSED))
        for name, row in rows.items()}  # fmt: skip


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", GRID)
def test_parity_with_flax(name, rng):
    ours, theirs, shape, out, size, arguments = GRID[name]
    choice = EXACT if size == 3 else EXACT | DIRECT
    inits = {} if size == 3 else dict(kernel_init=drawn)  # Flax's compiles a second for each shape
    layers = [
        cls(shape[-1], out, size, **(inits | arguments), **more, rngs=nnx.Rngs(0))
        for cls, more in ((ours, choice), (theirs, {}))
    ]
    states = [nnx.to_pure_dict(nnx.state(layer)) for layer in layers]
    jax.tree.map(equal, *states)
    assert (layers[0].bias is None) == (not arguments.get("use_bias", True))
    state = jax.tree.map(lambda a: integers(rng, a.shape, a.dtype), states[0])
    x = integers(rng, shape)
    exact = 256 if "bfloat16" in name else 2048

    @jax.jit
    def outcomes(state, x):
        def outcome(layer):
            def scalar(state, x):
                model = nnx.clone(layer)
                nnx.replace_by_pure_dict(found := nnx.state(model), state)
                nnx.update(model, found)
                y = model(x)
                weights = integers(np.random.default_rng(1), y.shape, y.dtype)
                return (y * weights).sum(dtype=jnp.float32), y

            return jax.grad(scalar, (0, 1), has_aux=True)(state, x)

        return [outcome(layer) for layer in layers]

    a, b = outcomes(state, x)
    jax.tree.map(equal, a, b)
    assert all(0 < np.abs(leaf).max() <= exact for leaf in jax.tree.leaves(b))


def equal(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_a_wider_output_than_the_operands(rng):
    arguments = dict(dtype=jnp.bfloat16, preferred_element_type=jnp.float32, rngs=nnx.Rngs(0))
    x = integers(rng, (2, 7, 4), most=99)
    for ours, theirs in ((Correlate, nnx.Conv), (CorrelateTranspose, nnx.ConvTranspose)):
        a, b = (with_integers(cls(4, 6, 3, **arguments), np.random.default_rng(1))(x) for cls in (ours, theirs))
        assert a.dtype == jnp.float32
        equal(a, b)
        assert (b != b.astype(jnp.bfloat16)).any()


def test_the_metadata_of_parameters():
    more = dict(kernel_metadata=dict(tag="k"), bias_metadata=dict(tag="b"), rngs=nnx.Rngs(0))
    for cls in (Correlate, Convolve, CorrelateTranspose, ConvolveTranspose):
        layer = cls(4, 6, 3, **more)
        assert (layer.kernel.tag, layer.bias.tag) == ("k", "b")


# 2. Laws

# scipy.ndimage's names, and numpy.pad's modes.
BOUNDARIES = {
    "constant": "constant",
    "reflect": "symmetric",
    "mirror": "reflect",
    "nearest": "edge",
    "wrap": "wrap",
    "grid-constant": "constant",
    "grid-mirror": "symmetric",
    "grid-wrap": "wrap",
}
PADDINGS = ("SAME", "VALID", "CAUSAL", "CIRCULAR", "REFLECT", ((2, 1),), *BOUNDARIES)


@pytest.mark.covering
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("correlate", FLIPPED)
def test_a_convolution_is_a_correlation_with_the_flipped_kernel(correlate, padding, rng):
    more = dict(strides=2, padding=padding, kernel_dilation=2, feature_group_count=2, **DIRECT)
    a, b = (made(cls, 4, 6, 4, **more) for cls in (correlate, FLIPPED[correlate]))
    equal(a.kernel[...], b.kernel[...])
    kernel = a.kernel[...]

    @jax.jit
    def both(kernel, x):
        one, two = nnx.clone(a), nnx.clone(b)
        one.kernel[...], two.kernel[...] = kernel, jnp.flip(kernel, 0)
        return one(x), two(x)

    y, z = both(kernel, jnp.asarray(rng.normal(size=(2, 9, 4)), jnp.float32))
    equal(y, z)
    assert jnp.abs(y - b(jnp.ones((2, 9, 4)))).max() > 0


@pytest.mark.parametrize("cls", [Convolve, ConvolveTranspose])
def test_the_flip_in_two_axes_and_its_gradients(cls, rng):
    correlate = {v: k for k, v in FLIPPED.items()}[cls]
    layers = [with_integers(made(c, 2, 4, (3, 2), **DIRECT), rng) for c in (correlate, cls)]
    x, kernel = integers(rng, (2, 4, 5, 2)), integers(rng, (3, 2, 2, 4))

    @jax.jit
    def outcomes(kernel, x):
        def outcome(layer, flip):
            def scalar(kernel, x):
                model = nnx.clone(layer)
                model.kernel[...], model.bias[...] = flip(kernel), jnp.ones(4)
                y = model(x)
                return (y * y).sum(), y

            return jax.grad(scalar, (0, 1), has_aux=True)(kernel, x)

        return outcome(layers[0], lambda k: k), outcome(layers[1], lambda k: jnp.flip(k, (0, 1)))

    jax.tree.map(equal, *outcomes(kernel, x))


# The extents of the kernel, to many times the image; and the dilation.
@pytest.mark.parametrize("boundary", [*BOUNDARIES, "CIRCULAR", "REFLECT"])
def test_boundaries_are_numpys(boundary, rng):
    mode = BOUNDARIES.get({"CIRCULAR": "wrap", "REFLECT": "mirror"}.get(boundary, boundary))
    x = rng.integers(-2, 3, (2, 4, 3, 2))
    sizes, D, S = (4, 9), (1, 2), (2, 1)
    layer = with_integers(made(Correlate, 2, 3, sizes, S, padding=boundary, kernel_dilation=D, **DIRECT), rng)
    pads = [((k - 1) // 2, k // 2) for k in (4, 17)]
    extended = np.pad(x, [(0, 0), *pads, (0, 0)], mode)
    windows = np.lib.stride_tricks.sliding_window_view(extended, (4, 17), (1, 2))[:, ::2, :, :, :, ::2]
    expected = np.einsum("nhwckl,klcm->nhwm", windows, np.asarray(layer.kernel[...]))
    np.testing.assert_array_equal(layer(jnp.asarray(x, jnp.float32)), expected + np.asarray(layer.bias[...]))


@pytest.mark.parametrize(("name", "mode"), [("mirror", "reflect"), ("wrap", "wrap")])
def test_a_boundary_extends_the_input_before_its_dilation(name, mode, rng):
    layer = with_integers(made(Correlate, 2, 3, 4, padding=name, input_dilation=2, **DIRECT), rng)
    flax = made(nnx.Conv, 2, 3, 4, padding=((0, 0),), input_dilation=2)
    nnx.update(flax, nnx.state(layer))
    x = integers(rng, (2, 5, 2))
    equal(layer(x), flax(jnp.pad(x, ((0, 0), (1, 2), (0, 0)), mode)))  # as nnx.Conv extends it without a dilation


# y[o] over S*i + p = o + D*k: with p = D*(K-1) all that a sample acts on, then cut as the names say.
def scattered(x, kernel, S, D, boundary, transpose_kernel):
    """The transposed layer of x (n, time, c) as a scatter of every sample of the extended input."""
    if transpose_kernel:
        kernel = kernel[::-1].swapaxes(1, 2)
    N, reach = x.shape[1], D * (len(kernel) - 1)
    mode = BOUNDARIES.get({"CIRCULAR": "wrap", "REFLECT": "mirror"}.get(boundary, boundary), "constant")
    R = reach + 1
    x = np.pad(x, [(0, 0), (R, R), (0, 0)], mode)
    y = np.zeros((len(x), S * x.shape[1] + reach, kernel.shape[2]))
    for i in range(x.shape[1]):
        for k, tap in enumerate(kernel):
            y[:, S * i + reach - D * k] += x[:, i] @ tap
    cut = 0 if boundary == "CAUSAL" else (max(reach + 1, S) - S + transpose_kernel) // 2
    return y[:, S * R + cut :][:, : S * N]


@pytest.mark.parametrize("boundary", ["CIRCULAR", "REFLECT", "CAUSAL", *BOUNDARIES])
def test_boundaries_of_transposed_layers(boundary, rng):
    for K, S, D, transpose_kernel in ((4, 2, 1, False), (3, 3, 2, True), (2, 3, 1, False), (7, 1, 1, True)):
        layer = made(
            CorrelateTranspose, 2, 3, K, S, padding=boundary, kernel_dilation=D, transpose_kernel=transpose_kernel,
            use_bias=False, **DIRECT,
        )  # fmt: skip
        with_integers(layer, rng)
        x = rng.integers(-2, 3, (2, 3, 2))
        expected = scattered(x, np.asarray(layer.kernel[...]), S, D, boundary, transpose_kernel)
        np.testing.assert_array_equal(layer(jnp.asarray(x, jnp.float32)), expected)


@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR", ((2, 1),)], ids=str)
@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_groups_are_layers_side_by_side(padding, transpose_kernel, rng):
    more = dict(strides=2, padding=padding, transpose_kernel=transpose_kernel, use_bias=False)
    layer = with_integers(made(CorrelateTranspose, 4, 6, 3, feature_group_count=2, **more, **DIRECT), rng)
    assert layer.kernel.shape == layer.kernel_shape == ((3, 3, 4) if transpose_kernel else (3, 2, 6))
    x, parts = integers(rng, (2, 5, 4)), []
    for group, kernel in enumerate(jnp.split(layer.kernel[...], 2, -1)):
        part = made(nnx.ConvTranspose, 2, 3, 3, **more)
        part.kernel[...] = kernel
        parts.append(part(x[..., 2 * group : 2 * group + 2]))
    equal(layer(x), jnp.concatenate(parts, -1))


# padding, extent, kernel, stride, dilation, groups; extents that the stride leaves nothing of
ADJOINTS = [
    ("SAME", 6, 3, 2, 1, 1), ("SAME", 6, 4, 3, 1, 2), ("SAME", 5, 4, 1, 2, 2), ("SAME", 8, 2, 4, 1, 1),
    ("VALID", 7, 3, 2, 1, 2), ("VALID", 9, 3, 2, 2, 1), ("VALID", 6, 2, 3, 1, 2),
    ("CIRCULAR", 6, 3, 2, 1, 2), ("CIRCULAR", 6, 4, 2, 1, 1), ("CIRCULAR", 3, 9, 1, 1, 2), ("CIRCULAR", 8, 2, 1, 2, 1),
]  # fmt: skip


@pytest.mark.covering
@pytest.mark.parametrize(("padding", "N", "K", "S", "D", "groups"), ADJOINTS)
@pytest.mark.parametrize("flipped", [False, True], ids=["correlate", "convolve"])
def test_transpose_kernel_makes_the_adjoint(padding, N, K, S, D, groups, flipped, rng):
    more = dict(strides=S, padding=padding, kernel_dilation=D, feature_group_count=groups, use_bias=False)
    plain = with_integers(made(nnx.Conv, 4, 6, K, **more), rng)
    cls = ConvolveTranspose if flipped else CorrelateTranspose
    adjoint = made(cls, 6, 4, K, transpose_kernel=True, **more, **DIRECT)
    adjoint.kernel[...] = jnp.flip(plain.kernel[...], 0) if flipped else plain.kernel[...]
    x = integers(rng, (2, N, 4), most=3)
    y = plain(x)
    dy = integers(rng, y.shape, most=3)
    dx = adjoint(dy)
    assert dx.shape == x.shape
    assert jnp.vdot(y, dy) == jnp.vdot(x, dx) != 0


@pytest.mark.parametrize("cls", [CorrelateTranspose, ConvolveTranspose])
@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_causal_transposes_look_back_only(cls, transpose_kernel, rng):
    for S, D in ((1, 1), (2, 1), (3, 2), (5, 1)):
        layer = made(
            cls, 1, 1, 4, S, padding="CAUSAL", kernel_dilation=D, transpose_kernel=transpose_kernel, use_bias=False,
            kernel_init=nnx.initializers.ones, **DIRECT,
        )  # fmt: skip
        dense = layer(jnp.eye(6)[:, :, None])[..., 0]  # i, o
        assert dense.shape == (6, S * 6)
        i, o = np.ogrid[:6, : S * 6]
        np.testing.assert_array_equal(dense, (o >= S * i) & ((o - S * i) % D == 0) & (o - S * i <= 3 * D))


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 1),)], ids=str)
def test_output_padding(padding, rng):
    def layer(more, low_high=padding):
        built = made(CorrelateTranspose, 2, 3, 3, 3, padding=low_high, output_padding=more, use_bias=False, **DIRECT)
        return with_integers(built, np.random.default_rng(5))

    x = integers(rng, (2, 4, 2))
    plain, more = layer(None)(x), layer(2)(x)
    equal(layer(0)(x), plain)
    equal(layer([2])(x), more)
    assert more.shape[1] == plain.shape[1] + 2
    equal(more[:, :-2], plain)
    full = layer(None, ((2, 20),))(x)  # pairs of the dilated input, which leave room
    equal(more, full[:, : more.shape[1]])


# 3. The operation

NUMBERS = ("NHC", "HIO", "NHC")


def test_operations_are_values():
    a, b = (Operation(True, (("forward", "fft"),), "elementwise") for _ in range(2))
    assert a == b
    assert hash(a) == hash(b)
    assert a != Operation(False, (("forward", "fft"),), "elementwise")
    one, two = (Correlate(1, 1, 3, method=dict(m), rngs=nnx.Rngs(0)).conv_general_dilated for m in (
        {"kernel": "direct", "forward": "fft"}, {"forward": "fft", "kernel": "direct"},
    ))  # fmt: skip
    assert one == two != Operation()
    assert one.choice == dict(method={"forward": "fft", "kernel": "direct"}, accuracy="normwise")


@pytest.mark.parametrize("cls", [Correlate, Convolve, CorrelateTranspose, ConvolveTranspose])
def test_models_made_alike_compile_once(cls):
    traces = []

    @nnx.jit
    def call(layer, x):
        traces.append(layer)
        return layer(x)

    x = jnp.ones((1, 5, 2))
    for seed in range(3):
        method = {"forward": "direct", "input": "direct"}
        call(cls(2, 3, 3, method=method, kernel_init=drawn, rngs=nnx.Rngs(seed)), x)
    assert len(traces) == 1
    graphs = [nnx.split(made(cls, 2, 3, 3, **DIRECT))[0] for _ in range(2)]
    assert graphs[0] == graphs[1]
    assert hash(graphs[0]) == hash(graphs[1])


@pytest.mark.parametrize("cls", [Correlate, Convolve, CorrelateTranspose, ConvolveTranspose])
def test_layers_run_on_the_primitive(cls):
    graph, state = nnx.split(made(cls, 4, 8, (3, 3), feature_group_count=2, **DIRECT))
    jaxpr = str(jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, jnp.ones((1, 7, 6, 4))))
    assert "contract[" in jaxpr
    assert "conv_general_dilated[" not in jaxpr
    assert "direct" in jaxpr


@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR", "CAUSAL"])
def test_linen_takes_the_operation(padding, rng):
    plain = linen.Conv(6, (3,), padding=padding, feature_group_count=2)
    x = integers(rng, (2, 7, 4))
    parameters = jax.tree.map(lambda a: integers(rng, a.shape), plain.init(jax.random.key(0), x))
    ours = plain.clone(conv_general_dilated=Operation(accuracy="elementwise"))
    equal(ours.apply(parameters, x), plain.apply(parameters, x))
    flipped = plain.clone(conv_general_dilated=Operation(flip_kernel=True, method="direct"))
    kernel = parameters["params"]["kernel"]
    turned = {"params": parameters["params"] | {"kernel": kernel[::-1]}}
    equal(flipped.apply(turned, x), plain.apply(parameters, x))
    assert (flipped.apply(parameters, x) != plain.apply(parameters, x)).any()


@pytest.mark.parametrize("cls", [Convolve, ConvolveTranspose])
def test_vmap_and_second_derivatives(cls, rng):
    layers = [with_integers(made(cls, 2, 2, 3, strides=2, padding="CIRCULAR", **DIRECT), rng) for _ in "ab"]
    graph, _ = nnx.split(layers[0])
    states = [nnx.state(layer) for layer in layers]
    call = lambda state, x: nnx.merge(graph, state)(x)  # noqa: E731
    xs = integers(rng, (2, 3, 4, 2))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    equal(jax.vmap(call)(stacked, xs), jnp.stack([call(s, x) for s, x in zip(states, xs, strict=True)]))

    # y = K x is linear in the kernel: half its square has the second derivative |dK x|^2, an integer here.
    def half_square(kernel):
        layer = nnx.clone(layers[0])
        layer.kernel[...], layer.bias[...] = kernel, jnp.zeros(2)
        y = layer(xs[0])
        return (y * y).sum() / 2

    v = integers(rng, layers[0].kernel.shape)
    second = jax.grad(lambda k: jnp.vdot(jax.grad(half_square)(k), v))(layers[0].kernel[...])
    assert jnp.vdot(second, v) == 2 * half_square(v) != 0


# 4. Long convolutions


def long_sum(x, kernel, causal):
    """y[n,t,c] = sum over k of kernel[k,c] x[n,t-k,c], the taps of a two-sided kernel from -(length-1) on."""
    first = 0 if causal else -(len(kernel) // 2)
    T = x.shape[-2]
    y = np.zeros(x.shape)
    for j, tap in enumerate(np.asarray(kernel, np.float64)):
        for t in range(T):
            if 0 <= t - (first + j) < T:
                y[..., t, :] += tap * np.asarray(x, np.float64)[..., t - (first + j), :]
    return y


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 5, 2), (9, 2), (2, 1, 9, 2), (1, 1, 2)], ids=str)
def test_long_sums(causal, shape, rng):
    layer = with_integers(made(LongConvolve, 2, 5, causal=causal, **DIRECT), rng)
    assert layer.kernel.shape == (5 if causal else 9, 2)
    x = integers(rng, shape, most=3)
    expected = long_sum(x, layer.kernel[...], causal) + np.asarray(layer.bias[...])
    y = layer(x)
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("method", ["fft", "overlap"])
def test_long_sums_within_the_engines_bounds(method, causal, rng):
    T, K = 150, 40
    layer = made(LongConvolve, 3, K, causal=causal, use_bias=False, method=method)
    x = rng.normal(size=(2, T, 3)).astype(np.float32)
    y = layer(jnp.asarray(x))
    taps = np.asarray(layer.kernel[...])[::-1]
    axes = lax_axes("test", [T], [len(taps)], [1], [(K - 1, 0 if causal else K - 1)])
    problem = Problem(axes, n=2, g=3, layouts=Triple("n0gc", "0cgm", "n0gm"))
    check(problem, ENGINES[method], y.reshape(problem.y_shape), x[..., None], taps.reshape(problem.w_shape))


def test_implicit_kernels_are_their_formula(rng):
    kernel = ImplicitKernel(3, 7, hidden=4, frequencies=2, rngs=nnx.Rngs(0))
    assert kernel.rate[...].tolist() == [1.0, 5.5, 10.0]
    W1, b1, W2, b2 = (
        np.asarray(a[...], np.float64) for layer in (kernel.into, kernel.out) for a in (layer.kernel, layer.bias)
    )
    for taps, first in ((7, 0), (13, -6), (2, 3)):
        t = (first + np.arange(taps))[:, None] / 7
        waves = [f(2 * np.pi * t * [1, 2]) for f in (np.cos, np.sin)]
        drawn = np.sin(np.concatenate([t, *waves], 1) @ W1 + b1) @ W2 + b2
        expected = np.exp(-np.asarray(kernel.rate[...], np.float64) * np.abs(t)) * drawn
        np.testing.assert_allclose(kernel(taps, first), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("time", [4, 11])
def test_implicit_kernels_in_the_layer(causal, time, rng):
    kernel = ImplicitKernel(2, 7, hidden=4, frequencies=2, rngs=nnx.Rngs(0))
    layer = LongConvolve(2, 7, causal=causal, kernel=kernel, rngs=nnx.Rngs(1), **DIRECT)
    x = rng.normal(size=(2, time, 2))
    expected = long_sum(x, kernel(7, 0) if causal else kernel(13, -6), causal)
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), expected, rtol=0, atol=1e-5)


def test_initial_taps_are_of_unit_norm():
    """Near 1 is the sum of a channel's squares: the layer neither lengthens nor shortens noise."""
    for layer in (LongConvolve(2, 3999, rngs=nnx.Rngs(0)), LongConvolve(2, 2000, causal=False, rngs=nnx.Rngs(0))):
        assert layer.kernel.shape == (3999, 2)
        np.testing.assert_allclose((layer.kernel[...] ** 2).sum(0), 1.0, atol=0.15)  # six spreads of sqrt(2/3999)
    squares = [(ImplicitKernel(8, 500, rngs=nnx.Rngs(seed))(500) ** 2).sum(0).mean() for seed in range(3)]
    assert 0.4 < np.mean(squares) < 1.5


def test_nothing_depends_on_what_comes_later(rng):
    kernel_init = nnx.initializers.ones
    make = partial(LongConvolve, 1, 4, use_bias=False, kernel_init=kernel_init, rngs=nnx.Rngs(0), **DIRECT)
    lag = np.subtract.outer(np.arange(6), np.arange(6)).T  # i, o: o - i
    for causal, expected in ((True, (lag >= 0) & (lag < 4)), (False, np.abs(lag) < 4)):
        dense = make(causal=causal)(jnp.eye(6)[:, :, None])[..., 0]
        np.testing.assert_array_equal(dense, expected)


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 5, 4)], ids=str)
def test_nothing_in(shape):
    x = jnp.ones(shape)
    ours, theirs = (made(cls, 4, 6, 3, strides=2)(x) for cls in (CorrelateTranspose, nnx.ConvTranspose))
    equal(ours, theirs)
    for causal in (True, False):
        assert made(LongConvolve, 4, 3, causal=causal)(x).shape == shape


SPLITS = {"ones": [1] * 12, "5+7": [5, 7], "whole": [12], "some": [3, 0, 1, 8], "of the kernel": [4, 4, 4]}


@pytest.mark.parametrize("length", [5, 1])
@pytest.mark.parametrize("split", SPLITS)
def test_steps_are_the_whole(split, length, rng):
    layer = with_integers(made(LongConvolve, 2, length, **DIRECT), rng)
    x = integers(rng, (3, 12, 2), most=3)
    state = layer.stream(batch=3)
    assert state.shape == (3, length - 1, 2)
    outputs, start = [], 0
    step = nnx.jit(lambda layer, x, state: layer.step(x, state)) if split == "ones" else LongConvolve.step
    for samples in SPLITS[split]:
        y, after = step(layer, x[:, start : start + samples], state)
        assert (after.shape, after.dtype) == (state.shape, state.dtype)
        outputs.append(y)
        state, start = after, start + samples
    equal(jnp.concatenate(outputs, 1), layer(x))
    rest, _ = layer.step(jnp.zeros((3, length, 2)), state)
    equal(rest, layer(jnp.pad(x, ((0, 0), (0, length), (0, 0))))[:, 12:])


def test_steps_in_a_scan(rng):
    layer = with_integers(made(LongConvolve, 2, 5, **DIRECT), rng)
    graph, parameters = nnx.split(layer)
    x = integers(rng, (1, 12, 2), most=3)

    @jax.jit
    def scanned(parameters, x):
        layer = nnx.merge(graph, parameters)

        def step(state, block):
            y, state = layer.step(block, state)
            return state, y

        blocks = x.reshape(1, 4, 3, 2).swapaxes(0, 1)
        return jax.lax.scan(step, layer.stream(), blocks)[1].swapaxes(0, 1).reshape(x.shape)

    equal(scanned(parameters, x), layer(x))
    by_steps, whole = (
        jax.grad(lambda p: (f(p, x) ** 2).sum())(parameters) for f in (scanned, lambda p, x: nnx.merge(graph, p)(x))
    )
    jax.tree.map(equal, by_steps, whole)


def test_steps_with_an_implicit_kernel(rng):
    kernel = ImplicitKernel(2, 6, hidden=4, frequencies=2, rngs=nnx.Rngs(0))
    layer = LongConvolve(2, 6, kernel=kernel, rngs=nnx.Rngs(0), **DIRECT)
    x = jnp.asarray(rng.normal(size=(2, 9, 2)), jnp.float32)
    first, state = layer.step(x[:, :4], layer.stream(2))
    rest, _ = layer.step(x[:, 4:], state)
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("implicit", [False, True])
def test_long_dtypes(implicit, rng):
    kernel = ImplicitKernel(2, 5, hidden=2, frequencies=1, rngs=nnx.Rngs(0)) if implicit else None
    layer = LongConvolve(2, 5, kernel=kernel, dtype=jnp.bfloat16, rngs=nnx.Rngs(0), **DIRECT)
    with_integers(layer, rng)
    x = integers(rng, (1, 8, 2), most=3)
    y, state = layer.step(x, layer.stream())
    assert y.dtype == layer(x).dtype == jnp.bfloat16
    assert state.dtype == layer.stream().dtype == jnp.float32
    if not implicit:
        expected = long_sum(x, layer.kernel[...], True) + np.asarray(layer.bias[...])
        equal(y, jnp.asarray(expected, jnp.bfloat16))
    low = LongConvolve(2, 5, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0), **DIRECT)
    assert low.kernel.dtype == low.bias.dtype == jnp.bfloat16
    assert low(x).dtype == jnp.float32
    assert low(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    y, state = low.step(x.astype(jnp.bfloat16), low.stream())
    assert (y.dtype, state.dtype) == (jnp.bfloat16, jnp.float32)
    assert low.step(x, low.stream())[0].dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_stream_of_a_half_type_adds_small_terms(dtype):
    ones = dict(kernel_init=nnx.initializers.ones, bias_init=nnx.initializers.ones)
    layer = made(LongConvolve, 1, 64, dtype=dtype, **ones, **DIRECT)
    x = jnp.full((64, 1, 1, 1), 2.0**-12).at[0].set(1)  # 1 + 2**-12 is 1 in either type

    def step(state, sample):
        y, state = layer.step(sample, state)
        return state, y

    y = jax.lax.scan(step, layer.stream(), x)[1]
    whole = layer(x.reshape(1, 64, 1))
    equal(y.reshape(whole.shape), whole)
    assert whole[0, -1] > whole[0, 0] == 2


def test_a_parameter_is_the_kernel(rng):
    for causal, taps in ((True, 5), (False, 9)):
        kernel = nnx.Param(integers(rng, (taps, 2)))
        layer = LongConvolve(2, 5, causal=causal, kernel=kernel, rngs=nnx.Rngs(0), **DIRECT)
        x = integers(rng, (1, 7, 2))
        np.testing.assert_array_equal(layer(x), long_sum(x, kernel[...], causal))


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_of_implicit_kernels(causal, rng):
    with jax.enable_x64(True):
        kernel = ImplicitKernel(2, 5, hidden=3, frequencies=1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        layer = LongConvolve(2, 5, causal=causal, kernel=kernel, param_dtype=jnp.float64, rngs=nnx.Rngs(0), **DIRECT)
        graph, parameters = nnx.split(layer)
        assert len(jax.tree.leaves(parameters)) == 6
        x = jnp.asarray(rng.normal(size=(1, 7, 2)))
        f = jax.jit(lambda p: jnp.sin(nnx.merge(graph, p)(x)).sum())
        gradient, step = jax.grad(f)(parameters), 1e-5
        for path, leaf in jax.tree.leaves_with_path(gradient):
            v = jnp.asarray(rng.normal(size=leaf.shape))
            moved = [
                f(jax.tree.map_with_path(lambda p, a: a + s * step * v if p == path else a, parameters))
                for s in (1, -1)
            ]
            # the truncation is about step^2, the rounding 1e-16/step
            np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), jnp.vdot(leaf, v), rtol=1e-7, atol=1e-8)
            assert jnp.abs(leaf).max() > 0


def test_long_models_made_alike_compile_once():
    traces = []

    @nnx.jit
    def call(layer, x):
        traces.append(layer)
        return layer(x)

    for seed in range(2):
        for method in ("direct", {"forward": "direct", "kernel": "fft"}):
            rngs = nnx.Rngs(seed)
            kernel = ImplicitKernel(2, 4, hidden=2, frequencies=1, rngs=rngs)
            call(LongConvolve(2, 4, kernel=kernel, method=method, rngs=rngs), jnp.ones((1, 5, 2)))
    assert len(traces) == 2


# 5. Norms


def dense(layer, spatial):
    """The layer without its bias, as a matrix: one input of ones and zeros for each column."""
    n = int(np.prod(spatial)) * layer.in_features
    basis = np.concatenate([np.eye(n), np.zeros((1, n))]).reshape(n + 1, *spatial, layer.in_features)
    columns = np.asarray(layer(jnp.asarray(basis, jnp.float32)), np.float64).reshape(n + 1, -1)
    return columns[:n] - columns[n]


# the class, features, kernel_size, the input's extents, arguments
EXACT_NORMS = {
    "circular": (Correlate, 2, 3, (3, 3), (5, 4), {}),
    "flax": (nnx.Conv, 2, 3, (3, 2), (4, 4), {}),
    "convolution": (Convolve, 3, 2, 4, (7,), {}),
    "wrap": (Correlate, 2, 2, 3, (6,), dict(padding="wrap")),
    "grid-wrap, long kernel": (Correlate, 2, 2, 9, (4,), dict(padding="grid-wrap")),
    "strides": (Correlate, 2, 3, (3, 2), (6, 4), dict(strides=(3, 2))),
    "stride, many outputs": (nnx.Conv, 2, 9, 3, (6,), dict(strides=3)),
    "stride over the kernel": (Convolve, 2, 2, 2, (8,), dict(strides=4)),
    "groups": (Correlate, 4, 6, 3, (6,), dict(feature_group_count=2)),
    "depthwise": (nnx.Conv, 3, 3, (3, 3), (4, 5), dict(feature_group_count=3)),
    "groups, stride": (Convolve, 4, 4, 3, (6,), dict(feature_group_count=2, strides=2)),
    "dilated": (Correlate, 2, 3, (2, 3), (4, 5), dict(kernel_dilation=(2, 1))),
    "dilated, stride": (Correlate, 2, 3, 3, (8,), dict(kernel_dilation=2, strides=2)),
    "3-D": (Correlate, 1, 2, (2, 2, 2), (3, 2, 3), {}),
    "mask": (Correlate, 4, 6, 3, (6,), dict(mask=MASK)),
    "transposed": (CorrelateTranspose, 2, 3, 3, (5,), {}),
    "transposed, stride": (CorrelateTranspose, 2, 3, (3, 2), (4, 3), dict(strides=(2, 3))),
    "transposed, turned": (CorrelateTranspose, 2, 3, 4, (5,), dict(strides=2, transpose_kernel=True)),
    "transposed, groups": (CorrelateTranspose, 4, 6, 3, (5,), dict(strides=2, feature_group_count=2)),
    "transposed, turned, groups": (
        ConvolveTranspose, 4, 6, 3, (5,), dict(strides=2, feature_group_count=2, transpose_kernel=True),
    ),
    "transposed, flax": (nnx.ConvTranspose, 3, 2, 3, (4,), dict(strides=2, kernel_dilation=2)),
    "transposed, long kernel": (nnx.ConvTranspose, 2, 2, 7, (3,), dict(transpose_kernel=True)),
}  # fmt: skip


def norms_of(cls, inside, outside, size, spatial, arguments, bias=False):
    more = dict(padding="CIRCULAR") | arguments
    layer = made(
        cls, inside, outside, size, use_bias=bias, bias_init=drawn, **more,
        **({} if cls in (nnx.Conv, nnx.ConvTranspose) else DIRECT),
    )  # fmt: skip
    found = float(jax.jit(lambda: operator_norm(layer, spatial))())
    return found, np.linalg.norm(dense(layer, spatial), 2)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", EXACT_NORMS)
def test_norms_on_the_torus(name):
    found, norm = norms_of(*EXACT_NORMS[name], bias=True)
    assert found == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_norms_of_complex_kernels(sign):
    layer = made(Correlate, 1, 1, 4, padding="CIRCULAR", param_dtype=jnp.complex64)
    layer.kernel[...] = jnp.exp(sign * 0.5j * np.pi * np.arange(4)).reshape(4, 1, 1)
    np.testing.assert_allclose(operator_norm(layer, (8,)), 4, rtol=1e-6)  # all at one frequency, of one sign


def opposite(key, shape, dtype):
    return jnp.asarray([1, 0, 0, -1], dtype).reshape(shape)


BOUNDED_NORMS = {
    "SAME": (Correlate, 2, 3, (3, 3), (6, 6), dict(padding="SAME")),
    "SAME, 1-D": (nnx.Conv, 2, 3, 4, (9,), dict(padding="SAME")),
    "SAME, groups": (Convolve, 4, 4, 3, (8,), dict(padding="SAME", feature_group_count=2)),
    "SAME, stride": (Correlate, 2, 3, 3, (7,), dict(padding="SAME", strides=2)),
    "SAME_LOWER": (Correlate, 2, 3, 4, (7,), dict(padding="SAME_LOWER", strides=3)),
    "VALID": (Correlate, 2, 3, (3, 2), (5, 4), dict(padding="VALID", strides=(2, 1))),
    "CAUSAL": (Correlate, 2, 3, 3, (6,), dict(padding="CAUSAL")),
    "pairs": (Correlate, 2, 3, 3, (6,), dict(padding=((4, 3),))),
    "int": (Correlate, 2, 3, (3, 2), (4, 4), dict(padding=1)),
    "long kernel": (Correlate, 2, 2, 9, (3,), dict(padding="SAME")),
    "constant": (Correlate, 2, 2, 3, (5,), dict(padding="constant")),
    "mirror": (Correlate, 2, 2, (3, 3), (4, 4), dict(padding="mirror")),
    "REFLECT": (nnx.Conv, 1, 1, 3, (4,), dict(padding="REFLECT")),
    "reflect": (Correlate, 1, 1, 7, (3,), dict(padding="reflect")),
    "nearest": (Correlate, 1, 1, 5, (4,), dict(padding="nearest")),
    "nearest, ones": (Correlate, 1, 1, 9, (2,), dict(padding="nearest", kernel_init=nnx.initializers.ones)),
    "input dilated": (Correlate, 2, 3, 3, (4,), dict(padding=((2, 2),), input_dilation=2)),
    "input dilated, stride": (nnx.Conv, 2, 3, 3, (5,), dict(padding=((2, 2),), input_dilation=2, strides=3)),
    "input dilated, equal stride": (nnx.Conv, 2, 3, 3, (5,), dict(padding=((2, 2),), input_dilation=2, strides=2)),
    "input dilated, circular": (Correlate, 2, 3, 3, (5,), dict(padding="wrap", input_dilation=2)),
    "strides, taps that would meet on a smaller torus": (
        Correlate, 1, 1, 4, (1,), dict(padding=3, strides=3, kernel_init=opposite),
    ),
    "axes differ": (nnx.Conv, 2, 3, (3, 3), (4, 4), dict(padding=1, input_dilation=(2, 1), strides=(1, 2))),
    "circular, remainder": (Correlate, 2, 3, 3, (7,), dict(strides=2)),
    "circular, remainder 2-D": (Convolve, 2, 2, (3, 3), (4, 5), dict(strides=2)),
    "circular, ones, remainder": (Correlate, 1, 1, 7, (4,), dict(strides=3, kernel_init=nnx.initializers.ones)),
    "transposed, SAME": (CorrelateTranspose, 2, 3, 3, (5,), dict(padding="SAME", strides=2)),
    "transposed, VALID": (nnx.ConvTranspose, 2, 3, 4, (4,), dict(padding="VALID", strides=3)),
    "transposed, CAUSAL": (CorrelateTranspose, 2, 2, 4, (5,), dict(padding="CAUSAL", strides=2)),
    "transposed, pairs": (ConvolveTranspose, 2, 3, 3, (5,), dict(padding=((5, 4),), transpose_kernel=True)),
    "transposed, output_padding": (CorrelateTranspose, 2, 3, 4, (4,), dict(padding="SAME", strides=2, output_padding=1)),
    "transposed, nearest": (CorrelateTranspose, 1, 1, 5, (3,), dict(padding="nearest", strides=2)),
    "transposed, nearest, ones": (
        CorrelateTranspose, 1, 1, 9, (2,), dict(padding="nearest", kernel_init=nnx.initializers.ones),
    ),
    "transposed, mirror": (CorrelateTranspose, 2, 2, 3, (4,), dict(padding="mirror", transpose_kernel=True)),
}  # fmt: skip
TIGHT = ("SAME", "SAME, 1-D", "SAME, groups", "constant", "CAUSAL")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", BOUNDED_NORMS)
def test_bounds_of_norms(name):
    found, norm = norms_of(*BOUNDED_NORMS[name])
    assert found >= norm * (1 - 1e-6)
    assert found <= norm * (1.35 if name in TIGHT else 6)


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [(Correlate, dict(strides=2)), (Convolve, dict(padding="mirror")), (CorrelateTranspose, dict(strides=2))],
)
def test_norms_have_gradients(cls, arguments, rng):
    with jax.enable_x64(True):
        more = dict(padding="CIRCULAR") | arguments
        layer = made(cls, 2, 3, (3, 2), param_dtype=jnp.float64, **more)

        @jax.jit
        def norm(kernel):
            moved = nnx.clone(layer)
            moved.kernel[...] = kernel
            return operator_norm(moved, (6, 4))

        kernel = layer.kernel[...]
        assert norm(kernel).dtype == jnp.float64
        check_grads(norm, (kernel,), 1, ("rev",), atol=1e-6, rtol=1e-6)
        along = float(jnp.vdot(jax.grad(norm)(kernel), kernel))
        assert along == pytest.approx(float(norm(kernel)), rel=1e-9)  # Euler's, of a function of degree one


def test_the_norm_of_zeros_has_a_gradient():
    layer = Correlate(2, 2, 3, padding="CIRCULAR", kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
    gradient = nnx.grad(lambda layer: operator_norm(layer, (4,)))(layer)
    assert jnp.isfinite(gradient["kernel"][...]).all()


def test_the_norm_of_one_axis_takes_an_int():
    layer = made(Correlate, 2, 3, 3, padding="CIRCULAR")
    equal(operator_norm(layer, 8), operator_norm(layer, (8,)))


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_the_spectral_norm_of_zeros_is_zero(dtype, strides):
    zeros = dict(kernel_init=nnx.initializers.zeros, dtype=dtype, param_dtype=dtype)
    layer = made(Correlate, 1, 1, 3, strides, padding="CIRCULAR", **zeros, **DIRECT)
    assert operator_norm(layer, (4,)) > 0
    equal(SpectralNorm(layer)(jnp.ones((4, 1), dtype)), jnp.zeros((4 // strides, 1), dtype))


NORMALISED = {
    "circular": (Correlate, 2, 3, (3, 3), (5, 4), dict(padding="CIRCULAR"), 1.0),
    "flax, mask": (nnx.Conv, 4, 6, 3, (6,), dict(padding="CIRCULAR", mask=MASK), 0.5),
    "transposed": (CorrelateTranspose, 2, 2, 3, (4,), dict(padding="CIRCULAR", strides=2), 2.0),
    "SAME": (Convolve, 2, 3, 3, (6,), dict(padding="SAME"), 1.0),
    "nearest": (Correlate, 2, 3, 3, (6,), dict(padding="nearest"), 1.0),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NORMALISED)
def test_spectral_norm(name, rng):
    cls, inside, outside, size, spatial, arguments, bound = NORMALISED[name]
    layer = made(cls, inside, outside, size, bias_init=drawn, **arguments)
    model = SpectralNorm(layer, bound)
    before = [(p, a[...].copy()) for p, a in nnx.to_flat_state(nnx.state(model))]
    model.in_features = inside
    norm = np.linalg.norm(dense(model, spatial), 2)
    assert norm <= bound * (1 + 1e-5)
    if arguments["padding"] == "CIRCULAR":
        assert norm == pytest.approx(bound, rel=1e-5)
    else:
        assert norm > bound / 2
    assert model.layer is layer
    for (path, a), (where, b) in zip(before, nnx.to_flat_state(nnx.state(model)), strict=True):
        assert path == where
        equal(a, b[...])
    assert (dense(model, spatial) != dense(layer, spatial)).any()
    y = model(jnp.zeros((1, *spatial, inside)))
    np.testing.assert_allclose(y, jnp.broadcast_to(layer.bias[...], y.shape))


@pytest.mark.parametrize("shape", [(4, 2), (3, 4, 2), (3, 1, 4, 2)], ids=str)
def test_spectral_norm_takes_any_batch(shape, rng):
    layer = made(Correlate, 2, 3, 3, padding="CIRCULAR", **DIRECT)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    expected = (layer(x) - layer.bias[...]) / operator_norm(layer, (4,))
    np.testing.assert_allclose(SpectralNorm(layer)(x), expected, rtol=0, atol=1e-6)


def test_gradients_through_the_spectral_norm(rng):
    """The function does not change along the kernel itself, and its gradient is that of the quotient written out."""
    layer = made(Correlate, 2, 3, 3, padding="CIRCULAR", **DIRECT)
    model, x = SpectralNorm(layer, 2.0), jnp.asarray(rng.normal(size=(2, 4, 2)), jnp.float32)
    found = nnx.jit(nnx.grad(lambda model: jnp.sin(model(x)).sum()))(model)["layer"]

    def quotient(kernel):
        i, o = np.ogrid[:4, :4]
        taps = jnp.pad(kernel, ((0, 1), (0, 0), (0, 0)))[(i - o + 1) % 4].swapaxes(0, 1)  # o, i, c, m
        norm = jnp.linalg.norm(taps.transpose(0, 3, 1, 2).reshape(12, 8), 2)
        return jnp.sin(jnp.einsum("oicm,nic->nom", taps, x) * 2.0 / norm).sum()

    expected = jax.jit(jax.grad(quotient))(layer.kernel[...])
    np.testing.assert_allclose(found["kernel"][...], expected, rtol=0, atol=1e-4)
    assert jnp.abs(jnp.vdot(found["kernel"][...], layer.kernel[...])) < 1e-4 < jnp.abs(expected).max()
    assert jnp.abs(found["bias"][...]).max() > 0


# 6. Models that exist


class Upsample(nnx.ConvTranspose):
    pass


def own(*args, **kwargs):
    return 2 * jax.lax.conv_general_dilated(*args, **kwargs)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(4, 4, (3, 3), strides=2, rngs=rngs)
        self.shared = self.first


class Model(nnx.Module):
    def __init__(self, rngs):
        x = jnp.zeros((1, 4, 4, 4))
        self.block = Block(rngs)
        self.many = nnx.List([nnx.Conv(4, 4, (3, 3), padding="CIRCULAR", rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.chain = nnx.Sequential(
            nnx.ConvTranspose(4, 4, (3, 3), strides=2, rngs=rngs), nnx.relu,
            nnx.ConvTranspose(4, 4, (2, 2), padding="VALID", transpose_kernel=True, rngs=rngs),
        )  # fmt: skip
        self.own = nnx.Conv(4, 4, (1, 1), conv_general_dilated=own, rngs=rngs)
        self.up = Upsample(4, 4, (2, 2), strides=2, rngs=rngs)
        self.linen = nnx.bridge.ToNNX(linen.Conv(4, (1, 1)), rngs=rngs).lazy_init(x)
        self.dense = nnx.bridge.ToNNX(linen.Dense(4), rngs=rngs).lazy_init(x)
        self.ours = Convolve(4, 4, (3, 3), rngs=rngs)

    def __call__(self, x):
        for layer in (
            self.block.first, *self.many, self.chain, self.block.shared, self.own, self.up, self.linen, self.ours,
        ):  # fmt: skip
            x = jnp.mod(layer(x), 5) - 2  # small integers again
        return x


REPORT = """\
5 of 8 layers run on jaxconv
  block.first     Conv: on jaxconv
  chain.layers.0  ConvTranspose: on jaxconv, as a CorrelateTranspose
  chain.layers.2  ConvTranspose: on jaxconv, as a CorrelateTranspose
  linen           ToNNX: a Linen module: pass conv_general_dilated= to its linen.Conv
  many.0          Conv: on jaxconv
  ours            Convolve: on jaxconv already, now with method='direct', accuracy='elementwise'
  own             Conv: has an operation of its own, {own!r}
  up              Upsample: a subclass of nnx.ConvTranspose: derive it from jaxconv.layers.CorrelateTranspose"""


def test_a_model_on_jaxconv(rng):
    model = with_integers(Model(nnx.Rngs(0)), rng)
    x = integers(rng, (2, 6, 6, 4), most=9)
    call = lambda state, x, graph: nnx.merge(graph, state)(x)  # noqa: E731
    compiled = jax.jit(call, static_argnums=2)
    graph, state = nnx.split(model)
    before = compiled(state, x, graph)
    variables = {path: node for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Variable)}
    report = replace_convs(model, method="direct", accuracy="elementwise")
    head, *lines = str(report).splitlines()
    assert "\n".join([head, *sorted(lines)]) == REPORT.format(own=own)
    after = {path: node for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Variable)}
    assert list(after) == list(variables)
    assert all(after[path] is variables[path] for path in variables)
    graph, state = nnx.split(model)
    equal(compiled(state, x, graph), before)
    assert len(np.unique(before)) == 5
    jaxpr = str(jax.make_jaxpr(call, static_argnums=2)(state, x, graph))
    assert "contract[" in jaxpr
    wanted = Operation(method="direct", accuracy="elementwise")
    assert model.block.first.conv_general_dilated == wanted == model.chain.layers[0].operation

    ours = {"block.first", "many.0", "chain.layers.0", "chain.layers.2", "ours"}
    again = replace_convs(model, method="direct", accuracy="elementwise")
    assert not any(r.replaced for r in again)
    assert {r.path for r in again if r.note == "on jaxconv already"} == ours
    again = replace_convs(model, method={"forward": "fft"})
    note = "on jaxconv already, now with method={'forward': 'fft'}, accuracy='normwise'"
    assert {r.path for r in again if r.note == note} == {r.path for r in again if r.replaced} == ours
    wanted = Operation(method=(("forward", "fft"),))
    assert model.block.first.conv_general_dilated == wanted == model.chain.layers[0].operation
    assert model.ours.conv_general_dilated == Operation(True, wanted.method)


class Bridged(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Conv(2, (3,))(x)


@pytest.mark.parametrize(
    ("module", "initialised", "has"),
    [
        (linen.Conv(2, (3,)), False, True),
        (linen.Sequential([linen.Dense(2), linen.Conv(2, (3,))]), False, True),
        (Bridged(), True, True),
        (linen.Dense(2), True, False),
        (linen.Dense(2), False, False),
        (linen.MultiHeadDotProductAttention(2), True, False),
    ],
)
def test_bridges_with_convolutions_are_named(module, initialised, has):
    bridge = nnx.bridge.ToNNX(module, rngs=nnx.Rngs(0))
    bridge = bridge.lazy_init(jnp.ones((1, 5, 2))) if initialised else bridge
    assert [(r.layer, r.replaced) for r in replace_convs(bridge)] == ([("ToNNX", False)] if has else [])


def test_a_model_that_is_one_layer_or_none():
    layer = nnx.ConvTranspose(2, 2, 3, rngs=nnx.Rngs(0))
    assert str(replace_convs(layer)) == (
        "1 of 1 layers run on jaxconv\n  (the model)  ConvTranspose: on jaxconv, as a CorrelateTranspose"
    )
    assert type(layer) is CorrelateTranspose
    made = CorrelateTranspose(2, 2, 3, rngs=nnx.Rngs(0))
    assert vars(layer).keys() == vars(made).keys()
    assert str(replace_convs(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))) == "0 of 0 layers run on jaxconv"


# 7. Errors


def make(cls, *args, features=(4, 6), **kwargs):
    return made(cls, *features, *(args or (3,)), **kwargs)


def long(**kwargs):
    return made(LongConvolve, 2, 4, **kwargs)


x1, x2 = jnp.ones((1, 5, 2)), jnp.ones((1, 5, 4))
plain = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

# the call, the error, the words that it must have: the call and what came; rule and remedy
ERRORS = {
    "padding": (lambda: make(Correlate, padding="same"), ValueError, "layers.Correlate` got padding='same'", "Pass one of them"),
    "padding, flip": (lambda: make(Convolve, padding="edge"), ValueError, "layers.Convolve` got padding='edge'", "'nearest'"),
    "padding, transposed": (lambda: make(CorrelateTranspose, padding="SAME_LOWER"), ValueError, "CorrelateTranspose` got padding='SAME_LOWER'", "'CAUSAL'"),
    "groups": (lambda: make(Correlate, feature_group_count=4), ValueError, "feature_group_count=4 for in_features=4, out_features=6", "divisor"),
    "groups, in": (lambda: make(ConvolveTranspose, feature_group_count=3), ValueError, "ConvolveTranspose` got feature_group_count=3", "Change it"),
    "groups 0": (lambda: make(Correlate, feature_group_count=0), ValueError, "feature_group_count=0", "positive divisor"),
    "groups, float": (lambda: make(Correlate, feature_group_count=2.0), ValueError, "feature_group_count=2.0", "positive divisor"),
    "method": (lambda: make(Correlate, method="fast"), ValueError, "layers.Correlate` got method='fast'", "'winograd'"),
    "method, pass": (lambda: make(ConvolveTranspose, method={"back": "fft"}), ValueError, "ConvolveTranspose` got method={'back': 'fft'}", "'kernel'"),
    "method, type": (lambda: make(Correlate, method=3), TypeError, "got method=3", "mapping from pass"),
    "accuracy": (lambda: make(CorrelateTranspose, accuracy="best"), ValueError, "CorrelateTranspose` got accuracy='best'", "'elementwise'"),
    "pair of three": (lambda: make(CorrelateTranspose, padding=[(1, 2, 3)])(x2), ValueError, "got padding=((1, 2, 3),)", "(low, high) pairs"),
    "pair of one": (lambda: make(CorrelateTranspose, padding=[(1,)])(x2), ValueError, "got padding=((1,),)", "(low, high) pairs"),
    "empty": (lambda: make(Correlate, padding="reflect")(x2[:, :0]), ValueError, "got padding='reflect' for an input of float32[1, 0, 4]", "Pass padding='SAME'"),
    "dilated": (lambda: make(Correlate, padding="REFLECT", input_dilation=2), ValueError, "layers.Correlate` got padding='REFLECT' with input_dilation=2", "Pass 'mirror'"),
    "dilated, causal": (lambda: make(Convolve, padding="CAUSAL", input_dilation=(2,)), ValueError, "layers.Convolve` got padding='CAUSAL' with input_dilation=(2,)", "Pass pairs (low, high)"),
    "output_padding": (lambda: make(CorrelateTranspose, output_padding=1, padding="CIRCULAR"), ValueError, "got output_padding=1 with padding='CIRCULAR'", "Leave one of the two out"),
    "output_padding, large": (lambda: make(CorrelateTranspose, output_padding=2, strides=2)(x2), ValueError, "output_padding=(2,) with strides=(2,)", "less than the stride"),
    "mask": (lambda: make(CorrelateTranspose, mask=jnp.ones((3, 6, 4)))(x2), ValueError, "a mask of shape (3, 6, 4) for a kernel of shape (3, 4, 6)", "Make the mask"),
    "features": (lambda: make(CorrelateTranspose)(x1), ValueError, "float32[1, 5, 2]", "Pass a kernel of 2"),
    "pairs": (lambda: make(CorrelateTranspose, padding=((1, 1), (1, 1)))(x2), ValueError, "with 2 pairs", "each needs one"),
    "refusal": (lambda: make(Correlate, strides=2, method="winograd")(x2), ValueError, "winograd", "method"),
    "long features": (lambda: LongConvolve(0, 4, rngs=nnx.Rngs(0)), ValueError, "LongConvolve` got features=0", "at least 1"),
    "long length": (lambda: LongConvolve(2, 4.0, rngs=nnx.Rngs(0)), TypeError, "LongConvolve` got length=4.0", "integer"),
    "long method": (lambda: long(method="slow"), ValueError, "LongConvolve` got method='slow'", "'overlap'"),
    "long accuracy": (lambda: long(accuracy=1), ValueError, "LongConvolve` got accuracy=1", "'normwise'"),
    "long x": (lambda: long()(x2), ValueError, "got x of float32[1, 5, 4]", "Move the channels last"),
    "long x, rank": (lambda: long()(jnp.ones(2)), ValueError, "got x of float32[2]", "(batch..., time, features)"),
    "long stream": (lambda: long(causal=False).stream(), ValueError, "`LongConvolve.stream` was called", "causal=True"),
    "long step": (lambda: long(causal=False).step(x1, x1), ValueError, "`LongConvolve.step` was called", "causal=True"),
    "long batch": (lambda: long().stream(0), ValueError, "LongConvolve.stream` got batch=0", "at least 1"),
    "long state": (lambda: long().step(x1, long().stream(2)), ValueError, "x of float32[1, 5, 2] and a state of float32[2, 3, 2]", "Begin with `stream(batch)`"),
    "long block": (lambda: long().step(x1[0], long().stream(2)), ValueError, "x of float32[5, 2]", "(batch, samples, 2)"),
    "long kernel": (lambda: long(kernel=lambda taps, first: jnp.ones((taps, 3)))(x1), ValueError, "returned float32[4, 3] for 4 taps", "Change its features"),
    "long array": (lambda: long(kernel=jnp.ones((4, 2))), TypeError, "LongConvolve` got a kernel of type ArrayImpl", "Pass `nnx.Param(kernel)`"),
    "long variable": (lambda: long(kernel=nnx.BatchStat(jnp.ones((4, 2)))), TypeError, "got a kernel of type BatchStat", "nnx.Param"),
    "long parameter": (lambda: long(kernel=nnx.Param(jnp.ones((4, 3)))), ValueError, "got a kernel of float32[4, 3]", "(taps, features) = (4, 2)"),
    "implicit": (lambda: ImplicitKernel(2, -1, rngs=nnx.Rngs(0)), ValueError, "ImplicitKernel` got length=-1", "at least 1"),
    "implicit hidden": (lambda: ImplicitKernel(2, 4, hidden="a", rngs=nnx.Rngs(0)), TypeError, "ImplicitKernel` got hidden='a'", "integer"),
    "norm": (lambda: operator_norm(plain, (4,)), TypeError, "got a layer of type Linear", "jnp.linalg.norm(kernel, 2)"),
    "norm, wrapped": (lambda: SpectralNorm(plain)(x1), TypeError, "got a layer of type Linear", "nnx.Conv"),
    "norm, extents": (lambda: operator_norm(make(Correlate), (4, 4)), ValueError, "spatial=(4, 4) for a kernel of shape (3, 4, 6)", "Pass the input's spatial shape"),
    "norm, empty": (lambda: operator_norm(make(Correlate, padding="CIRCULAR"), (0,)), ValueError, "operator_norm` got spatial=(0,)", "integers of at least 1"),
    "norm, negative": (lambda: operator_norm(make(Correlate, padding="CIRCULAR"), -5), ValueError, "operator_norm` got spatial=-5", "integers of at least 1"),
    "norm, float": (lambda: operator_norm(make(Correlate), 8.0), ValueError, "operator_norm` got spatial=8.0", "1 extents"),
    "bound": (lambda: SpectralNorm(make(Correlate), 0), ValueError, "SpectralNorm` got bound=0", "Pass 1.0"),
    "bound, nan": (lambda: SpectralNorm(make(Correlate), np.nan), ValueError, "got bound=nan", "positive"),
    "model": (lambda: replace_convs(linen.Conv(4, (3,))), TypeError, "replace_convs` got a model of type Conv", "to linen.Conv"),
    "model, method": (lambda: replace_convs(make(nnx.Conv), method="slow"), ValueError, "replace_convs` got method='slow'", "'direct'"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, kind, came, remedy = ERRORS[name]
    with pytest.raises(kind) as caught:
        call()
    assert came in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize("file", ["convolutional.py", "long.py", "norms.py", "replacing.py"])
def test_every_error_is_in_the_table(file):
    path = Path(jaxconv.layers.__file__).parent / file
    reached = set()
    for call, kind, *_ in ERRORS.values():
        with pytest.raises(kind) as caught:
            call()
        reached |= {entry.lineno + 1 for entry in caught.traceback[-1:] if str(entry.path) == str(path)}
    raises = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]
    assert raises
    assert not [n.lineno for n in raises if not reached & set(range(n.lineno, n.end_lineno + 1))]
