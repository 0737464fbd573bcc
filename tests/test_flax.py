"""The drop-in function in Flax models: nnx.Conv and linen.Conv with one argument more."""

from functools import partial

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


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.integers(-2, 3, (2, 7, 6, 4)), jnp.float32)


def integral(kernel):
    """The kernel's signs: with x of small integers every sum is below 256, and exact even in bfloat16."""
    return jnp.sign(jnp.round(kernel * 5))


# Small integers, which the engines of this accuracy add without rounding.
EXACT = partial(jaxconv.lax.conv_general_dilated, accuracy="elementwise")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("arguments", GRID, ids=str)
def test_nnx_conv(arguments, x):
    def outcome(**more):
        layer = nnx.Conv(4, 8, (3, 3), rngs=nnx.Rngs(0), **arguments, **more)
        layer.kernel[...] = integral(layer.kernel[...])
        gradients = nnx.grad(lambda layer: layer(x).sum())(layer)
        return layer(x), gradients["kernel"][...]

    ours, theirs = outcome(conv_general_dilated=EXACT), outcome()
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert 0 < jnp.abs(b).max() <= 256
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("arguments", GRID, ids=str)
def test_linen_conv(arguments, x):
    plain = linen.Conv(8, (3, 3), **arguments)
    ours = linen.Conv(8, (3, 3), **arguments, conv_general_dilated=EXACT)
    parameters = jax.tree.map(integral, plain.init(jax.random.key(0), x))
    np.testing.assert_array_equal(ours.apply(parameters, x), plain.apply(parameters, x))


def test_the_model_runs_on_the_primitive():
    layer = nnx.Conv(4, 8, (3, 3), rngs=nnx.Rngs(0), conv_general_dilated=jaxconv.lax.conv_general_dilated)
    graph, state = nnx.split(layer)
    jaxpr = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, jnp.ones((1, 7, 6, 4)))
    assert "contract[" in str(jaxpr)
    assert "conv_general_dilated[" not in str(jaxpr)
