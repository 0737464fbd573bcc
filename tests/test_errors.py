"""Bad input: each call raises an error that names the argument, what came, the rule and the remedy."""

from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.lax import ConvDimensionNumbers
from jax.sharding import PartitionSpec

import jaxconv
from jaxconv.lax import conv, conv_general_dilated, conv_transpose, conv_with_general_padding
from jaxconv.primitive import contract
from jaxconv.problem import Axis, Problem, Triple

x1, h1 = jnp.ones(8), jnp.ones(3)
x, w = jnp.ones((2, 4, 8, 8)), jnp.ones((6, 4, 3, 3))
NHWC = ("NHWC", "HWIO", "NHWC")


def layer(*, lhs=x, rhs=w, strides=(1, 1), padding="SAME", **arguments):
    return conv_general_dilated(lhs, rhs, strides, padding, **arguments)


# the call, the error, the words that it must have: argument and what came; rule or remedy
CALLS = {
    # not arrays
    "ragged list": (lambda: jaxconv.convolve([1, [2]], h1), ValueError, "got in1 of type list", "jnp.asarray"),
    "string": (lambda: jaxconv.correlate(x1, "abc"), TypeError, "got in2 of type str", "must be an array"),
    "none": (lambda: jaxconv.convolve(x1, None), TypeError, "got in2 of type NoneType", "must be an array"),
    "dict": (lambda: layer(rhs={"kernel": w}), TypeError, "got rhs of type dict", "must be an array"),
    "list of strings": (lambda: layer(lhs=["a"]), TypeError, "got lhs of dtype <U1", "astype"),
    "object": (lambda: jaxconv.convolve(np.array([1, None]), h1), TypeError, "in1 of dtype object", "astype"),
    "strings": (lambda: jaxconv.convolve(np.array(["a"]), h1), TypeError, "in1 of dtype <U1", "astype"),
    "dates": (lambda: jaxconv.correlate(x1, np.array(["2020-01-01"], "M8[D]")), TypeError, "datetime64", "astype"),
    "masked": (lambda: jaxconv.convolve(np.ma.ones(3), h1), TypeError, "masked array", "filled"),
    "key": (lambda: jaxconv.convolve(jax.random.key(0)[None], h1), TypeError, "in1 of dtype key", "numbers"),
    # ranks and shapes
    "ranks": (lambda: jaxconv.convolve(jnp.ones((3, 3)), h1), ValueError, "float32[3, 3] and in2 of float32[3]", "expand_dims"),
    "valid, mixed": (
        lambda: jaxconv.correlate(jnp.ones((8, 2)), jnp.ones((3, 3)), "valid"),
        ValueError, "shapes (8, 2) and (3, 3)", "at least as large",
    ),
    "layer ranks": (lambda: layer(rhs=w[0]), ValueError, "rhs of float32[4, 3, 3]", "same rank"),
    "layer rank 1": (lambda: layer(lhs=x1, rhs=h1), ValueError, "lhs of float32[8]", "jaxconv.correlate"),
    "transposed rank": (lambda: conv_transpose(x1, h1, (), "SAME"), ValueError, "lhs of float32[8]", "at most 3"),
    "transposed 4d": (
        lambda: conv_transpose(jnp.ones((1,) * 6), jnp.ones((1,) * 6), (1,) * 4, "SAME"),
        ValueError, "without dimension_numbers", "three strings",
    ),
    "contract": (
        lambda: contract(Problem((Axis(8, 3, 6),)), x1, h1), ValueError, "float32[8]", "float32[1, 1, 1, 8]",
    ),
    # features and groups
    "features": (lambda: layer(rhs=w[:, :3]), ValueError, "the input has 4 features in each group, and the kernel 3", "Pass a kernel of 4"),
    "features, NHWC": (lambda: layer(dimension_numbers=NHWC), ValueError, "the input has 8 features", "check dimension_numbers"),
    "feature groups": (lambda: layer(feature_group_count=3), ValueError, "the 4 input features", "multiple of feature_group_count=3"),
    "output groups": (
        lambda: layer(rhs=jnp.ones((5, 2, 3, 3)), feature_group_count=2), ValueError, "kernel's 5 output", "multiple",
    ),
    "batch groups": (lambda: layer(batch_group_count=3), ValueError, "the batch of 2", "multiple of batch_group_count=3"),
    "batch groups, output": (
        lambda: layer(rhs=w[:5], batch_group_count=2), ValueError, "5 output features", "multiple of batch_group_count=2",
    ),
    "both groups": (
        lambda: layer(feature_group_count=2, batch_group_count=2), ValueError, "feature_group_count=2", "at most one",
    ),
    "no groups": (lambda: layer(feature_group_count=0), ValueError, "feature_group_count=0", "at least 1"),
    "negative groups": (lambda: layer(batch_group_count=-2), ValueError, "batch_group_count=-2", "at least 1"),
    "half a group": (lambda: layer(feature_group_count=1.5), TypeError, "feature_group_count=1.5", "integer"),
    # strides and dilations
    "negative stride": (lambda: layer(strides=(1, -1)), ValueError, "window_strides=(1, -1)", "jnp.flip"),
    "zero stride": (lambda: layer(strides=(0, 1)), ValueError, "window_strides=(0, 1)", "at least 1"),
    "one stride": (lambda: layer(strides=(1,)), ValueError, "window_strides=(1,) of length 1", "2 spatial axes"),
    "bare stride": (lambda: layer(strides=2), TypeError, "window_strides=2", "sequence of 2 integers"),
    "float stride": (lambda: layer(strides=(1.5, 1)), TypeError, "window_strides=(1.5, 1)", "integers"),
    "zero dilation": (lambda: layer(rhs_dilation=(0, 1)), ValueError, "rhs_dilation=(0, 1)", "at least 1"),
    "negative input dilation": (
        lambda: layer(padding=[(0, 0)] * 2, lhs_dilation=(-1, 1)), ValueError, "lhs_dilation=(-1, 1)", "at least 1",
    ),
    "long dilation": (lambda: layer(rhs_dilation=(1, 1, 1)), ValueError, "rhs_dilation=(1, 1, 1)", "2 spatial axes"),
    "transposed stride": (lambda: conv_transpose(x, w, (0, 1), "SAME"), ValueError, "strides=(0, 1)", "at least 1"),
    "traced stride": (
        lambda: jax.jit(lambda s: layer(strides=(s, 1)))(1), TypeError, "got window_strides", "known when the call is traced",
    ),
    # padding
    "unknown padding": (lambda: layer(padding="FULL"), ValueError, "padding='FULL'", "'SAME_LOWER'"),
    "bare padding": (lambda: layer(padding=1), TypeError, "padding=1", "(low, high) pairs"),
    "flat padding": (lambda: layer(padding=(1, 1)), TypeError, "padding=(1, 1)", "(low, high) pairs"),
    "one pair": (lambda: layer(padding=[(1, 1)]), ValueError, "1 pairs", "2 spatial axes"),
    "triples": (lambda: layer(padding=[(1, 1, 1)] * 2), ValueError, "padding=((1, 1, 1)", "pairs"),
    "float pads": (lambda: layer(padding=[(0.5, 1)] * 2), TypeError, "padding=((0.5, 1)", "integers"),
    "cropped away": (lambda: layer(padding=[(-5, -5), (0, 0)]), ValueError, "length 8", "Crop less"),
    "SAME with input dilation": (
        lambda: layer(lhs_dilation=(2, 2)), ValueError, "lhs_dilation=(2, 2)", "conv_transpose",
    ),
    "transposed padding": (lambda: conv_transpose(x, w, (2, 2), "FULL"), ValueError, "padding='FULL'", "pair"),
    "transposed, SAME_LOWER": (lambda: conv_transpose(x, w, (2, 2), "SAME_LOWER"), ValueError, "strides=(2, 2)", "'VALID'"),
    "transposed, consistent": (
        lambda: conv_transpose(x, w, (2, 2), "FULL", use_consistent_padding=True), ValueError, "padding='FULL'", "'VALID'",
    ),
    "conv": (lambda: conv(x, w, (1, 1), "OTHER"), ValueError, "padding='OTHER'", "'VALID'"),
    "general": (lambda: conv_with_general_padding(x, w, (1,), "SAME", None, None), ValueError, "(1,)", "2 spatial"),
    # names
    "mode": (lambda: jaxconv.convolve(x1, h1, "SAME"), ValueError, "mode='SAME'", "'valid', 'same', or 'full'"),
    "mode list": (lambda: jaxconv.convolve(x1, h1, ["same"]), ValueError, "mode=('same',)", "'full'"),
    "mode number": (lambda: jaxconv.correlate(x1, h1, 2), ValueError, "mode=2", "'full'"),
    "method": (lambda: jaxconv.convolve(x1, h1, method="winograd9"), ValueError, "method='winograd9'", "'shifts'"),
    "method number": (lambda: layer(method=3), TypeError, "method=3", "must be a name"),
    "method pass": (lambda: layer(method={"backward": "fft"}), ValueError, "'backward'", "'forward', 'input', 'kernel'"),
    "method in a pass": (lambda: layer(method={"input": "ftt"}), ValueError, "'ftt'", "'fft'"),
    "boundary": (lambda: jaxconv.convolve(x1, h1, boundary="symm"), ValueError, "boundary='symm'", "'reflect'"),
    "accuracy": (lambda: jaxconv.convolve(x1, h1, accuracy="high"), ValueError, "accuracy='high'", "'elementwise'"),
    "precision": (lambda: jaxconv.convolve(x1, h1, precision="best"), ValueError, "precision='best'", "'highest'"),
    "three precisions": (lambda: layer(precision=("high",) * 3), ValueError, "precision=", "a pair"),
    "platform": (lambda: jaxconv.plan(jnp.sin, 1.0, platform="cuda"), ValueError, "platform='cuda'", "'gpu'"),
    "plan of a number": (lambda: jaxconv.plan(3), TypeError, "f of type int", "function"),
    "accuracy array": (lambda: jaxconv.convolve(x1, h1, accuracy=np.array(["a", "b"])), ValueError, "accuracy=array", "'elementwise'"),
    "precision dict": (lambda: layer(precision={}), ValueError, "precision={}", "'highest'"),
    # shardings
    "sharding name": (lambda: layer(out_sharding="x"), TypeError, "out_sharding='x'", "PartitionSpec"),
    "sharding without mesh": (lambda: layer(out_sharding=PartitionSpec("d")), ValueError, "out_sharding=P", "jax.set_mesh"),
    "long sharding": (lambda: layer(out_sharding=PartitionSpec(*[None] * 5)), ValueError, "out_sharding=P", "at most 4"),
    # origins
    "origin": (lambda: jaxconv.convolve(x1, h1, "same", origin=2), ValueError, "origin=2", "-1 <= origin <= 1"),
    "origin, even": (
        lambda: jaxconv.correlate(x1, jnp.ones(4), "same", origin=2), ValueError, "origin=2", "-2 <= origin <= 1",
    ),
    "origin of full": (lambda: jaxconv.convolve(x1, h1, origin=1), ValueError, "origin=1", "mode 'same' only"),
    "origins": (lambda: jaxconv.convolve(x1, h1, "same", origin=(0, 0)), ValueError, "origin=(0, 0)", "1 spatial"),
    "float origin": (lambda: jaxconv.convolve(x1, h1, "same", origin=0.5), TypeError, "origin=0.5", "integers"),
    # dimension numbers
    "two specs": (lambda: layer(dimension_numbers=("NCHW", "OIHW")), TypeError, "('NCHW', 'OIHW')", "three strings"),
    "spec numbers": (lambda: layer(dimension_numbers=(1, 2, 3)), TypeError, "(1, 2, 3)", "three strings"),
    "short spec": (lambda: layer(dimension_numbers=("NCH", "OIH", "NCH")), ValueError, "'NCH'", "rank 4"),
    "letters": (lambda: layer(dimension_numbers=("NCHW", "OIHW", "NCHX")), ValueError, "'NCHX'", "spatial letters"),
    "twice a letter": (lambda: layer(dimension_numbers=("NCHH", "OIHW", "NCHW")), ValueError, "'NCHH'", "once"),
    "no batch": (lambda: layer(dimension_numbers=("ABHW", "OIHW", "NCHW")), ValueError, "'ABHW'", "'N'"),
    "specs of another rank": (
        lambda: layer(dimension_numbers=ConvDimensionNumbers((0, 1), (0, 1), (0, 1))), ValueError, "0 to 3", "order",
    ),
    # dtypes
    "dtypes": (lambda: layer(rhs=w.astype(jnp.bfloat16)), TypeError, "rhs of bfloat16", "astype"),
    "no common dtype": (lambda: jaxconv.convolve(x1.astype("float8_e5m2"), h1), TypeError, "dtype float8_e5m2", "astype"),
    "long double": (lambda: jaxconv.convolve(np.longdouble([1.0]), h1), TypeError, "in1 of dtype", "no such type"),
    "fraction": (lambda: jaxconv.convolve(Fraction(1, 2), 1), TypeError, "in1 of type Fraction", "must be an array"),
    "huge integer": (lambda: jaxconv.convolve(2**70, 2), ValueError, "in1=1180591620717411303424", "must fit"),
    "narrower": (
        lambda: layer(preferred_element_type=jnp.float16), TypeError, "preferred_element_type", "no narrower",
    ),
    "to integers": (lambda: layer(preferred_element_type="int32"), TypeError, "'int32'", "same kind"),
    "to no dtype": (lambda: layer(preferred_element_type="float33"), TypeError, "'float33'", "must be a dtype"),
    "signedness": (
        lambda: layer(lhs=x.astype("int8"), rhs=w.astype("int8"), preferred_element_type="uint8"),
        TypeError, "'uint8'", "same kind",
    ),
    # refusals
    "fft of integers": (lambda: jaxconv.convolve(jnp.arange(9), jnp.arange(3), method="fft"), ValueError, "'fft'", "cast"),
    "fft elementwise": (
        lambda: jaxconv.convolve(x1, h1, method="fft", accuracy="elementwise"), ValueError, "'fft'", "normwise",
    ),
    # relations
    "layouts": (
        lambda: Problem((Axis(3, 2, 2),), layouts=Triple("n0", "c0", "m0")), ValueError, "'n0'", "'ngc0'",
    ),
    "extents": (lambda: Axis(-3, 2, 2), ValueError, "I=-3", "must not be negative"),
}  # fmt: skip


