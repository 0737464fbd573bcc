"""Kernels and files: against PyTorch, Keras and ONNX in exact integers, and the laws of flips and of round trips."""

import os
import stat
import subprocess
import sys
from functools import partial

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import optax
import pytest
import safetensors.numpy
from flax import linen, nnx
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import jaxconv
from jaxconv.layers import (
    Convolve,
    ConvolveTranspose,
    Correlate,
    CorrelateTranspose,
    export_kernel,
    flip_kernels,
    import_kernel,
    load_safetensors,
    save_safetensors,
)
from jaxconv.layers.files import DTYPES

LAST = {d: (f"N{'XYZ'[:d]}C", f"{'XYZ'[:d]}IO", f"N{'XYZ'[:d]}C") for d in (1, 2, 3)}
FIRST = {d: (f"NC{'XYZ'[:d]}", f"{'XYZ'[:d]}IO", f"NC{'XYZ'[:d]}") for d in (1, 2, 3)}


def integers(rng, *shape):
    return rng.integers(-3, 4, shape).astype(np.float32)


# The layers here, with the arguments of the others: P pads theirs on both sides. Small integers are added exactly.


def correlated(x, w, numbers, groups=1, S=None, D=None, P=None):
    d = w.ndim - 2
    S, D, P = S or (1,) * d, D or (1,) * d, P or (0,) * d
    return jaxconv.lax.conv_general_dilated(
        x, w, S, [(p, p) for p in P], None, D, numbers, feature_group_count=groups, method="direct"
    )


def transposed(x, w, numbers, groups=1, S=None, D=None, P=None, more=None):
    d = w.ndim - 2
    S, D, P = S or (1,) * d, D or (1,) * d, P or (0,) * d
    pads = [(D * (k - 1) - p,) * 2 for k, D, p in zip(w.shape, D, P, strict=False)]
    return jaxconv.lax.conv_transpose(
        x, w, S, pads, D, numbers, feature_group_count=groups, output_padding=more, method="direct"
    )


# Layouts.


@st.composite
def layers(draw, kind):
    """A layer of PyTorch and ONNX: an input and a kernel in its layout, and its arguments."""
    d = draw(st.integers(1, 3))

    def axes(least, most):
        return draw(st.tuples(*[st.integers(least, most)] * d))

    groups, c, m = (draw(st.integers(1, 3)) for _ in range(3))
    c = 1 if kind == "depthwise" else c
    kernel, S, D = axes(1, 3), axes(1, 3), axes(1, 2)
    P = tuple(draw(st.integers(0, D * (k - 1))) for k, D in zip(kernel, D, strict=True))
    spatial = tuple(draw(st.integers(D * (k - 1) + 1, D * (k - 1) + 3)) for k, D in zip(kernel, D, strict=True))
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    features = (groups * c, m) if kind == "transposed" else (groups * m, c)
    return (
        integers(rng, 2, groups * c, *spatial),
        integers(rng, *features, *kernel),
        dict(groups=groups, S=S, D=D, P=P),
        tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(S, D, strict=True)),
    )


def there_and_back(theirs, *form):
    """The imported kernel, once it has come back as it went, and an exported one, too."""
    ours = import_kernel(theirs, *form)
    assert isinstance(ours, jax.Array)
    back = export_kernel(ours, *form)
    assert isinstance(back, np.ndarray)
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, theirs, strict=True)
    np.testing.assert_array_equal(import_kernel(back, *form), ours, strict=True)
    np.testing.assert_array_equal(jax.jit(lambda kernel: import_kernel(kernel, *form))(theirs), ours, strict=True)
    return ours


@pytest.mark.parametrize("kind", ["regular", "depthwise"])
def test_a_layer_of_pytorch_is_ours_with_the_imported_kernel(kind):
    torch = pytest.importorskip("torch")

    @given(layers(kind))
    def check(layer):
        x, w, how, _ = layer
        theirs = getattr(torch.nn.functional, f"conv{w.ndim - 2}d")(
            torch.tensor(x), torch.tensor(w),
            stride=how["S"], padding=how["P"], dilation=how["D"], groups=how["groups"],
        )  # fmt: skip
        ours = there_and_back(w, "pytorch", kind, how["groups"])
        np.testing.assert_array_equal(correlated(x, ours, FIRST[w.ndim - 2], **how), theirs.numpy(), strict=True)

    check()


def test_a_transposed_layer_of_pytorch_is_ours_with_the_imported_kernel():
    torch = pytest.importorskip("torch")

    @given(layers("transposed"))
    def check(layer):
        x, w, how, more = layer
        theirs = getattr(torch.nn.functional, f"conv_transpose{w.ndim - 2}d")(
            torch.tensor(x), torch.tensor(w), stride=how["S"], padding=how["P"], dilation=how["D"],
            groups=how["groups"], output_padding=more,
        )  # fmt: skip
        ours = there_and_back(w, "pytorch", "transposed", how["groups"])
        y = transposed(x, ours, FIRST[w.ndim - 2], more=more, **how)
        np.testing.assert_array_equal(y, theirs.numpy(), strict=True)

    check()


