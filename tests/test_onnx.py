"""The layers of `jaxconv.lax` against ONNX's conformance vectors: attributes translated, recorded outputs met."""

from collections import Counter
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from onnx.backend.test.case import node
from onnx.backend.test.loader import load_model_tests
from onnx.helper import get_attribute_value
from onnx.numpy_helper import to_array

import jaxconv

NAMES = {b"SAME_UPPER": "SAME", b"SAME_LOWER": "SAME_LOWER", b"VALID": "VALID"}


# The operators: the arguments are ONNX's inputs, the keywords its attributes with their defaults.


def convolution(x, w, *bias, auto_pad=b"NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None):
    padding = NAMES.get(auto_pad) or pairs(pads, w)
    return layer(x, w, strides or ones(w), padding, dilations, group) + spread(bias, w)


def integer_convolution(x, w, x_zero=0, w_zero=0, **attributes):
    # The zero points come off first: the pads are zeros of the difference.
    w_zero = np.reshape(w_zero, (-1, 1, *ones(w)))
    return convolution(*(np.subtract(a, zero, dtype=np.int32) for a, zero in ((x, x_zero), (w, w_zero))), **attributes)


def transposed_convolution(
    x, w, *bias, auto_pad=b"NOTSET", dilations=None, group=1, kernel_shape=None, output_padding=None,
    output_shape=None, pads=None, strides=None,
):  # fmt: skip
    padding, strides, dilations = pairs(pads, w), strides or ones(w), dilations or ones(w)
    more = output_padding or [0] * len(strides)
    unpadded = [
        s * (i - 1) + D * (k - 1) + 1 + m
        for s, i, D, k, m in zip(strides, x.shape[2:], dilations, w.shape[2:], more, strict=True)
    ]
    if auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
        output_shape = [s * i for s, i in zip(strides, x.shape[2:], strict=True)]
    if output_shape:
        total = [u - o for u, o in zip(unpadded, output_shape, strict=True)]
        padding = [(t // 2, t - t // 2) if auto_pad == b"SAME_UPPER" else (t - t // 2, t // 2) for t in total]
    numbers = jax.lax.ConvDimensionNumbers(*[tuple(range(w.ndim))] * 3)
    y = jaxconv.lax.conv_transpose(
        x, w, strides, padding, dilations, numbers, transpose_kernel=True, use_consistent_padding=True,
        feature_group_count=group, output_padding=more, accuracy="elementwise",
    )  # fmt: skip
    return y + spread(bias, w)


def fold(patches, image_shape, block_shape, dilations=None, pads=None, strides=None):
    n, features, _ = patches.shape
    image, block = image_shape.tolist(), block_shape.tolist()
    w = np.empty((1, 1, *block))
    padding, strides, dilations = pairs(pads, w), strides or ones(w), dilations or ones(w)
    positions = [
        (i + sum(p) - D * (k - 1) - 1) // s + 1
        for i, p, D, k, s in zip(image, padding, dilations, block, strides, strict=True)
    ]
    return jaxconv.lax.fold(
        patches.reshape(n, features, *positions), (n, features // w.size, *image), block, strides, padding,
        rhs_dilation=dilations,
    )  # fmt: skip


def layer(x, w, strides, padding, dilations, groups):
    return jaxconv.lax.conv_general_dilated(
        x, w, strides, padding, rhs_dilation=dilations, feature_group_count=groups, accuracy="elementwise"
    )


def ones(w):
    return [1] * (w.ndim - 2)


def pairs(pads, w):
    lows, highs = np.reshape(pads or [0, 0] * (w.ndim - 2), (2, -1)).tolist()
    return list(zip(lows, highs, strict=True))


def spread(bias, w):
    return bias[0].reshape(-1, *ones(w)) if bias else 0


OPERATORS = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "ConvInteger": integer_convolution,
    "Col2Im": fold,
}
COUNTS = {"Conv": 33, "ConvTranspose": 14, "ConvInteger": 2, "Col2Im": 5}  # of onnx 1.23.2


def collected():
    """ONNX's cases: those written out in its source, and those recorded from PyTorch, with their weights."""
    for name in OPERATORS:  # one by one: among the modules that `collect_testcases` imports, some warn
        import_module(f"onnx.backend.test.case.node.{name.lower()}")
    for case in node._NodeTestCases:
        [(inputs, [output])] = case.data_sets
        yield case.name, case.model.graph, inputs, output
    for case in load_model_tests(kind="pytorch-converted") + load_model_tests(kind="pytorch-operator"):
        graph = onnx.load(Path(case.model_dir, "model.onnx")).graph
        weights = {tensor.name: to_array(tensor) for tensor in graph.initializer}
        data = Path(case.model_dir, "test_data_set_0")
        x, output = (to_array(onnx.load_tensor(data / file)) for file in ("input_0.pb", "output_0.pb"))
        yield case.name, graph, [weights.get(name, x) for name in graph.node[0].input], output


CASES = {
    name: (graph.node[0], inputs, output)
    for name, graph, inputs, output in collected()
    if len(graph.node) == 1 and graph.node[0].op_type in OPERATORS
}


def test_all_of_onnx_is_here():
    counts = Counter(operation.op_type for operation, _, _ in CASES.values())
    assert counts >= Counter(COUNTS), f"onnx {onnx.__version__}"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CASES)
def test_output(name):
    operation, inputs, output = CASES[name]
    attributes = {attribute.name: get_attribute_value(attribute) for attribute in operation.attribute}
    run = OPERATORS[operation.op_type]
    found = run(*inputs, **attributes)
    assert (found.shape, found.dtype) == (output.shape, output.dtype)
    if all((array == np.round(array)).all() for array in inputs):
        np.testing.assert_array_equal(found, output)
        return
    # Sums of n rounded products, in any order, are off by at most n/2 eps times the sum of magnitudes: on either side.
    terms, magnitudes = (run(*map(f, inputs), **attributes) for f in (np.ones_like, np.abs))
    assert (np.abs(found - output) <= np.finfo(output.dtype).eps * terms * magnitudes).all()