def test_the_table_is_long_enough():
    assert len(CALLS) >= 40


@pytest.mark.parametrize("name", CALLS)
def test_bad_input(name):
    call, kind, *words = CALLS[name]
    with pytest.raises(kind) as caught:
        call()
    assert caught.type is kind
    message = str(caught.value)
    assert message.startswith("`")  # the call, or the argument, in backticks
    assert message.endswith(".")
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("name", CALLS)
def test_no_message_of_jax_or_xla(name):
    """The line that raises is one of jaxconv's, in the unfiltered traceback."""
    jax.config.update("jax_traceback_filtering", "off")
    try:
        with pytest.raises((TypeError, ValueError)) as caught:
            CALLS[name][0]()
    finally:
        jax.config.update("jax_traceback_filtering", "auto")
    frame = caught.value.__traceback__
    while frame.tb_next:
        frame = frame.tb_next
    assert "jaxconv" in Path(frame.tb_frame.f_code.co_filename).parts, frame.tb_frame


@pytest.mark.parametrize("f", [jaxconv.convolve, jaxconv.correlate])
def test_symbolic_sizes_are_refused(f):
    (n,) = export.symbolic_shape("n")
    with pytest.raises(TypeError, match="symbolic"):
        jax.eval_shape(f, jax.ShapeDtypeStruct((n,), jnp.float32), h1)