def by_onnx(tmp_path, operator, x, w, how, **attributes):
    """What the operator's layer gives once its model has been to a file and back; and the kernel in the file."""
    P = how["P"]
    node = onnx.helper.make_node(
        operator, ["x", "w"], ["y"], group=how["groups"], strides=how["S"], dilations=how["D"], pads=P + P, **attributes
    )
    value = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    kernel = onnx.numpy_helper.from_array(w, "w")
    graph = onnx.helper.make_graph(
        [node], "layer", [value("x", shape=x.shape)], [value("y", shape=[None] * x.ndim)], [kernel]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "layer.onnx")
    model = onnx.load(tmp_path / "layer.onnx")
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    return y, onnx.numpy_helper.to_array(model.graph.initializer[0])


CASES = {  # kernel, stride, dilation, pads
    "1d": ((3,), (2,), (2,), (1,)),
    "2d": ((3, 2), (2, 1), (1, 2), (1, 0)),
    "2d even": ((2, 4), (1, 3), (1, 1), (0, 2)),
}


@pytest.mark.covering
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("groups", "c", "m"), [(1, 2, 3), (2, 2, 3), (3, 1, 2)])
def test_a_layer_of_onnx_is_ours_with_the_imported_kernel(case, groups, c, m, tmp_path, rng):
    kernel, S, D, P = case
    how = dict(groups=groups, S=S, D=D, P=P)
    x, w = integers(rng, 2, groups * c, *(7 for _ in S)), integers(rng, groups * m, c, *kernel)
    y, stored = by_onnx(tmp_path, "Conv", x, w, how)
    kinds = ["regular", "depthwise"] if c == 1 else ["regular"]
    for kind in kinds:
        ours = there_and_back(stored, "onnx", kind, groups)
        np.testing.assert_array_equal(correlated(x, ours, FIRST[len(S)], **how), y, strict=True)


@pytest.mark.covering
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("groups", "c", "m"), [(1, 2, 3), (2, 2, 3), (3, 1, 2), (2, 1, 1)])
def test_a_transposed_layer_of_onnx_is_ours_with_the_imported_kernel(case, groups, c, m, tmp_path, rng):
    kernel, S, D, P = case
    how = dict(groups=groups, S=S, D=D, P=P)
    x, w = integers(rng, 2, groups * c, *(5 for _ in S)), integers(rng, groups * c, m, *kernel)
    if c == m == 1:
        y, stored = by_onnx(tmp_path, "ConvTranspose", x, w, how)
    else:
        # The evaluator of onnx 1.23 cuts W by output features, and keeps one of each group: a group at a time.
        parts = [
            by_onnx(tmp_path, "ConvTranspose", x, w, how | dict(groups=1))
            for x, w in zip(np.split(x, groups, 1), np.split(w, groups), strict=True)
        ]
        y, stored = np.concatenate([y for y, _ in parts], 1), np.concatenate([w for _, w in parts])
    ours = there_and_back(stored, "onnx", "transposed", groups)
    np.testing.assert_array_equal(transposed(x, ours, FIRST[len(S)], **how), y, strict=True)


def by_keras(name, x, rng, **arguments):
    keras = pytest.importorskip("keras")
    layer = getattr(keras.layers, name)(use_bias=False, **arguments)
    layer.build(x.shape)
    layer.kernel.assign(integers(rng, *layer.kernel.shape))
    return np.asarray(layer(x)), np.asarray(layer.kernel)


@pytest.mark.covering
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_layer_of_keras_is_ours_with_the_imported_kernel(d, groups, rng):
    x, S = integers(rng, 2, *(7, 6, 5)[:d], 4), (2, 1, 2)[:d]
    y, kernel = by_keras(f"Conv{d}D", x, rng, filters=6, kernel_size=(3, 2, 2)[:d], strides=S, groups=groups)
    ours = there_and_back(kernel, "keras", "regular", groups)
    np.testing.assert_array_equal(correlated(x, ours, LAST[d], groups, S), y, strict=True)


@pytest.mark.covering
@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("d", [1, 2])
def test_a_depthwise_layer_of_keras_is_ours_with_the_imported_kernel(d, multiplier, rng):
    x = integers(rng, 2, *(7, 6)[:d], 4)
    y, kernel = by_keras(f"DepthwiseConv{d}D", x, rng, kernel_size=(3, 2)[:d], depth_multiplier=multiplier)
    ours = there_and_back(kernel, "keras", "depthwise", 4)
    np.testing.assert_array_equal(import_kernel(kernel, "keras", "depthwise"), ours)
    np.testing.assert_array_equal(correlated(x, ours, LAST[d], 4), y, strict=True)


