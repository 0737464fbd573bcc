"""Bad input: each call raises an error that names the argument, what came, the rule and the remedy."""

import ast
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
from jaxconv import attribution, matching, ndimage, signal
from jaxconv.arguments import ArgumentError as Argument
from jaxconv.lax import conv, conv_general_dilated, conv_transpose, conv_with_general_padding, fold
from jaxconv.lax import conv_general_dilated_local as local
from jaxconv.lax import conv_general_dilated_patches as patches
from jaxconv.primitive import contract
from jaxconv.problem import Axis, Problem, Triple

x1, h1, x2 = jnp.ones(8), jnp.ones(3), jnp.ones((2, 8))
x, w = jnp.ones((2, 4, 8, 8)), jnp.ones((6, 4, 3, 3))
NHWC = ("NHWC", "HWIO", "NHWC")


def layer(*, lhs=x, rhs=w, strides=(1, 1), padding="SAME", **arguments):
    return conv_general_dilated(lhs, rhs, strides, padding, **arguments)


# the call, the error, the words that it must have: argument and what came; rule or remedy
CALLS = {
    # not arrays
    "symbolic": (
        lambda: jax.eval_shape(jaxconv.convolve, jax.ShapeDtypeStruct(export.symbolic_shape("n"), "float32"), h1),
        TypeError, "symbolic shape (n,)", "one program for each",
    ),
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
    "float stride after an integer's": (
        lambda: (layer(strides=(1, 1)), layer(strides=(1.0, 1))), TypeError, "window_strides=(1.0, 1)", "integers",
    ),
    "method array": (
        lambda: jaxconv.convolve(x1, h1, method=np.array([1, 2])), TypeError, "method=array([1, 2])", "The names are",
    ),
    "preferred number": (
        lambda: jaxconv.convolve(x1, h1, preferred_element_type=np.float32(1.0)), TypeError, "preferred_element_type", "a dtype",
    ),
    "lags and an origin": (
        lambda: jaxconv.correlate(x1, h1, lags=1, origin=np.array([0])), ValueError, "lags=1", "Leave out mode and origin",
    ),
    "zero stride": (lambda: layer(strides=(0, 1)), ValueError, "window_strides=(0, 1)", "at least 1"),
    "one stride": (lambda: layer(strides=(1,)), ValueError, "window_strides=(1,) of length 1", "each axis, 2"),
    "bare stride": (lambda: layer(strides=2), TypeError, "window_strides=2", "sequence of 2 integers"),
    "float stride": (lambda: layer(strides=(1.5, 1)), TypeError, "window_strides=(1.5, 1)", "integers"),
    "zero dilation": (lambda: layer(rhs_dilation=(0, 1)), ValueError, "rhs_dilation=(0, 1)", "at least 1"),
    "negative input dilation": (
        lambda: layer(padding=[(0, 0)] * 2, lhs_dilation=(-1, 1)), ValueError, "lhs_dilation=(-1, 1)", "at least 1",
    ),
    "long dilation": (lambda: layer(rhs_dilation=(1, 1, 1)), ValueError, "rhs_dilation=(1, 1, 1)", "each axis, 2"),
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
    "general": (lambda: conv_with_general_padding(x, w, (1,), "SAME", None, None), ValueError, "(1,)", "each axis, 2"),
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
    "origins": (lambda: jaxconv.convolve(x1, h1, "same", origin=(0, 0)), ValueError, "origin=(0, 0)", "each axis, 1"),
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
    "huge integer": (lambda: jaxconv.convolve(2**70, 2), ValueError, "in1 with the integer 1180591620717411303424", "must fit"),
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
    # axes, lags and batches of arrays
    "axes out of range": (lambda: jaxconv.convolve(x2, x2, axes=2), ValueError, "axes=2", "from -2 to 1"),
    "axes twice": (lambda: jaxconv.convolve(x2, x2, axes=(0, -2)), ValueError, "axes=(0, -2)", "unique"),
    "float axes": (lambda: jaxconv.convolve(x2, x2, axes=(0.5,)), Argument, "axes=(0.5,)", "iterable of integers"),
    "axes that are missing": (lambda: jaxconv.convolve(x2, h1, axes=0), ValueError, "axes=0", "Count them from the end"),
    "batches": (lambda: jaxconv.convolve(x2, jnp.ones((3, 8)), axes=1), ValueError, "(2, 8) and (3, 8)", "axes"),
    "boundaries": (lambda: jaxconv.convolve(x2, x2, "same", boundary=("wrap",)), ValueError, "boundary=('wrap',)", "one for each"),
    "lags": (lambda: jaxconv.correlate(x1, h1, lags=(1, 2, 3)), TypeError, "lags=(1, 2, 3)", "(first, last)"),
    "lags turned round": (lambda: jaxconv.correlate(x1, h1, lags=(2, 1)), ValueError, "lags=(2, 1)", "first <= last"),
    "lags and mode": (lambda: jaxconv.correlate(x1, h1, "same", lags=2), ValueError, "mode='same'", "Leave out mode"),
    "unknown kernel": (
        lambda: jaxconv.convolve(x2, jnp.ones((2, 2)), method="separable"), ValueError, "a kernel of type", "NumPy array",
    ),
    "not separable": (
        lambda: jaxconv.convolve(x2, np.array([[1, np.nan], [0, 1.0]]), method="separable"), ValueError, "float64[2, 2]", "method='auto'",
    ),
    "separable batch": (
        lambda: jaxconv.convolve(x2, np.ones((2, 3)), axes=1, method="separable"), ValueError, "a batch of kernels", "for each",
    ),
    # signal
    "images": (lambda: signal.convolve2d(x1, x1), ValueError, "(8,) and in2 of shape (8,)", "jaxconv.convolve"),
    "image boundary": (lambda: signal.convolve2d(x2, x2, boundary="reflect"), ValueError, "boundary='reflect'", "'symm'"),
    "fillvalues": (lambda: signal.convolve2d(x2, x2, fillvalue=[1, 2]), ValueError, "fillvalue=[1, 2]", "scalar"),
    "complex fillvalue": (lambda: signal.correlate2d(x2, x2, fillvalue=1j), ValueError, "fillvalue=1j", ".astype(complex)"),
    "no axes": (lambda: signal.fftconvolve(x1, h1, axes=()), ValueError, "axes=()", "cannot be empty"),
    "lags' mode": (lambda: signal.correlation_lags(3, 2, "all"), ValueError, "mode='all'", "'full'"),
    "lags' length": (lambda: signal.correlation_lags(3.5, 2), Argument, "in1_len=3.5", "len(x)"),
    "scale": (lambda: signal.autocorrelation(x1, scale="mean"), ValueError, "scale='mean'", "'unbiased'"),
    "columns": (lambda: signal.convolution_matrix(h1, 0), ValueError, "n=0", "positive integer"),
    "matrix of nothing": (lambda: signal.convolution_matrix([], 3), ValueError, "shape (0,)", "at least 1"),
    "matrix mode": (lambda: signal.convolution_matrix(h1, 3, "all"), ValueError, "mode='all'", "'valid'"),
    "dividend": (lambda: signal.deconvolve(x2, h1), ValueError, "shape (2, 8)", "non-empty 1d"),
    "divisor": (lambda: signal.deconvolve(x1, jnp.array([0.0, 1])), ValueError, "begins with 0", "Leave out"),
    "taps": (lambda: signal.upfirdn([], x1), ValueError, "h of shape (0,)", "Pass its taps"),
    "rate": (lambda: signal.upfirdn(h1, x1, up=0), ValueError, "up=0", ">= 1"),
    "half a rate": (lambda: signal.resample_poly(x1, 1.5, 1), Argument, "up=1.5", "integer"),
    "extension": (lambda: signal.upfirdn(h1, x1, mode="mirror"), ValueError, "mode='mirror'", "'antireflect'"),
    "window": (lambda: signal.resample_poly(x1, 2, 1, window=np.eye(2)), ValueError, "shape (2, 2)", "1-D"),
    "padtype": (lambda: signal.resample_poly(x1, 2, 1, padtype="zero"), ValueError, "padtype='zero'", "constant"),
    "cval": (lambda: signal.resample_poly(x1, 2, 1, padtype="mean", cval=1), ValueError, "cval=1", "no effect"),
    "window_length": (lambda: signal.savgol_filter(x1, 0, 0), ValueError, "window_length=0", "at least 1"),
    "polyorder": (lambda: signal.savgol_coeffs(3, 3), ValueError, "polyorder=3", "longer window"),
    "pos": (lambda: signal.savgol_coeffs(3, 1, pos=3), ValueError, "pos=3", "less than window_length"),
    "use": (lambda: signal.savgol_coeffs(3, 1, use="sum"), ValueError, "use='sum'", "'conv' or 'dot'"),
    "savgol mode": (lambda: signal.savgol_filter(x1, 3, 1, mode="symm"), ValueError, "mode='symm'", "'interp'"),
    "savgol window": (lambda: signal.savgol_filter(x1, 9, 1), ValueError, "window_length=9 for 8 values", "another mode"),
    "sepfir2d": (lambda: signal.sepfir2d(x1, h1, h1), ValueError, "input of shape (8,)", "2-D"),
    "sepfir2d kernel": (lambda: signal.sepfir2d(x2, x2, h1), ValueError, "hrow of shape (2, 8)", "1-D"),
    "sepfir2d length": (lambda: signal.sepfir2d(x2, h1, x1), ValueError, "hcol of length 8", "odd length"),
    # ndimage
    "axis": (lambda: ndimage.correlate1d(x1, h1, axis=0.5), TypeError, "axis=0.5", "whole number"),
    "no weights": (lambda: ndimage.convolve1d(x1, []), Argument, "weights of shape (0,)", "at least one entry"),
    "weights": (lambda: ndimage.correlate(x2, h1), Argument, "weights.ndim (1) must match len(axes) (2)", "Change"),
    "filter mode": (lambda: ndimage.correlate(x1, h1, mode="symm"), Argument, "mode='symm'", "'reflect'"),
    "filter modes": (lambda: ndimage.correlate(x1, h1, mode=["wrap"]), Argument, "mode=('wrap',)", "sequence of modes"),
    "filter origin": (lambda: ndimage.correlate(x1, h1, origin=2), ValueError, "origin=2", "-1 <= origin <= 1"),
    "output": (lambda: ndimage.sobel(x1, output=np.ones(8)), TypeError, "array for output", "Pass a dtype"),
    "output dtype": (lambda: ndimage.sobel(x1, output="U3"), Argument, "output='U3'", "numeric dtype"),
    "complex cval": (lambda: ndimage.correlate(x1, h1, mode="constant", cval=1j), ValueError, "cval=1j", "real cval"),
    "cvals": (lambda: ndimage.correlate(x1, h1, cval=np.ones(2)), ValueError, "cval of shape (2,)", "one number"),
    "method of integers": (lambda: ndimage.correlate([1, 2], [0.5], method="shifts"), ValueError, "method='shifts' for a result of int", "floating `output`"),
    "keyword": (lambda: ndimage.sobel(x1, sigma=3), TypeError, "['sigma']", "Correct the name"),
    "sequence": (lambda: ndimage.gaussian_filter(x2, [1, 2, 3]), Argument, "sigma=[1, 2, 3]", "equal to input rank"),
    "order": (lambda: ndimage.gaussian_filter1d(x1, 1, order=-1), ValueError, "order=-1", "nonnegative"),
    "sigma": (lambda: ndimage.gaussian_filter(x1, -1), ValueError, "sigma=-1.0", "0 or more"),
    "no sigma": (lambda: ndimage.gaussian_filter1d(x1, None), ValueError, "sigma=None", "finite"),
    "large list": (lambda: jaxconv.convolve([2**40, 1], h1), ValueError, "in1 with the integer 1099511627776", "must fit"),
    "no overlap": (lambda: matching.autocorrelation([]), ValueError, "float32[0]", "not be empty"),
    "pads": (lambda: matching.match_template(x1, h1, True, "nope"), ValueError, "mode='nope'", "'reflect'"),
    "scalar response": (lambda: matching.find_matches(3.0), ValueError, "float32[]", "not empty"),
    "scalar images": (lambda: matching.phase_cross_correlation(1.0, 1.0), ValueError, "float32[]", "nor scalars"),
    "traced sigma": (
        lambda: jax.jit(lambda s: ndimage.gaussian_filter(x1, s))(1.0), ValueError, "traced sigma", "radius=",
    ),
    "size": (lambda: ndimage.uniform_filter1d(x1, 0), Argument, "size=0", "incorrect filter size"),
    # patches
    "filter_shape": (lambda: patches(x, (3,), (1, 1), "SAME"), ValueError, "filter_shape=(3,)", "each axis, 2"),
    "image of patches": (lambda: fold(x, (2, 1, 8, 8), (3, 3), (1, 1), "SAME"), ValueError, "(2, 4, 8, 8)", "(2, 9, 8, 8)"),
    "local dtypes": (lambda: local(x, x.astype("bfloat16"), (1, 1), "SAME", (1, 1)), TypeError, "bfloat16", "astype"),
    "local kernel": (lambda: local(x, w, (1, 1), "SAME", (3, 3)), ValueError, "36 input features", "Change its shape"),
    "output padding": (
        lambda: conv_transpose(x, w, (2, 2), "SAME", output_padding=(2, 0)), ValueError, "output_padding=(2, 0)", "less than",
    ),
    # matching
    "measure": (lambda: matching.match_template(x2, x2, measure="ssim"), ValueError, "measure='ssim'", "'ccoeff_normed'"),
    "template": (lambda: matching.match_template(x1, x2), Argument, "image of float32[8]", "no more dimensions"),
    "templates": (
        lambda: matching.match_template(jnp.ones((3, 9)), jnp.ones((2, 3)), axes=-1), ValueError, "template of float32[2, 3]", "jax.vmap",
    ),
    "split": (lambda: matching.match_template(x1, h1, method="separable"), ValueError, "method='separable'", "Pass one of them"),
    "mask": (lambda: matching.match_template(x2, x2, mask=h1), ValueError, "mask of shape (3,)", "broadcast_to"),
    "larger template": (lambda: matching.match_template(h1, x1), ValueError, "shape (3,)", "pad_input=True"),
    "complex image": (lambda: matching.match_template(1j * x1, h1), TypeError, "complex64[8]", "jaxconv.correlate"),
    "no response": (lambda: matching.find_matches(jnp.ones(0)), ValueError, "float32[0]", "not empty"),
    "two thresholds": (lambda: matching.find_matches(x1, threshold=[1, 2]), ValueError, "threshold of", "one number"),
    "no matches": (lambda: matching.find_matches(x1, 0), ValueError, "count=0", "1 or more"),
    "registration": (lambda: matching.phase_cross_correlation(x1, h1), ValueError, "float32[3]", "same shape"),
    "space": (lambda: matching.phase_cross_correlation(x1, x1, space="time"), ValueError, "space='time'", "'fourier'"),
    "normalization": (
        lambda: matching.phase_cross_correlation(x1, x1, normalization="unit"), ValueError, "normalization='unit'", "'phase'",
    ),
    "upsample_factor": (
        lambda: matching.phase_cross_correlation(x1, x1, upsample_factor=0.5), ValueError, "upsample_factor=0.5", "whole number",
    ),
    "complex overlap": (lambda: matching.autocorrelation(1j * x1), TypeError, "complex64[8]", "signal.autocorrelation"),
    "complex map": (lambda: attribution.signed(1j * x2), TypeError, "map of complex64[2, 8]", "real numbers"),
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
    assert message.startswith(("`", "Parameter "))  # the call, or the argument, in backticks
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


# Files whose errors have their own tests, and raise statements that pass another's error on.
ELSEWHERE = (
    "cli.py", "costs.py", "jaxprs.py", "onednn.py", "sharding.py", "rates.py", "tune.py", "wisdom.py", "effort.py", "planner.py", "primitive.py", "problem.py", "base.py",
    "report.py", "rounding.py",
)  # fmt: skip


def test_every_error_is_in_the_table():
    """Each `raise` of the surfaces is where one of these calls ends."""
    reached = set()
    for call, kind, *_ in CALLS.values():
        with pytest.raises(kind) as caught:
            call()
        frame = caught.value.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        reached.add((frame.tb_frame.f_code.co_filename, frame.tb_lineno))
    missed = []
    for path in Path(jaxconv.__file__).parent.rglob("*.py"):
        if path.parent.name in ("layers", "attribution") or (
            path.name in ELSEWHERE and path.parent.name not in ("ndimage", "lax")
        ):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            said = (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and "AssertionError" not in ast.dump(node.exc)
            )
            lines = range(node.lineno, node.end_lineno + 1) if said else ()
            if lines and not reached & {(str(path), n) for n in lines}:
                missed.append(f"{path.name}:{node.lineno}")
    assert not missed
