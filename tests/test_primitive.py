"""The primitive under every transformation of JAX, against lax and against itself."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import jet
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import jaxconv
from jaxconv.engines import ENGINES
from jaxconv.planner import Options
from jaxconv.primitive import contract
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.reference import reference
from tests.problems import PROBLEMS, operands

LAYER = dict(window_strides=(2, 1), padding=[(1, 2), (0, 1)], lhs_dilation=(1, 2), rhs_dilation=(1, 2))
PROBLEM = Problem((Axis(7, 3, 4, S=2, p=1), Axis(5, 2, 9, L=2, D=-1, p=1)), n=2, g=2, c=2, m=3)


def equations(jaxpr):
    """Every equation, those of inner jaxprs too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda v: isinstance(v, Jaxpr | ClosedJaxpr)
        ):
            if isinstance(value, Jaxpr | ClosedJaxpr):
                yield from equations(value.jaxpr if isinstance(value, ClosedJaxpr) else value)


@pytest.fixture
def xw():
    return operands(PROBLEM)


# ---- the theorem, asserted on the code


def test_the_gradient_of_correlation_is_convolution():
    """grad binds `contract` and nothing of lax's convolution; its input pass has the sign of D turned."""
    x, h = jnp.arange(9.0).reshape(3, 3), jnp.ones((2, 2))

    def correlation(x, h):
        return jaxconv.correlate(x, h, "same").sum()

    [forward] = [e for e in equations(jax.make_jaxpr(correlation)(x, h).jaxpr) if e.primitive.name == "contract"]
    found = list(equations(jax.make_jaxpr(jax.grad(correlation, (0, 1)))(x, h).jaxpr))
    names = {equation.primitive.name for equation in found}
    assert not any("conv_general" in name or "dot" in name or "fft" in name for name in names)
    backward = [e.params["problem"] for e in found if e.primitive.name == "contract"]
    problem = forward.params["problem"]
    assert {axis.D for axis in problem.axes} == {1}
    assert problem.input_pass in backward
    assert problem.kernel_pass in backward
    assert {axis.D for axis in problem.input_pass.axes} == {-1}
    assert all(axis.D == 1 and axis.S == 1 for axis in problem.kernel_pass.axes)  # a correlation of x with dy


def test_no_lax_convolution_in_any_derivative(xw):
    x, w = xw

    def f(x, w):
        return (contract(PROBLEM, x, w) ** 2).sum()

    for g in (jax.grad(f, (0, 1)), jax.hessian(f), partial(jax.jvp, f, (x, w))):
        jaxpr = jax.make_jaxpr(g)(*((x, w),) if isinstance(g, partial) else (x, w))
        assert "conv_general_dilated" not in {e.primitive.name for e in equations(jaxpr.jaxpr)}


# ---- derivatives


@pytest.mark.covering
@pytest.mark.parametrize(
    "name", ["2d-dilations-pads", "1d-groups", "convolve-same-3x8", "3d-stride", "layout-batch-groups"]
)
@pytest.mark.parametrize("method", ["direct", "shifts", "fft"])
def test_derivatives_to_second_order(name, method):
    problem = PROBLEMS[name]
    problem = Problem(
        problem.axes, problem.n, problem.g, problem.c, problem.m, problem.layouts, Triple(*["float64"] * 3)
    )
    with jax.enable_x64(True):
        x, w = operands(problem)
        options = Options(method, method, method)
        check_grads(lambda x, w: contract(problem, x, w, options), (x, w), order=2, modes=["fwd", "rev"])


def test_derivatives_of_complex_arrays():
    """The transpose is bilinear: nothing is conjugated."""
    problem = Problem((Axis(6, 3, 6, p=1),), n=2, c=2, m=2, dtypes=Triple(*["complex128"] * 3))
    with jax.enable_x64(True):
        x, w = operands(problem)
        dy = operands(problem.input_pass, 1)[0]
        y, vjp = jax.vjp(lambda x, w: contract(problem, x, w), x, w)
        dx, dw = vjp(dy)
        np.testing.assert_allclose(dx, reference(problem.input_pass, dy, w), atol=1e-13)
        np.testing.assert_allclose(dw, reference(problem.kernel_pass, x, dy), atol=1e-13)
        np.testing.assert_allclose(np.sum(y * dy), np.sum(x * np.asarray(dx)))


