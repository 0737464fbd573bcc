"""The lax surface against jax.lax: values, shapes, and what it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import jaxconv

CASES = [
    dict(window_strides=(1, 1), padding="SAME"),
    dict(window_strides=(2, 3), padding="SAME_LOWER"),
    dict(window_strides=(2, 1), padding="valid"),
    dict(window_strides=(1, 2), padding=[(2, 0), (-1, 3)], rhs_dilation=(2, 1)),
    dict(window_strides=(2, 2), padding=((1, 1), (0, -1)), lhs_dilation=(2, 3)),
    dict(window_strides=[1, 1], padding=[[1, 1], [2, 2]], lhs_dilation=[1, 2], rhs_dilation=[2, 2]),
    dict(window_strides=(1, 1), padding="SAME", feature_group_count=2),
    dict(window_strides=(2, 1), padding="SAME", batch_group_count=2),
    dict(window_strides=np.array([1, 2]), padding=np.array([[1, 1], [0, 2]])),
]


def integers(rng, *shape):
    return jnp.asarray(rng.integers(-4, 5, shape), jnp.float32)


@partial(jax.jit, static_argnums=0)
def _everything(layers, x, w):
    def of(layer):
        y, vjp = jax.vjp(layer, x, w)
        return y, *vjp(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape) % 7)

    return [of(layer) for layer in layers]


def everything(layers, x, w):
    """Of each layer: its values, and its gradients in x and w. All in one program: compiling takes the time."""
    return _everything(tuple(layers), x, w)


@pytest.mark.covering
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c.values())).replace(" ", ""))
@pytest.mark.parametrize("numbers", [None, ("NHWC", "HWIO", "NHWC"), ("CWNH", "WOIH", "HNCW"), "object"], ids=str)
def test_equal_to_lax(case, numbers, rng):
    groups = case.get("feature_group_count", 1)
    x, w = integers(rng, 4, 6, 7, 8), integers(rng, 4, 6 // groups, 3, 2)
    if numbers == "object":
        numbers = jax.lax.ConvDimensionNumbers((0, 1, 2, 3), (0, 1, 2, 3), (3, 1, 0, 2))
    elif numbers:
        x = x.transpose(["NCHW".index(letter) for letter in numbers[0]])
        w = w.transpose(["OIHW".index(letter) for letter in numbers[1]])
    if "lhs_dilation" in case and isinstance(case["padding"], np.ndarray):
        pytest.skip("lax itself takes no array here")

    layer = partial(jaxconv.lax.conv_general_dilated, accuracy="elementwise")
    layers = [partial(layer, method=method) for method in ("direct", "shifts")]
    every = [
        partial(f, dimension_numbers=numbers, **case)
        for f in (jax.lax.conv_general_dilated, jaxconv.lax.conv_general_dilated, *layers)
    ]
    expected, default, *ours = everything(every, x, w)
    for found in ours:
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(default, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())  # any engine


@given(st.data())
def test_drawn_layers_equal_lax(data):
    """Shapes, strides, dilations, pads and groups drawn; values and both gradients, in exact numbers."""
    draw = data.draw
    ndim = draw(st.integers(1, 3))

    def each(low, high):
        return draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim))

    groups = draw(st.integers(1, 3))
    extents, kernel = each(1, 6), each(1, 4)
    pads = [(draw(st.integers(-2, 3)), draw(st.integers(-2, 3))) for _ in range(ndim)]
    strides, L, D = each(1, 3), each(1, 2), each(1, 3)
    assume(all((i - 1) * l + 1 + sum(p) >= 0 for i, l, p in zip(extents, L, pads, strict=True)))
    c, m, n = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x, w = integers(rng, n, groups * c, *extents), integers(rng, groups * m, c, *kernel)

    def layer(f):
        return lambda x, w: f(x, w, strides, pads, L, D, feature_group_count=groups)

    elementwise = partial(jaxconv.lax.conv_general_dilated, accuracy="elementwise")
    for a, b in zip(*everything([layer(elementwise), layer(jax.lax.conv_general_dilated)], x, w), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.covering
@pytest.mark.parametrize("strides", [(1, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 2), (0, 1)]])
@pytest.mark.parametrize("transpose_kernel", [False, True])
@pytest.mark.parametrize("consistent", [False, True])
def test_conv_transpose_equals_lax(strides, padding, transpose_kernel, consistent, rng):
    x = integers(rng, 2, 4, 5, 3)
    w = integers(rng, 3, 2, 4, 3) if transpose_kernel else integers(rng, 3, 2, 3, 4)
    arguments = dict(padding=padding, transpose_kernel=transpose_kernel, use_consistent_padding=consistent)
    theirs = arguments | {"padding": tuple(padding)} if consistent and not isinstance(padding, str) else arguments
    for dilation in (None, (2, 1)):
        how = dict(strides=strides, rhs_dilation=dilation)
        ours = partial(jaxconv.lax.conv_transpose, accuracy="elementwise", **how, **arguments)
        both = [ours, partial(jax.lax.conv_transpose, **how, **theirs)]
        if consistent:  # (lax's own has no derivative then)
            np.testing.assert_array_equal(*jax.jit(lambda x, w: [f(x, w) for f in both])(x, w))
        else:
            for found, expected in zip(*everything(both, x, w), strict=True):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rank", [2, 3, 5])
def test_conv_transpose_defaults_in_other_ranks(rank, rng):
    spatial = rank - 2
    x, w = integers(rng, 2, *[3] * spatial, 2), integers(rng, *[2] * spatial, 2, 3)
    found = jaxconv.lax.conv_transpose(x, w, (2,) * spatial, "SAME")
    np.testing.assert_array_equal(found, jax.lax.conv_transpose(x, w, (2,) * spatial, "SAME"))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_conv_transpose_with_transposed_kernel_is_the_adjoint(stride, rng):
    """<A x, y> = <x, A^T y> in integers: equal, not close."""
    x, w = integers(rng, 2, 3 * stride, 3), integers(rng, 4, 3, 5)  # HIO: y has 5 features

    numbers, transpose = ("NHC", "HIO", "NHC"), partial(jaxconv.lax.conv_transpose, accuracy="elementwise")

    def layer(x):
        convolution = jaxconv.lax.conv_general_dilated
        return convolution(x, w, (stride,), "SAME", dimension_numbers=numbers, accuracy="elementwise")

    y = integers(rng, *layer(x).shape)
    adjoint = transpose(y, w, (stride,), "SAME", transpose_kernel=True)
    plain = transpose(y, w.swapaxes(1, 2), (stride,), "SAME")
    assert adjoint.shape == x.shape
    assert (layer(x) * y).sum() == (x * adjoint).sum()
    assert (layer(x) * y).sum() != (x * plain).sum()
    np.testing.assert_array_equal(adjoint, jax.vjp(layer, x)[1](y)[0])


def test_conv_and_conv_with_general_padding(rng):
    x, w = integers(rng, 2, 3, 7), integers(rng, 4, 3, 3)
    np.testing.assert_array_equal(jaxconv.lax.conv(x, w, (2,), "SAME"), jax.lax.conv(x, w, (2,), "SAME"))
    for arguments in (((2,), [(1, 0)], (2,), (2,)), ((1,), "VALID", None, None)):
        np.testing.assert_array_equal(
            jaxconv.lax.conv_with_general_padding(x, w, *arguments), jax.lax.conv_with_general_padding(x, w, *arguments)
        )


@pytest.mark.parametrize(
    ("dtype", "preferred"),
    [
        ("int8", "int32"),
        ("int8", "float32"),
        ("uint8", "int32"),
        ("bfloat16", "float32"),
        ("float16", None),
        ("int32", None),
    ],
)
def test_preferred_element_type_equals_lax(dtype, preferred, rng):
    x, w = (jnp.asarray(rng.integers(0, 9, s), dtype) for s in ((2, 3, 6), (4, 3, 3)))
    arguments = (x, w, (1,), "SAME")
    expected = jax.lax.conv_general_dilated(*arguments, preferred_element_type=preferred)
    found = jaxconv.lax.conv_general_dilated(*arguments, preferred_element_type=preferred, accuracy="elementwise")
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_program_goes_on_working_under_assignment(monkeypatch):
    """jaxconv's function in the place of lax's own."""
    for name in ("conv_general_dilated", "conv", "conv_with_general_padding", "conv_transpose"):
        monkeypatch.setattr(jax.lax, name, getattr(jaxconv.lax, name))
    x, w = jnp.ones((1, 1, 4)), jnp.ones((1, 1, 3))
    y = jax.jit(jax.lax.conv_general_dilated, static_argnums=(2, 3))(x, w, (1,), "SAME")
    np.testing.assert_array_equal(y.ravel(), [2, 3, 3, 2])


def test_no_engine_comes_back_under_assignment(monkeypatch):
    """An engine that uses lax's convolution uses lax's, whatever stands in its place."""

    def none(*_, **__):
        raise AssertionError("an engine called the function that was assigned")

    monkeypatch.setattr(jax.lax, "conv_general_dilated", none)
    x, w = jnp.ones((1, 1, 5)), jnp.ones((1, 1, 3))
    for method in set(jaxconv.engines.ENGINES) - {"native"}:  # which has no lax in it
        y, vjp = jax.vjp(lambda x, w: jaxconv.lax.conv_general_dilated(x, w, (1,), "VALID", method=method), x, w)
        np.testing.assert_allclose(y.ravel(), [3, 3, 3], rtol=1e-6)
        vjp(y)


def test_booleans_equal_lax(rng):
    x, w = (jnp.asarray(rng.random(s) < 0.3) for s in ((2, 3, 6), (4, 3, 3)))
    found, expected = (f(x, w, (1,), "SAME") for f in (jaxconv.lax.conv_general_dilated, jax.lax.conv_general_dilated))
    assert found.dtype == jnp.bool_
    np.testing.assert_array_equal(found, expected)
    counts = jaxconv.lax.conv_general_dilated(x, w, (1,), "SAME", preferred_element_type=jnp.int32)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, jaxconv.lax.conv(x.astype(int), w.astype(int), (1,), "SAME"))


@pytest.mark.parametrize("padding", ["SAME", [(2, 0), (-1, 3)]])
def test_flip_kernel_is_a_convolution(padding, rng):
    """The layer of the flipped kernel; in the relation, D has the other sign."""
    x, w = integers(rng, 2, 4, 7, 8), integers(rng, 6, 4, 3, 2)
    layer = partial(jaxconv.lax.conv_general_dilated, window_strides=(2, 1), padding=padding, rhs_dilation=(1, 2))
    expected = layer(x, jnp.flip(w, (2, 3)))
    for method in ("direct", "shifts"):
        np.testing.assert_array_equal(layer(x, w, flip_kernel=True, method=method), expected)
    [plan] = jaxconv.plan(partial(layer, flip_kernel=True), x, w)
    assert [axis.D for axis in plan.problem.axes] == [-1, -2]


def test_zero_spatial_axes_are_a_matrix_product(rng):
    x, w = integers(rng, 4, 3), integers(rng, 5, 3)
    np.testing.assert_array_equal(jaxconv.lax.conv_general_dilated(x, w, (), ()), x @ w.T)


@given(st.data())
def test_drawn_transposed_layers_are_adjoints(data):
    """With `transpose_kernel`, groups and output padding: the gradient of the layer in its input, whatever its size."""
    draw = data.draw
    ndim = draw(st.integers(1, 3))

    def each(low, high):
        return draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim))

    groups, extents, kernel, strides, dilations = (
        draw(st.integers(1, 3)),
        each(3, 7),
        each(1, 3),
        each(1, 3),
        each(1, 2),
    )
    c, m = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    pads = [(draw(st.integers(0, 1)), draw(st.integers(0, 1))) for _ in range(ndim)]
    x = integers(np.random.default_rng(0), 2, *extents, groups * c)
    w = integers(np.random.default_rng(1), *kernel, c, groups * m)
    numbers = jax.lax.conv_dimension_numbers(
        x.shape, w.shape, tuple(s.format("WHD"[:ndim]) for s in ("N{}C", "{}IO", "N{}C"))
    )
    sizes = [i + sum(p) - d * (k - 1) - 1 for i, p, d, k in zip(extents, pads, dilations, kernel, strict=True)]
    assume(min(sizes) >= 0)

    def layer(x):
        return jax.lax.conv_general_dilated(
            x, w, strides, pads, rhs_dilation=dilations, dimension_numbers=numbers, feature_group_count=groups
        )

    y, transpose = jax.vjp(layer, x)
    dy = integers(np.random.default_rng(2), *y.shape)
    over = [size % s for size, s in zip(sizes, strides, strict=True)]
    found = jaxconv.lax.conv_transpose(
        dy, w, strides, pads, dilations, transpose_kernel=True, use_consistent_padding=True, feature_group_count=groups,
        output_padding=over, accuracy="elementwise",
    )  # fmt: skip
    np.testing.assert_array_equal(found, transpose(dy)[0])


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_groups_of_a_transposed_layer_are_layers(padding, transpose_kernel, rng):
    """Each group by lax's own function; the same for the gradients."""
    x = integers(rng, 2, 5, 6)
    w = integers(rng, 3, 2, 6) if transpose_kernel else integers(rng, 3, 2, 9)

    def grouped(x, w):
        return jaxconv.lax.conv_transpose(
            x, w, (2,), padding, transpose_kernel=transpose_kernel, feature_group_count=3, accuracy="elementwise"
        )

    def each(x, w):
        parts = zip(jnp.split(x, 3, 2), jnp.split(w, 3, 2), strict=True)
        return jnp.concatenate(
            [jax.lax.conv_transpose(a, b, (2,), padding, transpose_kernel=transpose_kernel) for a, b in parts], 2
        )

    for a, b in zip(*everything([grouped, each], x, w), strict=True):
        np.testing.assert_array_equal(a, b)