@pytest.mark.covering
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_transposed_layer_of_keras_is_ours_with_the_imported_kernel(d, padding, rng):
    x, S = integers(rng, 2, *(5, 4, 3)[:d], 4), (2, 1, 2)[:d]
    kernel_size = (3, 2, 3)[:d]
    y, kernel = by_keras(
        f"Conv{d}DTranspose", x, rng, filters=3, kernel_size=kernel_size, strides=S, padding=padding
    )  # fmt: skip
    ours = there_and_back(kernel, "keras", "transposed")
    result = jaxconv.lax.conv_transpose(x, ours, S, padding.upper(), None, LAST[d], method="direct")
    np.testing.assert_array_equal(result, y, strict=True)


def test_imported_kernels_go_into_the_layers(rng):
    torch = pytest.importorskip("torch")
    x, w = integers(rng, 2, 4, 5, 6), integers(rng, 4, 3, 3, 2)
    theirs = torch.nn.functional.conv_transpose2d(torch.tensor(x), torch.tensor(w), stride=2, groups=2).numpy()
    how = dict(strides=2, padding="VALID", use_bias=False, feature_group_count=2, method="direct", rngs=nnx.Rngs(0))
    layer = CorrelateTranspose(4, 6, (3, 2), **how)
    layer.kernel[...] = import_kernel(w, "pytorch", "transposed", 2)
    other = ConvolveTranspose(4, 6, (3, 2), **how)
    other.kernel[...] = jnp.flip(import_kernel(w, "pytorch", "transposed", 2), (0, 1))
    for each in (layer, other):
        np.testing.assert_array_equal(jnp.moveaxis(each(jnp.moveaxis(x, 1, -1)), -1, 1), theirs)
    np.testing.assert_array_equal(export_kernel(layer.kernel, "pytorch", "transposed", 2), w)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_kernels_keep_their_dtype(dtype):
    kernel = jnp.arange(12).reshape(2, 3, 2).astype(dtype)
    assert import_kernel(kernel, "pytorch").dtype == dtype
    assert export_kernel(kernel, "pytorch").dtype == dtype


W = np.zeros((6, 2, 5, 5), np.float32)
REFUSED = [
    (lambda f: f(W, "caffe"), ValueError, r"layout='caffe'.*\('pytorch', 'keras', 'onnx'\)"),
    (lambda f: f(W, "onnx", "separable"), ValueError, r"kind='separable'.*'regular', 'transposed', 'depthwise'"),
    (lambda f: f(W[0, 0], "keras"), ValueError, r"float32\[5, 5\].*at least one that is spatial"),
    (lambda f: f("kernel", "keras"), TypeError, "of type str"),
    (lambda f: f(W, "pytorch", "regular", 0), ValueError, "groups=0.*at least 1"),
    (lambda f: f(W, "pytorch", "regular", 2.0), TypeError, "groups=2.0.*must be an integer"),
    (lambda f: f(W, "keras", "transposed", 5), ValueError, "groups=5 for a transposed layer of Keras: it has none"),
    (lambda f: f(W, "pytorch", "depthwise"), ValueError, "one input feature, not [25]. Pass kind='regular'"),
    (lambda f: f(W, "pytorch", "transposed", 4), ValueError, "groups=4.*must divide the [56] features"),
    (lambda f: f(W, "onnx", "regular", 7), ValueError, "groups=7.*must divide the [56] features"),
]


@pytest.mark.parametrize("f", [import_kernel, export_kernel])
@pytest.mark.parametrize(("wrong", "error", "says"), REFUSED)
def test_kernels_that_do_not_fit_are_refused(f, wrong, error, says):
    with pytest.raises(error, match=f"`jaxconv.layers.{f.__name__}` got .*{says}"):
        wrong(f)


def test_tensors_of_torch_are_refused_with_the_way_to_arrays():
    torch = pytest.importorskip("torch")
    for kernel in (torch.ones(2, 3, 4, requires_grad=True), torch.ones(2, 3, 4, dtype=torch.bfloat16)):
        with pytest.raises(TypeError, match="import_kernel` got a kernel of type Tensor") as caught:
            import_kernel(kernel, "pytorch")
        ways = [part for part in str(caught.value).split("`") if part.startswith("kernel.")]
        array = eval(ways[kernel.dtype == torch.bfloat16])
        np.testing.assert_array_equal(import_kernel(array, "pytorch"), np.ones((4, 3, 2)))


def test_groups_that_are_not_those_of_keras_are_refused():
    with pytest.raises(ValueError, match="groups=3 for a depthwise kernel of Keras with 5 input features"):
        import_kernel(W, "keras", "depthwise", 3)


# Flips.