def test_forward_and_reverse_agree(x64):
    """Dense Jacobians: jacfwd = jacrev = the matrix of the operator, exactly (integers in floating types)."""
    problem = Problem(PROBLEM.axes, PROBLEM.n, 2, 1, 2, dtypes=Triple(*["float64" if x64 else "float32"] * 3))
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, problem.x_shape).astype(problem.dtypes.x)
    w = rng.integers(-4, 5, problem.w_shape).astype(problem.dtypes.w)
    for argument in (0, 1):
        f = partial(contract, problem)
        forward = jax.jacfwd(f, argument)(x, w)
        reverse = jax.jacrev(f, argument)(x, w)
        np.testing.assert_array_equal(forward, reverse)
        flat = np.asarray(forward).reshape(np.prod(problem.y_shape), -1)
        np.testing.assert_array_equal(flat @ (x, w)[argument].ravel(), reference(problem, x, w).ravel())


def test_hessian_of_a_square_is_the_normal_operator():
    problem = Problem((Axis(4, 2, 3),))
    x, w = np.array([[[[1.0, 2, 3, 4]]]], np.float32), np.array([[[[1.0, 3]]]], np.float32)
    hessian = jax.hessian(lambda x: 0.5 * (contract(problem, x, w) ** 2).sum())(x).reshape(4, 4)
    matrix = np.array([[1, 3, 0, 0], [0, 1, 3, 0], [0, 0, 1, 3]])
    np.testing.assert_array_equal(hessian, matrix.T @ matrix)
    cross = jax.jacobian(jax.grad(lambda x, w: contract(problem, x, w).sum(), 0), 1)(x, w)
    assert cross.shape == (1, 1, 1, 4, 1, 1, 1, 2)
    assert not jax.hessian(lambda x: contract(problem, x, w).sum())(x).any()  # linear in each argument


def test_linearize_and_linear_transpose(xw):
    x, w = xw
    y, linear = jax.linearize(lambda x: contract(PROBLEM, x, w), x)
    np.testing.assert_array_equal(linear(x), y)
    dy = np.ones(PROBLEM.y_shape, np.float32)
    (dx,) = jax.linear_transpose(lambda x: contract(PROBLEM, x, w), x)(dy)
    np.testing.assert_array_equal(dx, jax.vjp(lambda x: contract(PROBLEM, x, w), x)[1](dy)[0])


def test_where_nan_is_looked_for_it_is_found():
    """And JAX's second look, one primitive at a time, comes to an end."""
    x = jnp.array([1.0, jnp.nan, 2.0])
    with jax.debug_nans(True):
        for f in (jaxconv.convolve, jax.jit(jaxconv.convolve)):
            with pytest.raises(FloatingPointError, match=r"nan|NaN"):
                f(x, jnp.ones(2))
        assert jaxconv.convolve(jnp.ones(2), jnp.ones(1)).tolist() == [1, 1]


# ---- parity with lax


