"""The drop-in function in Flax models: nnx.Conv and linen.Conv with one argument more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxconv

GRID = [
    dict(),
    dict(strides=2),
    dict(strides=(1, 2), padding="VALID"),
    dict(padding="CIRCULAR"),
    dict(padding="REFLECT"),
    dict(kernel_dilation=2),
    dict(input_dilation=2, padding=((1, 2), (0, 1))),
    dict(feature_group_count=2),
    dict(feature_group_count=4),
    dict(use_bias=False, dtype=jnp.bfloat16),
]


def rounded(a, b):
    """Equal but for the order of sums: at most 200 products, of size 4 at most, in units of b's type."""
    eps = float(jnp.finfo(b.dtype).eps)
    np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=0, atol=200 * 4 * eps)


@pytest.mark.parametrize("arguments", GRID, ids=str)
def test_nnx_conv(arguments, rng):
    x = jnp.asarray(rng.normal(size=(2, 7, 6, 4)), jnp.float32)

    def outcome(**more):
        layer = nnx.Conv(4, 8, (3, 3), rngs=nnx.Rngs(0), **arguments, **more)
        y = layer(x)
        gradients = nnx.grad(lambda layer: (layer(x).astype(jnp.float32)).sum())(layer)
        return y, gradients["kernel"][...] / (y.size / 8)

    ours, theirs = outcome(conv_general_dilated=jaxconv.lax.conv_general_dilated), outcome()
    for a, b in zip(ours, theirs, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        rounded(a, b)


@pytest.mark.parametrize("arguments", GRID, ids=str)
def test_linen_conv(arguments, rng):
    x = jnp.asarray(rng.normal(size=(2, 7, 6, 4)), jnp.float32)
    plain = linen.Conv(8, (3, 3), **arguments)
    ours = linen.Conv(8, (3, 3), **arguments, conv_general_dilated=jaxconv.lax.conv_general_dilated)
    parameters = plain.init(jax.random.key(0), x)
    rounded(ours.apply(parameters, x), plain.apply(parameters, x))


def test_the_model_runs_on_the_primitive():
    layer = nnx.Conv(4, 8, (3, 3), rngs=nnx.Rngs(0), conv_general_dilated=jaxconv.lax.conv_general_dilated)
    graph, state = nnx.split(layer)
    jaxpr = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, jnp.ones((1, 7, 6, 4)))
    assert "contract[" in str(jaxpr)
    assert "conv_general_dilated[" not in str(jaxpr)