class Net(nnx.Module):
    """Every kind of layer that has a kernel, of convolutions and not."""

    def __init__(self, correlate, transpose=CorrelateTranspose, rngs=None):
        rngs = rngs or nnx.Rngs(0)
        rng = np.random.default_rng(1)
        self.stem = correlate(2, 4, (3, 2), mask=jnp.asarray(rng.integers(0, 2, (3, 2, 2, 4)), jnp.float32), rngs=rngs)
        self.blocks = nnx.List([correlate(4, 4, (2, 3), feature_group_count=2, rngs=rngs) for _ in range(2)])
        self.up = transpose(4, 3, (3, 2), strides=2, rngs=rngs)
        self.line = correlate(3, 3, 3, padding="CAUSAL", rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(num_heads=3, in_features=3, decode=False, rngs=rngs)
        self.mix = nnx.LinearGeneral(3, (2, 2), rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        x = self.line(self.up(x).reshape(len(x), -1, 3))
        return self.out(x)


CONVOLUTIONS = {("stem",), ("blocks", "0"), ("blocks", "1"), ("up",), ("line",)}


def with_integers(net, rng):
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    return nnx.merge(graph, jax.tree.map(lambda a: jnp.asarray(integers(rng, *a.shape).clip(-1, 1)), params), rest)


def leaves(tree):
    found = {}
    for path, leaf in jax.tree.flatten_with_path(tree)[0]:
        path = jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value").split(".")
        found[tuple(path)] = np.asarray(jax.random.key_data(leaf) if "key" in str(leaf.dtype) else leaf)
    return found


def assert_flipped(after, before, prefix=()):
    """Of every leaf: the spatial axes of the convolutions' kernels and masks run backwards, all else is as it was."""
    after, before = leaves(after), leaves(before)
    assert list(after) == list(before)
    flips = 0
    for path, a in before.items():
        inside = any(path[-len(layer) - 1 : -1] == layer for layer in CONVOLUTIONS)
        if inside and path[-1] in ("kernel", "mask"):
            a = np.flip(a, tuple(range(a.ndim - 2)))
            flips += path[: len(prefix)] == prefix
        np.testing.assert_array_equal(after[path], a, err_msg=".".join(path), strict=True)
    assert flips >= len(CONVOLUTIONS)


def test_the_modules_kernels_and_masks_are_flipped_in_a_copy(rng):
    net = with_integers(Net(nnx.Conv, nnx.ConvTranspose), rng)
    before = leaves(nnx.state(net))
    flipped = flip_kernels(net)
    assert type(flipped) is Net
    assert flipped is not net
    assert_flipped(nnx.state(flipped), nnx.state(net))
    for path, a in leaves(nnx.state(net)).items():
        np.testing.assert_array_equal(a, before[path])
    flipped.out.bias[...] += 1  # nothing is shared
    np.testing.assert_array_equal(net.out.bias[...], before["out", "bias"])
    assert flipped.stem.mask.shape == net.stem.mask.shape


def test_states_and_checkpoints_are_flipped_as_the_module_is(rng):
    net = with_integers(Net(nnx.Conv, nnx.ConvTranspose), rng)
    state = nnx.state(net, nnx.Param)
    pure = nnx.to_pure_dict(state)
    flat = {".".join(path): jnp.asarray(a) for path, a in leaves(nnx.state(net, nnx.Not(nnx.RngState))).items()}
    full = nnx.state(net)
    for tree in (state, pure, {"params": pure}, flat, full):
        flipped = flip_kernels(tree)
        assert type(flipped) is type(tree)
        assert_flipped(flipped, tree)
        for path, a in leaves(flip_kernels(flipped)).items():
            np.testing.assert_array_equal(a, leaves(tree)[path], strict=True)
    nnx.update(net, flip_kernels(full))
    np.testing.assert_array_equal(net.stem.mask, np.flip(flat["stem.mask"], (0, 1)))


def test_a_flipped_net_of_convolutions_is_the_net(rng):
    x = integers(rng, 2, 5, 6, 2)
    net = with_integers(Net(nnx.Conv), rng)
    turned = partial(jaxconv.lax.conv_general_dilated, flip_kernel=True, method="direct")
    twin = Net(partial(nnx.Conv, conv_general_dilated=turned), ConvolveTranspose)
    nnx.update(twin, nnx.state(flip_kernels(net)))
    y = net(x)
    assert np.abs(y).max() > 10
    np.testing.assert_array_equal(y, twin(x))
    nnx.update(twin, nnx.state(net))  # not flipped
    assert (np.asarray(y) != np.asarray(twin(x))).any()


def test_convolve_is_correlate_flipped(rng):
    x = integers(rng, 2, 5, 6, 2)
    net = with_integers(Net(partial(Correlate, method="direct")), rng)
    twin = Net(partial(Convolve, method="direct"), ConvolveTranspose)
    nnx.update(twin, nnx.state(flip_kernels(net)))
    np.testing.assert_array_equal(net(x), twin(x))


@pytest.mark.parametrize("tx", [optax.sgd(0.5, momentum=0.9), optax.adam(0.1)], ids=["momentum", "adam"])
def test_an_optimisers_state_flips_with_its_parameters(tx, rng):
    """The update of the flipped is the flipped update, to the last bit."""
    params = nnx.to_pure_dict(nnx.state(with_integers(Net(nnx.Conv), rng), nnx.Param))
    grads = jax.tree.map(lambda a: jnp.asarray(integers(rng, *a.shape)), params)
    _, state = tx.update(grads, tx.init(params), params)
    updates, after = tx.update(grads, state, params)
    turned, after_turned = tx.update(flip_kernels(grads), flip_kernels(state), flip_kernels(params))
    for a, b in ((flip_kernels(updates), turned), (flip_kernels(after), after_turned)):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(u, v)


def test_the_optimiser_of_flax_flips_in_a_copy(rng):
    optimizer = nnx.Optimizer(Net(nnx.Conv), optax.adam(0.1), wrt=nnx.Param)
    numbered = jax.tree.map(lambda a: jnp.arange(a.size, dtype=a.dtype).reshape(a.shape), nnx.state(optimizer))
    nnx.update(optimizer, numbered)
    flipped = flip_kernels(optimizer)
    assert isinstance(flipped, nnx.Optimizer)
    for moment in ("mu", "nu"):
        assert_flipped(nnx.state(flipped), nnx.state(optimizer), ("opt_state", "0", moment))


def test_a_factored_state_is_refused():
    params = {"conv": {"kernel": jnp.zeros((3, 3, 4, 5))}}
    state = optax.adafactor(0.1, min_dim_size_to_factor=2).init(params)
    with pytest.raises(ValueError, match=r"`jaxconv.layers.flip_kernels` got a state with '.*v_row.conv.kernel'"):
        flip_kernels(state)


class Small(linen.Module):
    use_bias: bool

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(4, (3,), use_bias=self.use_bias)(x)
        x = linen.MultiHeadDotProductAttention(num_heads=2, use_bias=self.use_bias)(x)
        return linen.ConvTranspose(2, (2,), use_bias=self.use_bias)(x)


@pytest.mark.parametrize("use_bias", [True, False])
def test_attention_in_parameters_of_linen_stays(use_bias):
    variables = Small(use_bias).init(jax.random.key(0), jnp.ones((1, 5, 2)))
    before, after = leaves(variables), leaves(flip_kernels(variables))
    changed = {".".join(path) for path, a in before.items() if (a != after[path]).any()}
    assert changed == {"params.Conv_0.kernel", "params.ConvTranspose_0.kernel"}
    np.testing.assert_array_equal(after["params", "Conv_0", "kernel"], before["params", "Conv_0", "kernel"][::-1])


@pytest.mark.parametrize(
    ("ranks", "flipped"),
    [
        (dict(query=4, key=4, value=4), {"query", "key", "value"}),  # convolutions that make the queries
        (dict(query=3, key=3, value=3, out=3, local=4), {"local"}),
        (dict(query=3, key=3, out=3), {"query", "key", "out"}),
    ],
)
def test_attention_is_three_kernels_of_three_axes_together(ranks, flipped):
    tree = {name: {"kernel": jnp.arange(2.0 ** (n - 2)).reshape((2,) * (n - 2) + (1, 1))} for name, n in ranks.items()}
    after = flip_kernels({"layer": tree})["layer"]
    for name, layer in tree.items():
        before = layer["kernel"].ravel()
        expected = before[::-1] if name in flipped else before
        np.testing.assert_array_equal(after[name]["kernel"].ravel(), expected, err_msg=name)


def test_a_mask_of_another_shape_is_no_mask_of_the_kernel():
    tree = {"kernel": jnp.arange(2.0).reshape(2, 1, 1), "mask": jnp.arange(3.0).reshape(3, 1, 1)}
    flipped = flip_kernels(tree)
    np.testing.assert_array_equal(flipped["kernel"].ravel(), [1, 0])
    np.testing.assert_array_equal(flipped["mask"], tree["mask"])


def test_where_says_which_in_place_of_the_rules(rng):
    tree = {"a": {"w": jnp.arange(3.0).reshape(3, 1, 1)}, "b": {"kernel": jnp.arange(2.0).reshape(2, 1, 1)}}
    seen = []
    flipped = flip_kernels(tree, lambda path, array: seen.append((path, array.shape)) or path == ("a", "w"))
    assert seen == [(("a", "w"), (3, 1, 1)), (("b", "kernel"), (2, 1, 1))]
    np.testing.assert_array_equal(flipped["a"]["w"].ravel(), [2, 1, 0])
    np.testing.assert_array_equal(flipped["b"]["kernel"].ravel(), [0, 1])
    net = with_integers(Net(nnx.Conv), rng)
    before = np.asarray(net.line.kernel[...])
    flipped = flip_kernels(net, lambda path, array: path == ("line", "kernel"))
    np.testing.assert_array_equal(flipped.line.kernel[...], before[::-1])
    np.testing.assert_array_equal(flipped.stem.kernel[...], net.stem.kernel[...])
    np.testing.assert_array_equal(net.line.kernel[...], before)


def test_leaves_without_spatial_axes_stay_whatever_where_says():
    tree = {"kernel": jnp.ones((3, 1, 1)), "dense": jnp.arange(4.0).reshape(2, 2), "step": 3}
    flipped = flip_kernels(tree, lambda path, leaf: True)
    assert flipped["step"] == 3
    np.testing.assert_array_equal(flipped["dense"], tree["dense"])


def test_a_kernel_that_two_layers_share_is_flipped_once(rng):
    rngs = nnx.Rngs(0)
    pair = nnx.List([nnx.Conv(1, 1, 3, rngs=rngs), nnx.Conv(1, 1, 3, rngs=rngs)])
    pair[1].kernel = pair[0].kernel
    flipped = flip_kernels(nnx.Sequential(*pair))
    assert flipped.layers[0].kernel is flipped.layers[1].kernel
    np.testing.assert_array_equal(flipped.layers[1].kernel[...], pair[0].kernel[...][::-1])


@pytest.mark.parametrize(("cls", "size"), [(Correlate, 3), (nnx.ConvTranspose, (3, 2))])
def test_the_axes_of_a_stack_stay(cls, size):
    shape = (*np.atleast_1d(size), 1, 2)

    def layer(rngs):
        return cls(1, 2, size, mask=jnp.arange(np.prod(shape)).reshape(shape), rngs=rngs)

    stack = nnx.vmap(nnx.vmap(layer))(nnx.Rngs(0).split((2, 3)))
    flipped = flip_kernels(stack)
    spatial = range(-2 - len(stack.kernel_size), -2)
    assert stack.kernel.shape == stack.mask.shape == (2, 3, *shape)
    np.testing.assert_array_equal(flipped.kernel[...], np.flip(stack.kernel[...], tuple(spatial)))
    np.testing.assert_array_equal(flipped.mask, np.flip(stack.mask, tuple(spatial)))


def test_a_stack_along_another_axis_is_refused():
    axes = nnx.StateAxes({nnx.Param: 1})
    stack = nnx.vmap(lambda rngs: Correlate(1, 1, 3, use_bias=False, rngs=rngs), out_axes=axes)(nnx.Rngs(0).split(2))
    with pytest.raises(ValueError, match=r"a stack of layers at its root with a kernel of float32\[3, 2, 1, 1\]"):
        flip_kernels(stack)


def test_convolutions_in_a_bridge_are_refused():
    rngs, x = nnx.Rngs(0), jnp.ones((1, 5, 2))
    bridge = nnx.bridge.ToNNX(Small(use_bias=True), rngs=rngs).lazy_init(x)
    model = nnx.Sequential(nnx.Conv(2, 2, 3, rngs=rngs), bridge)
    with pytest.raises(ValueError, match=r"flip_kernels` got a model with convolutions of Linen at 'layers\.1'"):
        flip_kernels(model)
    before, after = leaves(nnx.state(model)), leaves(flip_kernels(nnx.state(model)))
    assert {path[-2] for path, a in before.items() if (a != after[path]).any()} == {"0", "Conv_0", "ConvTranspose_0"}
    dense = nnx.bridge.ToNNX(linen.Dense(2), rngs=rngs).lazy_init(x)
    flip_kernels(nnx.Sequential(nnx.Conv(2, 2, 3, rngs=rngs), dense))


def test_flips_are_traced():
    tree = {"conv": {"kernel": jnp.arange(6.0).reshape(3, 1, 2)}}
    np.testing.assert_array_equal(jax.jit(flip_kernels)(tree)["conv"]["kernel"], tree["conv"]["kernel"][::-1])


@pytest.mark.parametrize(
    ("tree", "where", "wanted"),
    [
        ({"dense": {"kernel": jnp.ones((2, 2))}}, None, "a leaf called 'kernel' of three or more axes"),
        (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), None, "an nnx.Conv or nnx.ConvTranspose"),
        ({"kernel": jnp.ones((2, 2, 2))}, lambda path, array: False, "a leaf that `where` admits"),
        ({}, None, "a leaf called 'kernel'"),
    ],
)
def test_a_tree_without_kernels_is_refused(tree, where, wanted):
    with pytest.raises(ValueError, match=f"`jaxconv.layers.flip_kernels` got a tree without {wanted}"):
        flip_kernels(tree, where)


# Files.


def equal(a, b):
    a, b = leaves(a), leaves(b)
    assert list(a) == list(b)
    for path, array in a.items():
        np.testing.assert_array_equal(array, b[path], err_msg=".".join(path), strict=True)


@pytest.mark.covering
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_each_dtype_comes_back(dtype, tmp_path, x64):
    given = np.arange(-6, 6).reshape(3, 4).astype(dtype)
    save_safetensors(tmp_path / "a", {"x": given, "scalar": given[0, 0], "none": given[:0], "across": given.T})
    if dtype == np.uint64 and not x64:
        with pytest.raises(ValueError, match=r"of uint64\[.*its values do not fit uint32. Load it under"):
            load_safetensors(tmp_path / "a")
        return
    back = load_safetensors(tmp_path / "a")
    wide = dtype if x64 else jax.dtypes.canonicalize_dtype(dtype)
    for name, array in (("x", given), ("scalar", given[0, 0]), ("none", given[:0]), ("across", given.T)):
        assert isinstance(back[name], jax.Array)
        assert back[name].dtype == wide
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(np.asarray(back[name]).astype(complex), np.asarray(array).astype(complex))
    if dtype == wide:
        equal(load_safetensors(tmp_path / "a", into=jax.tree.map(jnp.zeros_like, back)), back)


def test_the_file_is_one_of_safetensors(tmp_path):
    tree = {"stem": {"kernel": jnp.ones((3, 1, 2)), "value": jnp.arange(3)}, "scale": jnp.float16(2)}
    path = tmp_path / "weights.safetensors"
    save_safetensors(str(path), tree, {"op": "correlate"})
    arrays = safetensors.numpy.load_file(path)
    assert set(arrays) == {"stem.kernel", "stem.value", "scale"}
    np.testing.assert_array_equal(arrays["stem.kernel"], np.ones((3, 1, 2), np.float32), strict=True)
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"op": "correlate"}
    equal(load_safetensors(str(path)), tree)
    safetensors.numpy.save_file(arrays, tmp_path / "theirs")
    equal(load_safetensors(tmp_path / "theirs"), tree)


