"""Patches, their fold, and layers with a kernel at every position: against lax, PyTorch's rule, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxconv.lax import conv_general_dilated, conv_general_dilated_local, conv_general_dilated_patches, fold


@st.composite
def layers(draw):
    """(image's shape, the arguments of a layer) in one to three dimensions."""
    ndim = draw(st.integers(1, 3))

    def each(low, high):
        return draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim))

    extents, kernel, strides, L, D = each(1, 6), each(1, 4), each(1, 3), each(1, 2), each(1, 3)
    pads = [(draw(st.integers(-2, 3)), draw(st.integers(-2, 3))) for _ in range(ndim)]
    assume(all((i - 1) * l + 1 + sum(p) >= 0 for i, l, p in zip(extents, L, pads, strict=True)))
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *extents)
    return shape, (tuple(kernel), strides, pads, L, D)


def integers(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).integers(-9, 9, shape), jnp.float32)


@given(layers())
def test_patches_are_laxs(drawn):
    shape, arguments = drawn
    x = integers(0, shape)
    np.testing.assert_array_equal(
        conv_general_dilated_patches(x, *arguments), jax.lax.conv_general_dilated_patches(x, *arguments)
    )


@given(layers())
def test_fold_is_the_transpose(drawn):
    """<patches(x), y> = <x, fold(y)> in integers; and each is the other's gradient."""
    shape, arguments = drawn
    x = integers(0, shape)
    y = integers(1, jax.eval_shape(lambda x: conv_general_dilated_patches(x, *arguments), x).shape)

    @jax.jit
    def there_and_back(x, y):
        patches, transpose = jax.vjp(lambda x: conv_general_dilated_patches(x, *arguments), x)
        folded, again = jax.vjp(lambda y: fold(y, shape, *arguments), y)
        return patches, folded, transpose(y)[0], again(x)[0]

    patches, folded, transposed, patched = map(np.asarray, there_and_back(x, y))
    assert (patches * y).sum() == (x * folded).sum()
    np.testing.assert_array_equal(transposed, folded)
    np.testing.assert_array_equal(patched, patches)


@given(layers())
def test_local_is_laxs(drawn):
    shape, (kernel, *arguments) = drawn
    x = integers(0, shape)
    patches = jax.eval_shape(lambda x: conv_general_dilated_patches(x, kernel, *arguments), x)
    assume(patches.size)
    w = integers(1, (2, *patches.shape[1:]))
    strides, pads, L, D = arguments

    def everything(f, x, w):
        y, vjp = jax.vjp(lambda x, w: f(x, w, strides, pads, kernel, L, D), x, w)
        return y, *vjp(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape) % 7)

    both = conv_general_dilated_local, jax.lax.conv_general_dilated_local
    for a, b in zip(*jax.jit(lambda x, w: [everything(f, x, w) for f in both])(x, w), strict=True):
        np.testing.assert_array_equal(a, b)


NUMBERS = ("NHWC", "HWIO", "NWHC"), ("CWNH", "WOIH", "HNCW"), jax.lax.ConvDimensionNumbers(*[(0, 1, 2, 3)] * 3)


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_dimension_numbers(numbers):
    shape = (2, 3, 6, 5)
    if isinstance(numbers, tuple) and isinstance(numbers[0], str):
        shape = tuple(shape["NCHW".index(letter)] for letter in numbers[0])
    arguments = ((2, 3), (1, 2), "SAME"), dict(rhs_dilation=(2, 1), dimension_numbers=numbers)
    x = integers(0, shape)
    found = conv_general_dilated_patches(x, *arguments[0], **arguments[1])
    expected = jax.lax.conv_general_dilated_patches(x, *arguments[0], **arguments[1])
    np.testing.assert_array_equal(found, expected)
    _, transpose = jax.vjp(lambda x: jax.lax.conv_general_dilated_patches(x, *arguments[0], **arguments[1]), x)
    y = integers(1, found.shape)
    np.testing.assert_array_equal(fold(y, shape, *arguments[0], **arguments[1]), transpose(y)[0])
    dims = numbers if not isinstance(numbers[0], str) else jax.lax.conv_dimension_numbers(shape, shape, numbers)
    sizes = dict(zip(dims.out_spec[1:], dims.rhs_spec[1:], strict=True))
    kernel = [0] * 4
    kernel[dims.rhs_spec[0]] = 5
    for out, place in sizes.items():
        kernel[place] = found.shape[out]
    w = integers(2, kernel)
    local = (x, w, (1, 2), "SAME", (2, 3), None, (2, 1), numbers)
    np.testing.assert_array_equal(conv_general_dilated_local(*local), jax.lax.conv_general_dilated_local(*local))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "bfloat16", "float16", "complex64"])
def test_dtypes(dtype):
    """Integers too, which `jax.linear_transpose` refuses."""
    x = integers(0, (1, 2, 7)).astype(dtype)
    y = conv_general_dilated_patches(x, (3,), (1,), "SAME")
    assert y.dtype == x.dtype
    counts = jnp.array([2, 3, 3, 3, 3, 3, 2], dtype)
    np.testing.assert_array_equal(fold(y, x.shape, (3,), (1,), "SAME"), x * counts)
    wide = conv_general_dilated_patches(
        x, (3,), (1,), "SAME", preferred_element_type=None if "8" not in dtype else "int32"
    )
    np.testing.assert_array_equal(wide.astype(dtype), y)


def test_a_patch_is_what_a_kernel_sees():
    x, w = integers(0, (2, 3, 6, 7)), integers(1, (4, 3, 2, 3))
    y = conv_general_dilated(x, w, (1, 2), "VALID", accuracy="elementwise")
    patches = conv_general_dilated_patches(x, (2, 3), (1, 2), "VALID")
    np.testing.assert_array_equal(y, jnp.einsum("nfij,mf->nmij", patches, w.reshape(4, -1)))


def test_what_is_not_finite_stays_in_its_place():
    x = jnp.arange(5.0).at[2].set(jnp.inf).reshape(1, 1, 5)
    y = conv_general_dilated_patches(x, (3,), (1,), "VALID")
    np.testing.assert_array_equal(y[0], [[0, 1, jnp.inf], [1, jnp.inf, 3], [jnp.inf, 3, 4]])
    assert not jnp.isnan(y).any()


@pytest.mark.parametrize("batched", [(0, None), (None, 1), (2, 0)])
def test_vmap(batched):
    x, w = integers(0, (2, 3, 6)), integers(1, (4, 9, 6))
    bx, bw = batched
    xs = x if bx is None else jnp.stack([x, 2 * x, -x], bx)
    ws = w if bw is None else jnp.stack([w, w + 1, 3 * w], bw)
    found = jax.vmap(lambda x, w: conv_general_dilated_local(x, w, (1,), "SAME", (3,)), batched)(xs, ws)
    for n in range(3):
        one = x if bx is None else jnp.take(xs, n, bx)
        two = w if bw is None else jnp.take(ws, n, bw)
        np.testing.assert_array_equal(found[n], jax.lax.conv_general_dilated_local(one, two, (1,), "SAME", (3,)))


def test_nothing_is_gathered():
    """Neither patches, nor fold, nor their gradients look anything up in an index array."""
    x = jnp.ones((1, 2, 8, 8))
    arguments = ((3, 3), (2, 2), "SAME")

    def energy(x):
        y = conv_general_dilated_patches(x, *arguments)
        return (fold(y**2, x.shape, *arguments) ** 2).sum()

    text = str(jax.make_jaxpr(jax.grad(energy))(x))
    assert "gather" not in text
    assert "scatter" not in text