@pytest.mark.covering
@pytest.mark.parametrize("groups", [1, 2])
def test_parity_with_lax(x64, groups, rng):
    """Values, both gradients, a Hessian-vector product and per-example gradients, to the last bit.

    The numbers are small integers in a floating type, all sums stay below 2**24: no rounding at all.
    """
    shapes = ((3, 4, 7, 5), (6, 4 // groups, 3, 2), (3, 4, 7, 5))
    x, w, dx = (jnp.asarray(rng.integers(-3, 4, s), jnp.float64 if x64 else jnp.float32) for s in shapes)

    def everything(convolution, x, w, dx):
        def f(x, w):
            return convolution(x, w, **LAYER, feature_group_count=groups)

        def loss(x, w):
            return (f(x, w) ** 2).sum()

        gradients = jax.grad(loss, (0, 1))(x, w)
        hvp = jax.jvp(lambda x: jax.grad(loss, 1)(x, w), (x,), (dx,))[1]
        examples = jax.vmap(lambda x: jax.grad(loss, 1)(x[None], w))(x)
        kernels = jax.vmap(lambda w: jax.grad(loss, 0)(x, w))(jnp.stack([w, 2 * w]))
        return f(x, w), *gradients, hvp, examples, kernels

    ours = partial(jaxconv.lax.conv_general_dilated, accuracy="elementwise")
    ours, theirs = (jax.jit(partial(everything, f))(x, w, dx) for f in (ours, jax.lax.conv_general_dilated))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert float(jnp.abs(b).max()) < 2**24
        np.testing.assert_array_equal(a, b)


# ---- batching


@pytest.mark.parametrize("layouts", [PROBLEM.layouts, Triple("1n0gc", "cm01g", "g01mn")], ids=["plain", "mixed"])
@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0), (3, None), (None, 4), (2, 5), (-1, -2)])
def test_vmap_is_a_loop(in_axes, layouts):
    problem = Problem(PROBLEM.axes, 2, 2, 2, 3, layouts=layouts, dtypes=Triple(*["int32"] * 3))
    rng = np.random.default_rng(0)

    def stacked(shape, axis):
        shape = list(shape)
        if axis is not None:
            shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, 3)
        return rng.integers(-99, 99, shape).astype(np.int32)

    x, w = stacked(problem.x_shape, in_axes[0]), stacked(problem.w_shape, in_axes[1])
    y = jax.vmap(partial(contract, problem), in_axes)(x, w)
    for b in range(3):
        one_x = x if in_axes[0] is None else np.take(x, b, in_axes[0])
        one_w = w if in_axes[1] is None else np.take(w, b, in_axes[1])
        np.testing.assert_array_equal(y[b], reference(problem, one_x, one_w).astype(np.int32))


def test_a_mapped_axis_becomes_a_letter(xw):
    x, w = xw
    xs, ws = np.stack([x] * 5), np.stack([w] * 5)
    for arguments, in_axes, letter in (((xs, w), (0, None), "n"), ((x, ws), (None, 0), "m"), ((xs, ws), (0, 0), "g")):
        jaxpr = jax.make_jaxpr(jax.vmap(partial(contract, PROBLEM), in_axes))(*arguments)
        [equation] = [e for e in jaxpr.eqns if e.primitive.name == "contract"]
        assert equation.params["problem"] == PROBLEM.fold(letter, 5)


def test_vmap_of_vmap_of_grad(xw):
    x, w = xw
    xs, ws = np.stack([x, 2 * x]), np.stack([w, -w, 3 * w])
    each = jax.vmap(jax.vmap(jax.grad(lambda w, x: contract(PROBLEM, x, w).sum()), (None, 0)), (0, None))(ws, xs)
    one = jax.grad(lambda w, x: contract(PROBLEM, x, w).sum())(w, x)
    assert each.shape == (3, 2, *w.shape)
    np.testing.assert_allclose(each[2, 1], 2 * one, rtol=1e-5)


def test_empty_map(xw):
    x, w = xw
    assert jax.vmap(partial(contract, PROBLEM), (0, None))(np.zeros((0, *x.shape), np.float32), w).shape[0] == 0


# ---- the other transformations


def test_jit_eager_and_eval_shape_agree(xw):
    x, w = xw
    eager = contract(PROBLEM, x, w)
    np.testing.assert_array_equal(jax.jit(partial(contract, PROBLEM))(x, w), eager)
    shape = jax.eval_shape(partial(contract, PROBLEM), x, w)
    assert (shape.shape, shape.dtype) == (eager.shape, eager.dtype)


def test_inside_loops(xw):
    x, w = xw
    square = Problem((Axis(5, 3, 5, p=1),), c=2, m=2)
    x, w = operands(square)
    power = reference(square, reference(square, reference(square, x, w), w), w)
    scanned = jax.lax.scan(lambda x, _: (contract(square, x, w), None), x, None, length=3)[0]
    looped = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, contract(square, s[1], w)), (0, x))[1]
    counted = jax.lax.fori_loop(0, 3, lambda _, x: contract(square, x, w), x)
    for y in (scanned, looped, counted):
        np.testing.assert_allclose(y, power, rtol=1e-4, atol=1e-5)
    gradient = jax.grad(
        lambda w: jax.lax.scan(lambda x, _: (contract(square, x, w), None), x, None, length=2)[0].sum()
    )(w)
    unrolled = jax.grad(lambda w: contract(square, contract(square, x, w), w).sum())(w)
    np.testing.assert_allclose(gradient, unrolled, rtol=1e-5)