def test_the_file_has_the_modes_of_any_new_file(tmp_path):
    (tmp_path / "other").touch()
    save_safetensors(tmp_path / "a", {"x": jnp.ones(3)})
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_module_comes_back_into_another(tmp_path, rng):
    path = tmp_path / "net"
    net = Net(nnx.Conv, rngs=nnx.Rngs(1))
    net.norm(jnp.asarray(integers(rng, 4, 3)))
    save_safetensors(path, net)
    other = Net(nnx.Conv, rngs=nnx.Rngs(2))
    stream = np.asarray(jax.random.key_data(other.drop.rngs.key[...]))
    kernel = other.stem.kernel
    assert load_safetensors(path, into=other) is other
    assert other.stem.kernel is kernel
    equal(nnx.state(other, nnx.Not(nnx.RngState)), nnx.state(net, nnx.Not(nnx.RngState)))
    assert type(other.norm.mean) is nnx.BatchStat
    np.testing.assert_array_equal(jax.random.key_data(other.drop.rngs.key[...]), stream)
    assert {"stem.kernel", "stem.mask", "blocks.1.bias", "norm.mean"} <= set(safetensors.numpy.load_file(path))
    assert not any("rngs" in name for name in safetensors.numpy.load_file(path))


def test_states_and_dicts_come_back_as_new_trees(tmp_path):
    path = tmp_path / "net"
    net, other = Net(nnx.Conv, rngs=nnx.Rngs(1)), Net(nnx.Conv, rngs=nnx.Rngs(2))
    save_safetensors(path, nnx.state(net))
    state = nnx.state(other)
    before = leaves(state)
    loaded = load_safetensors(path, into=state)
    assert type(loaded) is nnx.State
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    equal(nnx.filter_state(loaded, nnx.Not(nnx.RngState)), nnx.state(net, nnx.Not(nnx.RngState)))
    for path_of, a in leaves(nnx.state(other)).items():
        np.testing.assert_array_equal(a, before[path_of])
    flat = {".".join(key): jnp.asarray(a) for key, a in leaves(nnx.state(other, nnx.Not(nnx.RngState))).items()}
    assert load_safetensors(path, into=flat).keys() == flat.keys()


