"""Maps against NumPy by hand: backward rules, class activation maps, integrals, occlusion, the explicit deconvnet."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxconv.attribution import (
    MaxPool,
    chunking,
    completeness,
    deconvnet,
    deconvnet_layers,
    grad_cam,
    grad_cam_plus_plus,
    guided_backprop,
    guided_grad_cam,
    hires_cam,
    input_x_gradient,
    integrated_gradients,
    layer_cam,
    max_pool,
    occlusion,
    saliency,
    smoothgrad,
    unpool,
    with_relu_rule,
)
from jaxconv.layers import Convolve, Correlate
from jaxconv.ndimage import correlate

RULES = ("gradient", "deconvnet", "guided")


def integers(*shape, seed=0, low=-4, high=5):
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.float32)


# ---- ReLU's backward rules


def by_hand(rule, w, z, v):
    """W^T of what the rule lets through, v the cotangent above one ReLU."""
    passed = {"gradient": (z > 0) * v, "deconvnet": np.maximum(v, 0), "guided": (z > 0) * np.maximum(v, 0)}
    return passed[rule] @ w.T


@pytest.mark.parametrize("rule", RULES)
def test_one_relu_by_hand(rule):
    w, x, v = integers(6, 8), integers(3, 6, seed=1), integers(3, 8, seed=2)
    f = with_relu_rule(lambda x: jax.nn.relu(x @ w), rule)
    y, pull = jax.vjp(f, x)
    np.testing.assert_array_equal(y, np.maximum(x @ w, 0))
    np.testing.assert_array_equal(pull(v)[0], by_hand(rule, w, x @ w, v))


@pytest.mark.parametrize(("rule", "passed"), [("gradient", 0), ("deconvnet", 1), ("guided", 0)])
def test_at_zero_the_relu_is_closed(rule, passed):
    assert jax.grad(with_relu_rule(jax.nn.relu, rule))(0.0) == passed


FORMS = {
    "nn.relu": jax.nn.relu,
    "nnx.relu": nnx.relu,
    "linen.relu": linen.relu,
    "maximum": lambda z: jnp.maximum(z, 0),
    "maximum, zero first": lambda z: jnp.maximum(0.0, z),
    "maximum, an array of zeros": lambda z: jnp.maximum(z, jnp.zeros_like(z)),
    "maximum, a constant closed over": (lambda zero: lambda z: jnp.maximum(z, zero))(np.zeros(8, np.float32)),
    "where": lambda z: jnp.where(z > 0, z, 0),
    "where, the other way": lambda z: jnp.where(z <= 0, 0, z),
    "where, zero first": lambda z: jnp.where(z > 0, z, 0.0),
    "mask": lambda z: z * (z > 0),
    "clip": lambda z: jnp.clip(z, 0),
    "vmap": jax.vmap(jax.nn.relu),
    "vmap of maximum": jax.vmap(lambda z: jnp.maximum(z, 0)),
    "jit": jax.jit(lambda z: jax.nn.relu(z)),
    "remat": jax.checkpoint(lambda z: jax.nn.relu(z)),
    "jit in remat": jax.checkpoint(lambda z: jax.jit(jax.nn.relu)(z)),
    "where, negated": lambda z: jnp.where(~(z > 0), 0, z),
    "where, within a batch of one": lambda z: jnp.where(z[None] > 0, z[None], 0)[0],
    "a mask by where": lambda z: jnp.where(z > 0, 1.0, 0.0) * z,
    "leaky by nothing": lambda z: jax.nn.leaky_relu(z, 0.0),
    "scan": lambda z: lax.scan(lambda c, row: (c, jax.nn.relu(row)), 0, z)[1],
    "scan, with zeros from outside": lambda z: (
        lambda zeros: lax.scan(lambda c, row: (c, jnp.maximum(row, zeros)), 0, z)[1]
    )(jnp.zeros_like(z[0])),
    "scan, backwards": lambda z: lax.scan(lambda c, row: (c, jax.nn.relu(row)), 0, z, reverse=True)[1],
    "scan with a carry": lambda z: lax.scan(lambda c, row: (c + 1, jax.nn.relu(row + c - c)), 0.0, z)[1],
    "cond": lambda z: lax.cond(z.sum() > 1e9, jnp.sin, jax.nn.relu, z),
    "switch": lambda z: lax.switch(1, [jnp.sin, jax.nn.relu, jnp.cos], z),
    "map": lambda z: lax.map(jax.nn.relu, z),
    "custom_jvp": jax.custom_jvp(lambda z: jnp.where(z > 0, z, 0)),
}
FORMS["custom_jvp"].defjvp(lambda p, t: (jnp.maximum(p[0], 0), (p[0] > 0) * t[0]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_each_form_of_a_relu_is_found(form, rule):
    w, x, v = integers(6, 8), integers(3, 6, seed=1), integers(3, 8, seed=2)
    f = with_relu_rule(lambda x: FORMS[form](x @ w), rule)
    y, pull = jax.vjp(f, x)
    np.testing.assert_array_equal(y, np.maximum(x @ w, 0))
    np.testing.assert_array_equal(pull(v)[0], by_hand(rule, w, x @ w, v))
    assert len(f.report(x).overridden) == 1


@pytest.mark.parametrize("f", [jax.nn.relu6, lambda z: lax.clamp(0.0, z, 6.0)], ids=["relu6", "clamp"])
def test_a_relu_with_a_ceiling(f):
    z, v = np.array([-2.0, 3.0, 7.0], np.float32), np.array([1.0, -1.0, 1.0], np.float32)
    passed = {"gradient": [0, -1, 0], "deconvnet": [1, 0, 0], "guided": [0, 0, 0]}
    for rule in RULES:
        y, pull = jax.vjp(with_relu_rule(f, rule), z)
        np.testing.assert_array_equal(y, [0, 3, 6])
        np.testing.assert_array_equal(pull(v)[0], passed[rule])


def test_two_relus_in_a_row_both_have_the_rule():
    f = with_relu_rule(lambda x: jax.nn.relu(jax.nn.relu(x) - 1), "deconvnet")
    assert len(f.report(jnp.ones(3)).overridden) == 2
    np.testing.assert_array_equal(jax.grad(lambda x: -f(x).sum())(jnp.ones(3)), 0)


@pytest.mark.parametrize(
    ("f", "what"),
    [
        (jax.nn.leaky_relu, "leaky_relu"),
        (jax.nn.gelu, "tanh"),
        (partial(jax.nn.gelu, approximate=False), "erf"),
        (jax.nn.silu, "logistic"),
        (jax.nn.elu, "elu"),
        (jnp.tanh, "tanh"),
        (jax.nn.softplus, "softplus"),
        (lambda x: 3 * x, "none"),
    ],
)
def test_other_nonlinearities_are_reported_and_no_relu_is_an_error(f, what):
    with pytest.raises(ValueError, match=f"no ReLU.*{what}"):
        with_relu_rule(f, "guided")(jnp.ones(3))
    both = with_relu_rule(lambda x: jax.nn.relu(f(x)), "guided")
    report = both.report(jnp.ones(3))
    assert len(report.overridden) == 1
    assert what == "none" or any(what in name for name, _ in report.untouched)
    assert what == "none" or what in str(report)


def test_where_a_relu_cannot_be_rewritten_it_is_refused():
    hidden = jax.custom_vjp(lambda x: jax.nn.relu(x) * 2)
    hidden.defvjp(lambda x: (hidden(x), x), lambda x, r: (r * 2 * (x > 0),))
    with pytest.raises(ValueError, match="derivative or a kernel of its own"):
        with_relu_rule(hidden, "guided")(jnp.ones(3))
    f = with_relu_rule(lambda x: jax.nn.relu(hidden(x)), "guided", where=lambda r: not r.hidden)
    assert len(f.report(jnp.ones(3)).left) == 1
    np.testing.assert_array_equal(jax.grad(lambda x: f(x).sum())(jnp.ones(3)), 2)
    with pytest.raises(ValueError, match="cannot look into pure_callback"):
        with_relu_rule(lambda x: jax.pure_callback(np.abs, x, x), "guided")(jnp.ones(3))
    with pytest.raises(ValueError, match=r"x \+ \|x\|"):
        with_relu_rule(lambda x: (x + jnp.abs(x)) / 2, "guided")(jnp.ones(3))
    with pytest.raises(ValueError, match="'gradient', 'deconvnet', 'guided'"):
        with_relu_rule(jnp.sin, "guide")


@pytest.mark.parametrize("f", [lambda x: -jnp.minimum(-x, 0), lambda x: x - jnp.minimum(x, 0)])
def test_forms_that_may_be_a_relu_are_refused_unless_left_alone(f):
    with pytest.raises(ValueError, match=r"min\(x, 0\), which may be one"):
        with_relu_rule(lambda x: jax.nn.relu(f(x)), "guided")(jnp.ones(3))
    g = with_relu_rule(lambda x: jax.nn.relu(f(x)), "guided", where=lambda r: not r.hidden)
    assert (len(g.report(jnp.ones(3)).overridden), len(g.report(jnp.ones(3)).left)) == (1, 1)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_types(dtype):
    z, v = jnp.array([-2.0, 3.0, 1.0], dtype), jnp.array([1.0, 1.0, -1.0], dtype)
    for form in ("nn.relu", "maximum", "where", "mask"):
        passed = jax.vjp(with_relu_rule(FORMS[form], "guided"), z)[1](v)[0]
        assert passed.dtype == dtype
        np.testing.assert_array_equal(np.asarray(passed, np.float32), [0, 1, 0])


def test_what_does_not_depend_on_the_arguments_is_no_relu():
    with pytest.raises(ValueError, match="no ReLU"):  # its weights are max(1 - |i|, 0)
        with_relu_rule(lambda x: jax.image.resize(x, (8,), "linear"), "guided")(jnp.ones(3))
    w, key = jnp.ones(3), jax.random.key(0)
    f = with_relu_rule(lambda x: jax.nn.relu(x * jax.nn.relu(w)) * jax.random.uniform(key, (3,)), "guided")
    assert len(f.report(jnp.ones(3)).overridden) == 1


def test_inside_shard_map():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec("d")
    mapped = jax.shard_map(jax.nn.relu, mesh=mesh, in_specs=P, out_specs=P)
    with pytest.raises(ValueError, match="shard_map"):
        with_relu_rule(lambda x: mapped(x) + jax.nn.relu(x), "guided")(jnp.ones(3))
    inside = jax.shard_map(with_relu_rule(jax.nn.relu, "deconvnet"), mesh=mesh, in_specs=P, out_specs=P)
    np.testing.assert_array_equal(jax.grad(lambda x: inside(x).sum())(jnp.array([-1.0, 1.0])), 1)


def test_a_variance_is_guarded_and_no_relu():
    norm = nnx.LayerNorm(8, rngs=nnx.Rngs(0))
    f = with_relu_rule(lambda x: jax.nn.relu(norm(x)), "guided")
    report = f.report(jnp.ones((2, 8)))
    assert len(report.overridden) == 1
    assert any("variance" in name for name, _ in report.untouched)
    # and a ReLU of a difference of squares, neither of them a mean of squares of the same kind, is one
    assert len(with_relu_rule(lambda x: jnp.maximum(x - x**2, 0), "guided").report(jnp.ones(8)).overridden) == 1


def test_a_relu_in_a_loop_of_unknown_length_is_found():
    def f(x):
        return lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, jax.nn.relu(c[1]) * 2), (0, x))[1]

    ruled, x = with_relu_rule(f, "guided"), jnp.array([-1.0, 3.0])
    np.testing.assert_array_equal(ruled(x), f(x))
    assert len(ruled.report(x).overridden) == 1


def test_where_chooses_among_the_relus():
    f = with_relu_rule(lambda x: jax.nn.relu(-jax.nn.relu(x)), "deconvnet", where=lambda r: r.index == 1)
    report = f.report(jnp.ones(3))
    assert [r.index for r in report.overridden], [r.index for r in report.left] == ([1], [0])
    with pytest.raises(ValueError, match="2 ReLUs, none of them chosen"):
        with_relu_rule(f.__wrapped__, "guided", where=lambda r: False)(jnp.ones(3))


def test_it_composes_with_jit_vmap_and_grad_and_refuses_forward_mode():
    w = integers(6, 8)
    f = with_relu_rule(lambda x: jax.nn.relu(x @ w).sum(), "deconvnet")
    x = integers(5, 6, seed=1)
    each = np.stack([jax.grad(f)(row) for row in x])
    np.testing.assert_array_equal(jax.vmap(jax.grad(f))(x), each)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(f)))(x), each)
    np.testing.assert_array_equal(each, np.ones((5, 8)) @ w.T)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(f, (x[0],), (x[0],))


def test_a_rule_of_your_own():
    f = with_relu_rule(jax.nn.relu, lambda z, r: 10 * r + z)
    np.testing.assert_array_equal(jax.grad(lambda x: f(x).sum())(jnp.array([1.0, -2.0])), [11.0, 8.0])


# ---- nets


class Block(nnx.Module):
    def __init__(self, features, rngs):
        self.conv = Correlate(features, features, (3, 3), method="direct", rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)

    def __call__(self, x):
        return x + nnx.relu(self.norm(self.conv(x)))


class Residual(nnx.Module):
    """Shortcuts, BatchNorm, dropout, a ReLU as an attribute, one within jit and remat."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.act = nnx.relu
        self.blocks = nnx.List([Block(4, rngs), Block(4, rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.readout = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(self.act(self.stem(x)), (2, 2), strides=(2, 2))
        for block in self.blocks:
            x = jax.checkpoint(block)(x)
        x = jax.jit(jax.nn.relu)(x - 0.1)
        return self.readout(self.dropout(x).mean((1, 2)))


def residual():
    model = Residual(nnx.Rngs(0))
    for module in model.blocks:
        module.norm.mean[...] = jnp.arange(4.0)
    model.eval()
    return model


def chain(*, pool=True, relu=True, seed=0, bias=True):
    rngs = nnx.Rngs(seed)
    return [
        Correlate(2, 4, (3, 3), use_bias=bias, method="direct", rngs=rngs),
        *([nnx.relu] if relu else []),
        *([MaxPool(2)] if pool else []),
        Correlate(4, 5, (3, 3), strides=2, use_bias=bias, method="direct", rngs=rngs),
        *([nnx.relu] if relu else []),
        lambda a: a.mean((1, 2)),
        nnx.Linear(5, 3, use_bias=bias, rngs=rngs),
    ]


def photos(n=3, size=8, c=2, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, size, size, c))


def exact(net):
    """The net with whole numbers for weights, so that all its sums, in any order, are exact; and such images."""
    nnx.update(net, jax.tree.map(lambda a: jnp.round(8 * a), nnx.state(net, nnx.Param)))
    return net, jnp.round(2 * photos())


def test_a_net_without_relu_has_one_map():
    layers, x = chain(relu=False), photos()
    net = nnx.Sequential(*layers)
    expected = jax.grad(lambda x: net(x)[:, 1].sum())(x)
    np.testing.assert_allclose(saliency(net, x, 1), jnp.abs(expected).max(-1), rtol=1e-6)
    np.testing.assert_allclose(deconvnet_layers(layers, x, 1), expected, atol=1e-6)
    for method in (guided_backprop, deconvnet):
        with pytest.raises(ValueError, match="no ReLU"):
            method(net, x, 1)


def test_when_everything_is_positive_the_rules_coincide():
    net, x = exact(nnx.Sequential(*chain(pool=False)))
    for layer in (net.layers[0], net.layers[2]):
        layer.kernel[...] = jnp.abs(layer.kernel[...])
    x = jnp.abs(x)
    every = [jax.grad(lambda x, rule=rule: with_relu_rule(net, rule)(x)[:, 0].sum())(x) for rule in RULES]
    np.testing.assert_array_equal(every[1], every[2])  # all z > 0: deconvnet = guided
    net.layers[-1].kernel[...] = jnp.abs(net.layers[-1].kernel[...])
    every = [jax.grad(lambda x, rule=rule: with_relu_rule(net, rule)(x)[:, 0].sum())(x) for rule in RULES]
    np.testing.assert_array_equal(every[0], every[1])  # and all R >= 0
    np.testing.assert_array_equal(every[0], every[2])


def test_where_all_that_arrives_is_positive_guided_is_the_gradient():
    net, x = exact(nnx.Sequential(*chain(pool=False)))
    net.layers[2].kernel[...] = jnp.abs(net.layers[2].kernel[...])
    net.layers[-1].kernel[...] = jnp.abs(net.layers[-1].kernel[...])
    np.testing.assert_array_equal(guided_backprop(net, x, 0), jax.grad(lambda x: net(x)[:, 0].sum())(x))
    assert not np.array_equal(deconvnet(net, x, 0), guided_backprop(net, x, 0))


def test_without_pooling_deconvnet_does_not_depend_on_the_image():
    net = nnx.Sequential(*chain(pool=False))
    np.testing.assert_array_equal(deconvnet(net, photos(seed=1), 0), deconvnet(net, photos(seed=2), 0))
    pooled = nnx.Sequential(*chain())
    assert not np.array_equal(deconvnet(pooled, photos(seed=1), 0), deconvnet(pooled, photos(seed=2), 0))


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
def test_rules_are_homogeneous_and_not_odd(rule):
    f = with_relu_rule(nnx.Sequential(*chain()), rule)
    pull = jax.vjp(f, photos())[1]
    v = jnp.asarray(integers(3, 3, seed=3))
    (once,), (twice,), (minus,) = pull(v), pull(4 * v), pull(-v)
    np.testing.assert_array_equal(twice, 4 * once)
    assert not np.allclose(minus, -once)


@pytest.mark.covering
@pytest.mark.parametrize("kind", [Correlate, Convolve, nnx.Conv])
@pytest.mark.parametrize(
    ("strides", "padding", "groups", "dilation"),
    [(1, "SAME", 1, 1), (2, "SAME", 2, 1), (2, "VALID", 1, 2), (3, ((2, 1), (0, 2)), 2, 1)],
)
def test_the_two_roads_to_the_deconvnet(kind, strides, padding, groups, dilation):
    rngs = nnx.Rngs(0)
    layers = [
        kind(2, 6, (3, 2), rngs=rngs),
        nnx.relu,
        MaxPool((2, 3), (2, 2)),
        kind(6, 4, (3, 3), strides, padding=padding, feature_group_count=groups, kernel_dilation=dilation, rngs=rngs),
        nnx.relu,
        lambda a: a.reshape(len(a), -1),
    ]
    x = photos(size=13)
    width = nnx.Sequential(*layers)(x).shape[1]
    layers.append(nnx.Linear(width, 3, rngs=rngs))
    net = nnx.Sequential(*layers)
    target = jnp.array([2, 0, 1])
    built, ruled = jax.jit(lambda x: (deconvnet_layers(layers, x, target), deconvnet(net, x, target)))(x)
    np.testing.assert_allclose(built, ruled, atol=2e-6 * float(jnp.abs(ruled).max()))
    assert float(jnp.abs(ruled).max()) > 0


def test_max_pool_and_unpool_are_those_of_jax():
    x = jnp.asarray(integers(2, 7, 9, 3))  # with ties
    y, switches = max_pool(x, (2, 3), (2, 2))
    pooled, pull = jax.vjp(lambda x: nnx.max_pool(x, (2, 3), strides=(2, 2)), x)
    np.testing.assert_array_equal(y, pooled)
    r = jnp.asarray(integers(*y.shape, seed=1))
    np.testing.assert_array_equal(unpool(r, switches, x.shape), pull(r)[0])
    flat = np.asarray(x).reshape(2, -1, 3)
    np.testing.assert_array_equal(
        np.take_along_axis(flat, np.asarray(switches).reshape(2, -1, 3), 1).reshape(y.shape), y
    )


# ---- class activation maps


def gap_net(seed=0, bias=True):
    rngs = nnx.Rngs(seed)
    return nnx.Sequential(
        Correlate(2, 5, (3, 3), method="direct", rngs=rngs),
        nnx.relu,
        lambda a: a.mean((1, 2)),
        nnx.Linear(5, 3, use_bias=bias, rngs=rngs),
    )


def test_grad_cam_is_cam_where_cam_exists():
    net, x = gap_net(), photos()
    features = np.asarray(nnx.relu(net.layers[0](x)), np.float64)
    weights = np.asarray(net.layers[3].kernel[...], np.float64)[:, 1]
    cam = np.maximum(features @ weights, 0)

    def f(x):
        return net.layers[3](checkpoint_name(nnx.relu(net.layers[0](x)), "features").mean((1, 2)))

    found = grad_cam(f, x, 1, layer="features", upsample=False)
    np.testing.assert_allclose(found * 64, cam, atol=1e-5)


def test_hires_cam_sums_to_the_score_without_bias():
    net, x = gap_net(), photos()
    f = lambda x: net.layers[3](checkpoint_name(nnx.relu(net.layers[0](x)), "a").mean((1, 2)))  # noqa: E731
    found = hires_cam(f, x, 2, layer="a", upsample=False, rectify=False)
    np.testing.assert_allclose(found.sum((1, 2)), net(x)[:, 2] - net.layers[3].bias[2], rtol=1e-5)


def cams_by_hand(a, g):
    """Everything from its definition, in float64."""
    a, g = np.asarray(a, np.float64), np.asarray(g, np.float64)
    alpha = g.mean((1, 2))
    below = 2 * g**2 + a.sum((1, 2))[:, None, None] * g**3
    share = np.divide(g**2, below, out=np.zeros_like(g), where=below != 0)
    plus = (share * np.maximum(g, 0)).sum((1, 2))
    relu = lambda y: np.maximum(y, 0)  # noqa: E731
    return {
        grad_cam: relu(np.einsum("nk,nijk->nij", alpha, a)),
        grad_cam_plus_plus: relu(np.einsum("nk,nijk->nij", plus, a)),
        layer_cam: relu((relu(g) * a).sum(-1)),
        hires_cam: relu((g * a).sum(-1)),
    }


@pytest.mark.parametrize("method", [grad_cam, grad_cam_plus_plus, layer_cam, hires_cam])
def test_cams_from_their_definitions(method):
    net, x, target = residual(), photos(), np.array([2, 0, 1])

    def rest(a):
        x = a
        x = net.blocks[1](x)
        return net.readout(nnx.relu(x - 0.1).mean((1, 2)))

    a = net.blocks[0](nnx.max_pool(nnx.relu(net.stem(x)), (2, 2), strides=(2, 2)))
    g = jax.grad(lambda a: rest(a)[np.arange(3), target].sum())(a)
    expected = cams_by_hand(a, g)[method]
    found = method(net, x, target, layer="blocks.0", upsample=False)
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())
    np.testing.assert_allclose(
        method(net, x, target, layer="blocks.0"), jax.image.resize(found, (3, 8, 8), "bilinear"), rtol=1e-6
    )
    scaled = method(net, x, target, layer="blocks.0", upsample=False, normalise="max")
    np.testing.assert_allclose(scaled.max((1, 2)), (expected.max((1, 2)) > 0), rtol=1e-6)


def test_normalisation_is_safe_at_zero():
    net, x = gap_net(), photos()
    net.layers[3].kernel[...] = 0 * net.layers[3].kernel[...]
    for how in ("none", "max", "minmax"):
        np.testing.assert_array_equal(grad_cam(net, x, 0, normalise=how), 0)


def test_last_conv_is_the_last_convolution_with_its_bias():
    net, x = residual(), photos()
    np.testing.assert_array_equal(grad_cam(net, x, 1), grad_cam(net, x, 1, layer="blocks.1.conv"))
    plain = gap_net()
    expected = grad_cam(plain, x, 1, layer="layers.0")
    np.testing.assert_array_equal(grad_cam(plain, x, 1), expected)
    w, b = plain.layers[0].kernel[...], plain.layers[0].bias[...]

    def f(x):
        a = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + b
        return plain.layers[3](nnx.relu(a).mean((1, 2)))

    np.testing.assert_allclose(grad_cam(f, x, 1), expected, atol=1e-6)


CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")


def test_last_conv_is_one_on_which_a_map_can_stand():
    net, x = gap_net(), photos()
    net.layers[0].bias[...] = jnp.arange(5.0)
    expected = grad_cam(net, x, 1)
    kernel, bias = net.layers[0].kernel[...], net.layers[0].bias[...]
    conv = partial(lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=CHANNELS_LAST)
    head = lambda a: net.layers[3](nnx.relu(a).mean((1, 2)))  # noqa: E731

    def unused(x):
        a = net.layers[0](x)
        conv(a, jnp.ones((1, 1, 5, 2)))
        return head(a)

    def excited(x):
        a = net.layers[0](x)
        return head(a * (1 + conv(a.mean((1, 2), keepdims=True), jnp.zeros((1, 1, 5, 5)))))

    def within(x):
        return head(jax.jit(lambda x: conv(x, kernel))(x) + bias)

    for f in (unused, excited, within):
        np.testing.assert_allclose(grad_cam(f, x, 1), expected, atol=1e-6)

    def scanned_after(x):
        step = lambda c, _: (conv(c, jnp.ones((1, 1, 5, 5))), None)  # noqa: E731
        return head(lax.scan(step, net.layers[0](x), length=2)[0])

    def channels_first(x):
        a = lax.conv(jnp.moveaxis(x, -1, 1), jnp.ones((5, 2, 3, 3)), (1, 1), "SAME")
        return head(jnp.moveaxis(a, 1, -1))

    with pytest.raises(ValueError, match="within scan"):
        grad_cam(scanned_after, x, 1)
    with pytest.raises(ValueError, match="channels do not stand last"):
        grad_cam(channels_first, x, 1)


def test_maps_follow_a_model_that_changes():
    net, x = gap_net(), photos()
    for f in (net, net.__call__, lambda x: net(x)):
        for method in (saliency, grad_cam, partial(occlusion, window=4, stride=4)):
            once = method(f, x, 0)
            net.layers[3].kernel[...] *= 2
            net.layers[3].bias[...] *= 2
            np.testing.assert_allclose(method(f, x, 0), 2 * once, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", [None, 1])
def test_memory_is_bounded_by_the_chunk(target):
    net, x = gap_net(), jnp.ones((64, 16, 16, 2))
    whole = 64 * 16 * 16 * 5 * 4  # bytes of one layer's features
    for method in (saliency, grad_cam, partial(integrated_gradients, steps=2), partial(occlusion, window=8, stride=8)):
        f = jax.jit(lambda x, method=method: method(lambda x: net(x), x, target, chunk=1))
        assert f.lower(x).compile().memory_analysis().temp_size_in_bytes < whole / 2 + 2 * x.nbytes


def test_guided_grad_cam_is_the_product():
    net, x = residual(), photos()
    found = guided_grad_cam(net, x, 1, layer="blocks.1")
    np.testing.assert_array_equal(found, guided_backprop(net, x, 1) * grad_cam(net, x, 1, layer="blocks.1")[..., None])


# ---- gradients and integrals


def test_gradients_of_a_residual_net():
    net, x, target = residual(), photos(), jnp.array([1, 2, 0])
    g = jax.grad(lambda x: net(x)[jnp.arange(3), target].sum())(x)
    np.testing.assert_allclose(saliency(net, x, target), jnp.abs(g).max(-1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(input_x_gradient(net, x, target), x * g, rtol=1e-5, atol=1e-7)
    best = net(x).argmax(1)
    np.testing.assert_array_equal(saliency(net, x), saliency(net, x, best))
    report = with_relu_rule(net, "guided").report(x)
    assert len(report.overridden) == 4  # an attribute, two in blocks under remat, one through jit
    assert any("reduce_window_max" in name for name, _ in report.untouched)


def test_linear_models_in_closed_form():
    w = integers(8, 8, 2, 3)
    f = lambda x: jnp.einsum("nijc,ijck->nk", x, w)  # noqa: E731
    x, b = photos(), photos(seed=5)
    expected = np.asarray(x - b) * w[..., 1]
    np.testing.assert_allclose(integrated_gradients(f, x, 1, baseline=b, steps=1), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(completeness(f, x, expected, 1, baseline=b), 0, atol=2e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_gauss_legendre_is_exact_on_polynomials(steps):
    with jax.enable_x64(True):
        x, b = jnp.asarray(photos(), jnp.float64), jnp.asarray(photos(seed=3), jnp.float64)
        f = lambda x: (x ** (2 * steps)).sum((1, 2))  # noqa: E731
        found = integrated_gradients(f, x, 0, baseline=b, steps=steps)[..., 0]
        expected = (x ** (2 * steps) - b ** (2 * steps))[..., 0]
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
        coarse = integrated_gradients(lambda x: (x ** (2 * steps + 2)).sum((1, 2)), x, 0, baseline=b, steps=steps)
        exact = (x ** (2 * steps + 2) - b ** (2 * steps + 2))[..., 0]
        assert float(jnp.abs(coarse[..., 0] - exact).max()) > 1e-6  # and no more than that
        middle = integrated_gradients(f, x, 0, baseline=b, steps=500, nodes="midpoint")[..., 0]
        np.testing.assert_allclose(middle, expected, rtol=2e-2, atol=2e-2)


def test_bias_free_relu_nets_have_their_input_times_gradient():
    net, x = nnx.Sequential(*chain(bias=False)), photos()
    expected = input_x_gradient(net, x, 2)
    np.testing.assert_allclose(integrated_gradients(net, x, 2, steps=3), expected, atol=1e-6)
    np.testing.assert_allclose(expected.sum((1, 2, 3)), net(x)[:, 2], atol=1e-5)


def test_completeness_of_a_deep_net():
    net, x = residual(), photos()
    found = integrated_gradients(net, x, 1, steps=200)
    assert float(jnp.abs(completeness(net, x, found, 1)).max()) < 1e-2 * float(jnp.abs(net(x)[:, 1]).max())


def test_smoothgrad():
    net, x, key = nnx.Sequential(*chain()), photos(), jax.random.key(7)
    g = jax.grad(lambda x: net(x)[:, 1].sum())(x)
    np.testing.assert_allclose(smoothgrad(net, x, 1, key=key, samples=4, sigma=0.0), g, atol=1e-6)
    many = smoothgrad(net, x, 1, key=key, samples=7, sigma=0.2)
    for chunk in (2, 100):
        np.testing.assert_allclose(smoothgrad(net, x, 1, key=key, samples=7, sigma=0.2, chunk=chunk), many, atol=1e-6)
    assert not np.allclose(many, g)
    by_rule = smoothgrad(net, x, 1, key=key, samples=2, sigma=0.0, rule="guided")
    np.testing.assert_allclose(by_rule, guided_backprop(net, x, 1), atol=1e-6)
    # of a quadratic score the mean gradient is the gradient at the mean image
    quadratic = lambda x: (x**2).sum((1, 2))  # noqa: E731
    spread = np.asarray(x.max((1, 2, 3)) - x.min((1, 2, 3)))
    found = smoothgrad(quadratic, x, 0, key=key, samples=4000, sigma=0.1)[..., 0]
    within = 6 * 2 * 0.1 * spread[:, None, None] / np.sqrt(4000)
    assert (np.abs(found - 2 * x[..., 0]) < within).all()
    # each image has noise of its own, and the first images' does not depend on how many follow
    twice = smoothgrad(quadratic, jnp.stack([x[0], x[0]]), 0, key=key, samples=1, sigma=0.1)
    assert not np.allclose(twice[0], twice[1])
    np.testing.assert_array_equal(twice[:1], smoothgrad(quadratic, x[:1], 0, key=key, samples=1, sigma=0.1))


def test_occlusion_of_a_linear_model_is_a_correlation_with_a_box():
    w, x, b = integers(9, 8, 2, 3), jnp.asarray(integers(2, 9, 8, 2, seed=1)), integers(9, 8, 2, seed=2)
    f = lambda x: jnp.einsum("nijc,ijck->nk", x, w)  # noqa: E731
    found = occlusion(f, x, 1, window=(3, 2), baseline=b, chunk=5)
    worth = ((np.asarray(x) - b) * w[..., 1]).sum(-1)
    for map, image in zip(found, worth, strict=True):
        boxes = correlate(image, np.ones((3, 2), np.float32), mode="constant", origin=(-1, -1))[:7, :7]
        np.testing.assert_allclose(map, boxes, atol=1e-3)
    coarse = occlusion(f, x, 1, window=(3, 2), stride=(2, 3), baseline=b)
    np.testing.assert_allclose(coarse, found[:, ::2, ::3], atol=1e-3)


# ---- one signature: chunks, jit, progress, kinds of models, batches


METHODS = {
    "saliency": saliency,
    "input_x_gradient": input_x_gradient,
    "smoothgrad": partial(smoothgrad, key=jax.random.key(0), samples=3),
    "integrated_gradients": partial(integrated_gradients, steps=3),
    "deconvnet": deconvnet,
    "guided_backprop": guided_backprop,
    "grad_cam": grad_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
    "layer_cam": layer_cam,
    "hires_cam": hires_cam,
    "guided_grad_cam": guided_grad_cam,
    "occlusion": partial(occlusion, window=4, stride=4),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", METHODS)
def test_one_signature(name):
    method, net, x, target = METHODS[name], residual(), photos(), jnp.array([2, 0, 1])
    before = jax.tree.map(np.array, nnx.state(net, nnx.Not(nnx.RngState)))
    found = method(net, x, target)
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0
    close = partial(np.testing.assert_allclose, desired=found, atol=2e-6 * float(np.abs(found).max()))
    told = []
    close(method(net, x, target, chunk=2, progress=lambda done, steps: told.append((int(done), int(steps)))))
    assert told
    assert told[-1][0] == told[-1][1]
    close(jax.jit(lambda x, target: method(net, x, target))(x, target))
    graph, state = nnx.split(net)
    close(jax.jit(lambda state, x: method(nnx.merge(graph, state), x, target))(state, x))
    close(method(lambda x: net(x), x, target))
    for one in range(3):  # one target per image: each map is that of its image alone
        if name != "smoothgrad":
            np.testing.assert_allclose(
                method(net, x[one : one + 1], int(target[one]))[0], found[one], atol=2e-6 * float(np.abs(found).max())
            )
    after = nnx.state(net, nnx.Not(nnx.RngState))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_the_bar_comes_down_at_the_end():
    score, x = lambda x: (x**2).sum((1, 2)), photos()
    np.testing.assert_array_equal(saliency(score, x, 0, chunk=1, progress=True), saliency(score, x, 0))
    jax.effects_barrier()
    assert not chunking._running


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.BatchNorm(use_running_average=True)(linen.Conv(4, (3, 3), name="first")(x)))
        x = linen.relu(linen.Conv(4, (3, 3), name="second")(x))
        return linen.Dense(3)(x.mean((1, 2)))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", METHODS)
def test_linen_is_served(name):
    module, x = LinenNet(), photos()
    variables = module.init(jax.random.key(0), x)
    found = METHODS[name](module.bind(variables), x, 1)
    np.testing.assert_allclose(METHODS[name](lambda x: module.apply(variables, x), x, 1), found, atol=1e-6)
    if "cam" in name:
        np.testing.assert_array_equal(METHODS[name](module.bind(variables), x, 1, layer="second"), found)


@pytest.mark.parametrize("d", [1, pytest.param(3, marks=pytest.mark.nightly)])
def test_signals_and_volumes(d):
    rngs = nnx.Rngs(0)
    net = nnx.Sequential(
        Correlate(1, 3, (3,) * d, method="direct", rngs=rngs),
        nnx.relu,
        lambda a: a.mean(tuple(range(1, d + 1))),
        nnx.Linear(3, 2, rngs=rngs),
    )
    x = jax.random.normal(jax.random.key(0), (2, *(6,) * d, 1))
    for name in METHODS:
        arguments = {"stride": 2} if name == "occlusion" else {}
        assert np.isfinite(METHODS[name](net, x, 1, **arguments)).all()


def test_layers_shared_and_scanned():
    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.conv = Correlate(2, 2, (3, 3), method="direct", rngs=rngs)
            self.readout = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x):
            return self.readout(nnx.relu(self.conv(nnx.relu(self.conv(x)))).mean((1, 2)))

    net, x = Twice(nnx.Rngs(0)), photos()
    np.testing.assert_array_equal(grad_cam(net, x, 0, layer="conv#2"), grad_cam(net, x, 0))
    assert not np.array_equal(grad_cam(net, x, 0, layer="conv"), grad_cam(net, x, 0))

    def scanned(x):
        x = lax.scan(lambda c, _: (nnx.relu(net.conv(c)), None), x, length=2)[0]
        return net.readout(x.mean((1, 2)))

    np.testing.assert_allclose(guided_backprop(scanned, x, 0), guided_backprop(net, x, 0), atol=1e-6)
    with pytest.raises(ValueError, match="within scan"):
        grad_cam(scanned, x, 0)


@pytest.mark.nightly
def test_transformations_of_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=3)
            @nnx.vmap(in_axes=(0,), out_axes=0)
            def blocks(rngs):
                return Block(2, rngs)

            self.blocks = blocks(rngs)
            self.last = Correlate(2, 2, (3, 3), method="direct", rngs=rngs)
            self.readout = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x):
            @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            def through(block, x):
                return nnx.remat(lambda block, x: block(x))(block, x)

            x = nnx.jit(lambda last, x: nnx.relu(last(x)))(self.last, through(self.blocks, x))
            return self.readout(x.mean((1, 2)))

    net, x = Net(nnx.Rngs(0)), photos()
    net.eval()

    def plain(x):  # the same, unrolled
        for one in range(3):
            block = jax.tree.map(lambda a, one=one: a[one], nnx.split(net.blocks)[1])
            x = nnx.merge(nnx.graphdef(net.blocks), block)(x)
        return net.readout(nnx.relu(net.last(x)).mean((1, 2)))

    for method in (saliency, guided_backprop, deconvnet, grad_cam):
        np.testing.assert_allclose(method(net, x, 1), method(plain, x, 1), atol=1e-6)
    np.testing.assert_array_equal(grad_cam(net, x, 1), grad_cam(net, x, 1, layer="last"))


# ---- what is wrong is said


class BatchNormed(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(2, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.norm(x)).mean((1, 2))


class Configured(nnx.Module):
    """A model with attributes that have no hash."""

    def __init__(self, rngs):
        self.widths, self.settings = [8, 16], {"bias": True}
        self.first = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.readout = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.readout(nnx.relu(self.first(x)).mean((1, 2)))


def test_models_with_attributes_that_have_no_hash():
    net, x = Configured(nnx.Rngs(0)), photos()
    np.testing.assert_allclose(
        saliency(net, x, 1), jnp.abs(jax.grad(lambda x: net(x)[:, 1].sum())(x)).max(-1), atol=1e-7
    )
    np.testing.assert_array_equal(grad_cam(net, x, 1, layer="first"), grad_cam(net, x, 1))


def test_a_score_that_is_no_number_under_jit_gives_nan():
    """Also where ReLU's rule, or the rectification of the map, would hide it."""
    net, x = Configured(nnx.Rngs(0)), photos()
    for method in METHODS.values():
        found = jax.jit(lambda x, t, m=method: m(net, x, t))(x.at[1].set(jnp.nan), jnp.array([0, 1, 2]))
        assert np.isnan(found[1]).all()
        assert np.isfinite(found[0]).all()
    assert np.isnan(jax.jit(lambda x: guided_backprop(net, x))(x.at[1].set(jnp.nan))[1]).all()
    for method in (partial(grad_cam, normalise="max"), partial(grad_cam, normalise="minmax"), layer_cam):
        assert np.isnan(jax.jit(lambda t, m=method: m(net, x, t))(jnp.array([0, 7, 2]))[1]).all()


def test_settings_and_keywords_of_a_function_with_a_rule():
    f = lambda x, axis, absolute, *, y: (nnx.relu(x) + nnx.relu(y) * jnp.array([1.0, -1, -1])).sum(axis)  # noqa: E731
    ruled = with_relu_rule(f, "guided")
    gradient = jax.grad(lambda x, y: ruled(x, None, True, y=y), (0, 1))(jnp.ones(3), jnp.ones(3))
    np.testing.assert_array_equal(gradient[0], [1, 1, 1])
    np.testing.assert_array_equal(gradient[1], [1, 0, 0])
    assert len(ruled.report(jnp.ones(3), 0, False, y=jnp.ones(3)).overridden) == 2


@pytest.mark.parametrize(
    ("f", "relus", "untouched"),
    [
        (lambda x: x * jax.lax.stop_gradient(x > 0), 1, ()),
        (lambda x: x * (1 - (x <= 0)), 1, ()),
        (lambda x: x * (x > 1e-6), 0, (("mul", 1),)),
        (lambda x: x * ((x > 0) & (x < 5)), 0, (("mul", 1),)),
        (lambda x: x**2, 0, (("square", 1),)),
        (lambda x: x * x[::-1], 0, (("mul", 1),)),
        (lambda x: x @ x, 0, (("dot_general", 1),)),
        (lambda x: x / (1 + x**2), 0, (("div", 1), ("square", 1))),
        (jax.nn.celu, 0, (("celu", 1),)),
        (jax.nn.hard_sigmoid, 0, (("hard_sigmoid", 1),)),
        (jax.nn.hard_silu, 0, (("hard_silu", 1),)),
        (lambda x: nnx.relu(x**2 - x[::-1] ** 2), 1, (("square", 2),)),
        (lambda x: jnp.maximum(x**2 - x[::-1] ** 2, 0), 1, (("square", 2),)),
        (lambda x: nnx.relu((x**2).mean() - x.mean() ** 2), 1, (("square", 2),)),
    ],
)
def test_what_else_bends_is_listed(f, relus, untouched):
    report = with_relu_rule(lambda x: nnx.relu(x).sum() + f(x).sum(), "guided").report(jnp.ones(4))
    assert len(report.overridden) == 1 + relus
    assert report.untouched == untouched


def test_half_types_are_summed_in_single():
    large = lambda x: (1000 * x).sum((1, 2))[:, None]  # noqa: E731
    x = jnp.ones((1, 2, 1), jnp.float16)
    assert smoothgrad(large, x, 0, key=jax.random.key(0), sigma=0.0).tolist() == [[[1000.0], [1000.0]]]
    cube = lambda x: (x**3).sum((1, 2))[:, None]  # noqa: E731
    found = integrated_gradients(cube, jnp.ones((1, 1, 1), jnp.bfloat16), 0, steps=300, nodes="midpoint", chunk=1)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), 1, rtol=2**-7)


def test_errors():
    net, x = residual(), photos()
    with pytest.raises(
        ValueError, match=r"'nowhere', which the model does not call. Its layers: 'stem', 'blocks.0.conv'"
    ):
        grad_cam(net, x, 0, layer="nowhere")
    with pytest.raises(ValueError, match="needs features at positions"):
        grad_cam(net, x, 0, layer="readout")
    with pytest.raises(ValueError, match="It has no convolution"):
        grad_cam(lambda x: x.mean((1, 2)), x, 0)
    for wrong in (3, -1, [0, 1, 7]):
        with pytest.raises(ValueError, match="3 classes, 0 to 2"):
            saliency(net, x, wrong)
    with pytest.raises(ValueError, match="one class number, or one for each of the 3 images"):
        saliency(net, x, [0, 1])
    with pytest.raises(ValueError, match="one class number"):
        saliency(net, x, 0.5)
    assert np.isnan(jax.jit(lambda t: saliency(net, x, t))(jnp.array([0, 1, 7])))[2].all()
    net.train()
    for method in METHODS.values():
        with pytest.raises(ValueError, match=r"train mode .*blocks.0.norm.*dropout.*model.eval\(\)"):
            method(net, x, 0)
    net.eval()
    with pytest.raises(ValueError, match="NaN or infinity as the score of image 1 "):
        saliency(net, x.at[1, 0, 0, 0].set(jnp.nan), 0)
    for method in METHODS.values():
        with pytest.raises(ValueError, match="NaN or infinity"):
            method(net, x.at[2].set(jnp.nan), 0)
    with pytest.raises(ValueError, match="a derivative that is NaN or infinite"):
        saliency(lambda x: jnp.sqrt(x).sum((1, 2)), jnp.zeros((1, 8, 8, 2)), 0)
    norm = linen.BatchNorm(use_running_average=False)
    variables = norm.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="Linen model in train mode"):
        saliency(lambda x: norm.apply(variables, x).mean((1, 2)), x, 0)
    with pytest.raises(ValueError, match=r"scores before softmax, \[n, classes\]"):
        saliency(lambda x: x, x, 0)
    with pytest.raises(TypeError, match="floating"):
        saliency(net, np.ones((1, 8, 8, 2), int), 0)
    with pytest.raises(ValueError, match=r"use x\[None\]"):
        saliency(net, np.ones(8, np.float32), 0)
    with pytest.raises(TypeError, match="a bound Linen module"):
        saliency("net", x, 0)
    with pytest.raises(ValueError, match=r"module.bind\(variables\)"):
        saliency(LinenNet(), x, 0)
    with pytest.raises(ValueError, match="chunk=0"):
        saliency(net, x, 0, chunk=0)
    with pytest.raises(ValueError, match="normalise='sum'"):
        grad_cam(net, x, 0, normalise="sum")
    with pytest.raises(ValueError, match="samples=0"):
        smoothgrad(net, x, 0, key=jax.random.key(0), samples=0)
    with pytest.raises(ValueError, match="nodes='simpson'"):
        integrated_gradients(net, x, 0, nodes="simpson")
    with pytest.raises(ValueError, match="must not exceed"):
        occlusion(net, x, 0, window=9)
    with pytest.raises(ValueError, match="one for each of 2 axes"):
        occlusion(net, x, 0, window=(2, 2, 2))
    with pytest.raises(ValueError, match="has no counterpart"):
        deconvnet_layers([jnp.tanh, lambda a: a.mean((1, 2))], x, 0)
    with pytest.raises(ValueError, match="has no counterpart"):
        jax.jit(lambda x: deconvnet_layers([nnx.leaky_relu, lambda a: a.mean((1, 2))], x, 0))(x)
    with pytest.raises(ValueError, match=r"`saliency` got x of shape \(0, 8, 8, 2\)"):
        saliency(net, x[:0], 0)
    with pytest.raises(TypeError, match=r"window=2\.0: it must be an integer"):
        occlusion(net, x, 0, window=2.0)
    with pytest.raises(ValueError, match="`completeness` got an attribution of shape"):
        completeness(net, x, x.sum(-1), 0)
    with pytest.raises(ValueError, match="`guided_backprop` found no ReLU"):
        guided_backprop(lambda x: jnp.tanh(x).mean((1, 2)), x, 0)
    closed = BatchNormed(nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"an NNX model that changes .*model.eval\(\)"):
        saliency(lambda x: closed(x), x, 0)
    with pytest.raises(ValueError, match="zeros beyond the border"):
        deconvnet_layers(
            [Correlate(2, 3, (3, 3), padding="CIRCULAR", rngs=nnx.Rngs(0)), lambda a: a.mean((1, 2))], x, 0
        )
    with pytest.raises(ValueError, match="a window must lie within x"):
        max_pool(x, 9)
    with pytest.raises(ValueError, match="must have one shape"):
        unpool(x, jnp.zeros((3, 4, 4, 2), int), x.shape)