def test_cond_and_checkpoint(xw):
    x, w = xw
    y = jax.lax.cond(True, partial(contract, PROBLEM), lambda x, w: jnp.zeros(PROBLEM.y_shape), x, w)
    np.testing.assert_allclose(y, contract(PROBLEM, x, w), rtol=1e-6)

    def f(x, w):
        return jnp.sin(contract(PROBLEM, x, w)).sum()

    expected = jax.grad(f, (0, 1))(x, w)
    for policy in (None, jax.checkpoint_policies.everything_saveable, jax.checkpoint_policies.nothing_saveable):
        found = jax.grad(jax.checkpoint(f, policy=policy), (0, 1))(x, w)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_export_and_back(xw):
    x, w = xw

    def gradient(x, w):
        return jax.grad(lambda x, w: (contract(PROBLEM, x, w) ** 2).sum(), (0, 1))(x, w)

    exported = jax.export.export(jax.jit(gradient), platforms=["cpu", "cuda", "tpu"])(x, w)
    again = jax.export.deserialize(exported.serialize())
    for a, b in zip(again.call(x, w), gradient(x, w), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_donated_inputs():
    problem = Problem((Axis(64, 3, 64, p=1),))
    x, w = (jnp.asarray(a) for a in operands(problem))
    expected = np.asarray(contract(problem, x, w))
    y = jax.jit(partial(contract, problem), donate_argnums=0)(x, w)
    np.testing.assert_array_equal(y, expected)
    assert x.is_deleted()


@pytest.mark.parametrize("method", ["direct", "shifts", "fft"])
@pytest.mark.parametrize("spec", [P("d"), P(None, None, None, "d"), P()], ids=["batch", "space", "whole"])
def test_sharded_inputs(spec, method):
    problem = Problem((Axis(8, 3, 8, p=1),), n=4, c=2, m=2)
    x, w = operands(problem)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    options = Options(method, method, method)
    sharded = jax.device_put(x, NamedSharding(mesh, spec))

    def f(x, w):
        y, vjp = jax.vjp(lambda x, w: contract(problem, x, w, options), x, w)
        return y, *vjp(y)

    for a, b in zip(jax.jit(f)(sharded, w), jax.jit(f)(x, w), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.covering
@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("method", ["direct", "shifts", "gemm", "fft", "overlap"])
@pytest.mark.parametrize("taps", [3, 65], ids=["unrolled", "looped"])
def test_shard_map(taps, method, check_vma):
    """A batch in parts, the kernel whole: its gradient is summed over the parts."""
    problem = Problem((Axis(72, taps, 72, p=taps // 2),), n=4, c=2, m=2)
    part = Problem(problem.axes, n=2, c=2, m=2)
    if ENGINES[method].refusal(part, "cpu"):
        return
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-2, 3, shape).astype(np.float32) for shape in (problem.x_shape, problem.w_shape))
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        lambda x, w: contract(part, x, w, Options(method, method, method)),
        mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"), check_vma=check_vma,
    )  # fmt: skip
    y, vjp = jax.vjp(mapped, x, w)
    truth = reference(problem, x, w)
    dy = np.round(truth / 16)
    gradients = vjp(dy.astype(np.float32))
    # Integers below 2**24: only the FFT rounds, and not by half of one.
    np.testing.assert_array_equal(np.round(y), truth)
    np.testing.assert_array_equal(np.round(gradients[0]), reference(problem.input_pass, dy, w))
    np.testing.assert_array_equal(np.round(gradients[1]), reference(problem.kernel_pass, x, dy))


def test_shard_map_over_kernels():
    """The kernel in parts, the input whole."""
    problem = Problem((Axis(8, 3, 8, p=1),), n=2, c=2, m=4)
    part = Problem(problem.axes, n=2, c=2, m=2)
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-2, 3, shape).astype(np.float32) for shape in (problem.x_shape, problem.w_shape))
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    specs = (P(), P(None, "d")), P(None, None, "d")
    exact = partial(contract, part, options=Options(accuracy="elementwise"))
    mapped = jax.shard_map(exact, mesh=mesh, in_specs=specs[0], out_specs=specs[1])
    y, vjp = jax.vjp(mapped, x, w)
    np.testing.assert_array_equal(y, reference(problem, x, w))
    dx, dw = vjp(y)
    np.testing.assert_array_equal(dx, reference(problem.input_pass, y, w))
    np.testing.assert_array_equal(dw, reference(problem.kernel_pass, x, y))