def test_shapes_without_arrays_are_filled(tmp_path):
    def net(seed=0):
        rngs = nnx.Rngs(seed)
        return nnx.Sequential(nnx.Conv(1, 2, 3, rngs=rngs), nnx.BatchNorm(2, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))

    saved = nnx.Not(nnx.RngState)
    wanted = nnx.state(net(1), saved)
    save_safetensors(tmp_path / "a", wanted)
    state = nnx.state(nnx.eval_shape(net))
    equal(nnx.filter_state(load_safetensors(tmp_path / "a", into=state), saved), wanted)
    equal(nnx.state(load_safetensors(tmp_path / "a", into=nnx.eval_shape(net)), saved), wanted)
    shape = {"x": jax.ShapeDtypeStruct((3,), jnp.float32)}
    save_safetensors(tmp_path / "b", {"x": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"'x' is float32\[2\], and float32\[3\] here"):
        load_safetensors(tmp_path / "b", into=shape)
    with pytest.raises(TypeError, match="'x' of type ShapeDtypeStruct"):
        save_safetensors(tmp_path / "b", shape)


def test_flipped_checkpoints_fit_the_twin(tmp_path, rng):
    net = with_integers(Net(partial(Correlate, method="direct")), rng)
    save_safetensors(tmp_path / "a", net)
    save_safetensors(tmp_path / "b", flip_kernels(load_safetensors(tmp_path / "a")))
    twin = load_safetensors(tmp_path / "b", into=Net(partial(Convolve, method="direct"), ConvolveTranspose))
    x = integers(rng, 1, 5, 6, 2)
    np.testing.assert_array_equal(net(x), twin(x))


def test_all_that_does_not_fit_is_listed_and_nothing_changes(tmp_path):
    path = tmp_path / "weights"
    save_safetensors(
        path, {"kernel": jnp.ones((3, 1, 2)), "bias": jnp.ones(2, jnp.bfloat16), "scale": jnp.ones(1), "a": {"b": 1}}
    )

    class Odd(nnx.Module):
        def __init__(self):
            self.kernel, self.bias = nnx.Param(jnp.zeros((5, 1, 2))), nnx.Param(jnp.zeros(2))
            self.scale, self.mean = nnx.Param(jnp.zeros(1)), nnx.BatchStat(jnp.zeros(2))

    odd = Odd()
    before = leaves(nnx.state(odd))
    with pytest.raises(ValueError, match=r"`jaxconv\.layers\.load_safetensors` got .*which does not fit") as caught:
        load_safetensors(path, into=odd)
    for says in (
        repr(str(path)),
        "'mean' is missing in the file",
        "'a.b' has no place here",
        "'kernel' is float32[3, 1, 2], and float32[5, 1, 2] here",
        "'bias' is bfloat16[2], and float32[2] here",
    ):
        assert says in str(caught.value)
    assert "'scale'" not in str(caught.value)
    for name, a in leaves(nnx.state(odd)).items():
        np.testing.assert_array_equal(a, before[name])


def full(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file(name, tmp_path, monkeypatch):
    path = tmp_path / "weights"
    save_safetensors(path, {"x": jnp.ones(3)})
    old = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, name, full)
        with pytest.raises(OSError, match="No space left"):
            save_safetensors(path, {"x": jnp.zeros(1000)})
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["weights"]
    save_safetensors(path, {"x": jnp.zeros(1000)})
    assert load_safetensors(path)["x"].shape == (1000,)


def test_it_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    calls = []

    def noted(call, *args):
        calls.append(call.__name__)
        return call(*args)

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, partial(noted, getattr(os, name)))
    save_safetensors(tmp_path / "weights", {"x": jnp.ones(3)})
    assert calls == ["fsync", "replace"]