def test_a_partly_manual_explicit_mesh_is_refused():
    mesh = jax.make_mesh((2, 1), ("d", "e"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        mapped = jax.shard_map(
            lambda x, w: jaxconv.lax.conv(x, w, (1,), "SAME"),
            in_specs=(P("d"), P()), out_specs=P("d"), axis_names={"d"},
        )  # fmt: skip
        x = jax.device_put(jnp.ones((4, 1, 8)), NamedSharding(mesh, P("d")))
        w = jax.device_put(jnp.ones((1, 1, 3)), NamedSharding(mesh, P()))
        with pytest.raises(NotImplementedError, match="Map over all axes of the mesh"):
            jax.jit(mapped)(x, w)


def test_without_jit():
    with jax.disable_jit():
        assert jaxconv.convolve(jnp.ones(3), jnp.ones(2)).tolist() == [1, 2, 2, 1]
        gradient = jax.grad(lambda x: jaxconv.convolve(x, jnp.ones(2)).sum())(jnp.ones(3))
    assert gradient.tolist() == [2, 2, 2]


def test_strict_promotion():
    """The engines' own arithmetic does not depend on the caller's promotion mode."""
    x, h = jnp.ones(6, jnp.bfloat16), jnp.ones(3, jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        for method in ("direct", "shifts", "fft"):
            assert jaxconv.convolve(x, h, "valid", method).tolist() == [3] * 4
        with pytest.raises(TypeError, match="no common type"):
            jaxconv.convolve(x, jnp.ones(3))


@pytest.mark.parametrize("given", [True, False])
def test_explicit_sharding(given):
    """out_sharding in explicit mode; by default it follows the batch, as in lax."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,))
    x = np.arange(4 * 2 * 6, dtype=np.float32).reshape(4, 2, 6)
    w = np.ones((3, 2, 3), np.float32)
    with jax.set_mesh(mesh):
        xs = jax.device_put(x, NamedSharding(mesh, P("d")))
        ws = jax.device_put(w, NamedSharding(mesh, P()))
        out_sharding = P(None, None, "d") if given else None

        def f(convolution, x, w):
            return convolution(x, w, (1,), "SAME", out_sharding=out_sharding)

        ours, theirs = (
            jax.jit(partial(f, c))(xs, ws) for c in (jaxconv.lax.conv_general_dilated, jax.lax.conv_general_dilated)
        )
        assert jax.typeof(ours).sharding == jax.typeof(theirs).sharding
        np.testing.assert_array_equal(ours, theirs)
        gradient = jax.grad(lambda w: f(jaxconv.lax.conv_general_dilated, xs, w).sum())(ws)
        np.testing.assert_array_equal(gradient, jax.grad(lambda w: jaxconv.lax.conv(x, w, (1,), "SAME").sum())(w))


def test_explicit_sharding_follows_the_letters():
    """n as x, m as w, also under vmap; the gradient is sharded as its argument."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x, h = jnp.arange(8.0), jnp.arange(3.0)
        along = NamedSharding(mesh, P("d"))

        def loss(x, h):
            return (jaxconv.correlate(x, h, "same") ** 2).sum()

        gradient = jax.grad(loss)(jax.device_put(x, along), h)
        assert jax.typeof(gradient).sharding.spec == P("d")
        np.testing.assert_array_equal(gradient, jax.grad(loss)(x, h))
        xs, hs = (jax.device_put(jnp.stack([a, 2 * a]), along) for a in (x, h))
        for arguments, in_axes in (((xs, h), (0, None)), ((x, hs), (None, 0)), ((xs, hs), (0, 0))):
            each = jax.jit(jax.vmap(jax.grad(loss, 1), in_axes))(*arguments)
            assert jax.typeof(each).sharding.spec == P("d", None)
            whole = jax.vmap(jax.grad(loss, 1), in_axes)(*map(np.asarray, arguments))
            np.testing.assert_array_equal(each, whole)


def test_out_sharding_is_a_constraint_elsewhere():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("d"))
    y = jax.jit(lambda x, w: jaxconv.lax.conv_general_dilated(x, w, (1,), "SAME", out_sharding=sharding))(
        jnp.ones((4, 1, 6)), jnp.ones((1, 1, 3))
    )
    assert y.sharding.is_equivalent_to(sharding, 3)


# ---- dtypes


def test_promotion_is_jnps(x64):
    names = ["int8", "int32", "bfloat16", "float16", "float32", "complex64"] + (["float64", "int64"] if x64 else [])
    for a in names:
        for b in names:
            y = jax.eval_shape(jaxconv.convolve, jax.ShapeDtypeStruct((3,), a), jax.ShapeDtypeStruct((2,), b))
            assert y.dtype == jnp.promote_types(a, b)


def test_weak_types():
    """A Python scalar takes the other's type."""
    for dtype in ("bfloat16", "float32", "int8"):
        y = jaxconv.convolve(jnp.asarray(3, dtype), 2)
        assert y.dtype == jnp.dtype(dtype)
        assert y == 6


def test_gradients_keep_their_dtype():
    """x of bfloat16, y of float32: dx and dw return in bfloat16."""
    x, w = jnp.ones((1, 1, 5), jnp.bfloat16), jnp.ones((1, 1, 3), jnp.bfloat16)

    def f(x, w):
        return jaxconv.lax.conv_general_dilated(x, w, (1,), "SAME", preferred_element_type=jnp.float32).sum()

    y, (dx, dw) = jax.value_and_grad(f, (0, 1))(x, w)
    assert (y.dtype, dx.dtype, dw.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    np.testing.assert_array_equal(dw.ravel(), [4, 5, 4])


def test_precision_is_handed_on():
    x, w = jnp.ones((1, 1, 5)), jnp.ones((1, 1, 3))

    def lowered(**kwargs):
        return (
            jax.jit(lambda x, w: jaxconv.lax.conv_general_dilated(x, w, (1,), "SAME", method="direct", **kwargs))
            .lower(x, w)
            .as_text()
        )

    assert "HIGHEST, HIGHEST" in lowered(precision="highest").replace("#stablehlo<precision ", "").replace(">", "")
    assert "DEFAULT, HIGHEST" in lowered(precision=(jax.lax.Precision.DEFAULT, jax.lax.Precision.HIGHEST)).replace(
        "#stablehlo<precision ", ""
    ).replace(">", "")
    with jax.default_matmul_precision("float32"):
        assert "HIGHEST" in lowered()
    assert "HIGHEST" not in lowered()


def test_a_wrong_operand_is_named():
    with pytest.raises(ValueError, match=r"got an array float32\[1, 2\] where its problem states"):
        contract(PROBLEM, jnp.ones((1, 2)), jnp.ones(PROBLEM.w_shape))


def test_taylor_mode(rng):
    """The coefficients of t -> correlate(x + t*u, w + t*v), by hand: a product of two polynomials."""
    x, u = (jnp.asarray(rng.integers(-9, 9, 6), jnp.float32) for _ in range(2))
    w, v = (jnp.asarray(rng.integers(-9, 9, 3), jnp.float32) for _ in range(2))
    f = partial(jaxconv.correlate, accuracy="elementwise")
    zero_x, zero_w = jnp.zeros_like(x), jnp.zeros_like(w)
    y, coefficients = jet.jet(f, (x, w), ([u, zero_x], [v, zero_w]), factorial_scaled=False)
    np.testing.assert_array_equal(y, f(x, w))
    np.testing.assert_array_equal(coefficients[0], f(u, w) + f(x, v))
    np.testing.assert_array_equal(coefficients[1], f(u, v))