FULL = """
import resource, sys
import numpy as np
from jaxconv.layers import save_safetensors
path = sys.argv[1]
save_safetensors(path, {"x": np.ones(10, np.float32)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_safetensors(path, {"x": np.zeros(1_000_000, np.float32)})
except OSError as e:
    print(e.strerror)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A limit on files' sizes: the kernel refuses the write half-way."""
    path = tmp_path / "weights"
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert done.stdout == "File too large\n", done.stderr
    np.testing.assert_array_equal(load_safetensors(path)["x"], np.ones(10))
    assert os.listdir(tmp_path) == ["weights"]


@pytest.mark.parametrize("kept", [0, 5, 20, -1])
def test_a_cut_file_is_refused_by_name(kept, tmp_path):
    path = tmp_path / "weights"
    save_safetensors(path, {"x": jnp.ones(30)})
    path.write_bytes(path.read_bytes()[:kept])
    model = {"x": jnp.zeros(30)}
    for into in (None, model):
        with pytest.raises(ValueError, match=f"got {str(path)!r}: it is no whole safetensors file"):
            load_safetensors(path, into=into)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "weights"
    with pytest.raises(FileNotFoundError, match="weights"):
        load_safetensors(path)
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(ValueError, match="no whole safetensors file"):
        load_safetensors(path)
    header = b'{"x":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    with pytest.raises(ValueError, match="with arrays of F8_E8M0: the dtypes must be among BOOL"):
        load_safetensors(path)
    safetensors.numpy.save_file({"a": np.ones(1), "a.b": np.ones(1)}, path)
    with pytest.raises(ValueError, match=r"with 'a\.b' beneath an array"):
        load_safetensors(path)
    with pytest.raises(FileNotFoundError):
        save_safetensors(tmp_path / "nowhere" / "weights", {"x": jnp.ones(1)})


@pytest.mark.parametrize(
    ("tree", "metadata", "error", "says"),
    [
        ({"a": {"b": np.ones(1)}, "a.b": np.ones(1)}, None, ValueError, r"more than one array of the name 'a\.b'"),
        ({"__metadata__": np.ones(2)}, None, ValueError, "the name '__metadata__': the format keeps that name"),
        ({"x": "text"}, None, TypeError, "'x' of type str"),
        ({"x": np.ones(2, complex)}, None, TypeError, r"'x' of complex128\[2\]: the format has"),
        ({"x": jax.random.key(0)}, None, TypeError, "'x' of dtype key"),
        ({"x": np.ones(2)}, {"epoch": 3}, TypeError, "metadata={'epoch': 3}: names and values must be strings"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tree, metadata, error, says, tmp_path):
    with pytest.raises(error, match=f"`jaxconv.layers.save_safetensors` got .*{says}"):
        save_safetensors(tmp_path / "weights", tree, metadata)
    assert not os.listdir(tmp_path)
