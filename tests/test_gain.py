"""Guided attention, metrics and pictures, against their formulas in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from scipy import stats

from jaxconv.attribution import (
    attention,
    cascade,
    contact_sheet,
    deletion,
    energy_in_mask,
    gain_loss,
    grad_cam,
    guided_backprop,
    insertion,
    masked,
    overlay,
    pointing_game,
    saliency,
    sensitivity,
    signed,
)
from jaxconv.attribution.metrics import rank_correlation
from jaxconv.layers import Correlate


class Net(nnx.Module):
    def __init__(self, rngs, norm=False):
        self.first = Correlate(2, 4, (3, 3), method="direct", rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs) if norm else None
        self.second = Correlate(4, 5, (3, 3), method="direct", rngs=rngs)
        self.readout = nnx.Linear(5, 3, rngs=rngs)

    def features(self, x):
        x = self.first(x)
        x = x if self.norm is None else self.norm(x)
        return self.second(nnx.relu(x))

    def head(self, a):
        return self.readout(nnx.relu(a).mean((1, 2)))

    def __call__(self, x):
        return self.head(self.features(x))


def photos(n=3, size=8, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, size, size, 2))


LABELS = np.array([2, 0, 1])


def by_hand(net, x, labels, *, second_order=False, alpha=1.0, sigma=0.5, omega=10.0):
    """The loss from the paper's equations, without a map function of the package."""
    a = net.features(x)
    score = lambda a: net.head(a)[np.arange(len(x)), labels].sum()  # noqa: E731
    w = jax.grad(score)(a).mean((1, 2), keepdims=True)
    w = w if second_order else jax.lax.stop_gradient(w)
    cam = jnp.maximum((w * a).sum(-1), 0)
    most = jax.lax.stop_gradient(cam.max((1, 2), keepdims=True))
    cam = jnp.where(most > 0, cam / jnp.where(most > 0, most, 1), 0)
    inside = 1 / (1 + jnp.exp(-omega * (cam - sigma)))
    hidden = x - inside[..., None] * x
    mining = jax.nn.softmax(net(hidden))[np.arange(len(x)), labels].mean()
    classes = optax.softmax_cross_entropy_with_integer_labels(net(x), labels).mean()
    return classes + alpha * mining, cam


@pytest.mark.parametrize("second_order", [False, True])
def test_gain_is_the_papers_loss(second_order):
    net, x = Net(nnx.Rngs(0)), photos()
    graph, state = nnx.split(net)

    def ours(state):
        return gain_loss(nnx.merge(graph, state), x, LABELS, second_order=second_order).loss

    def theirs(state):
        return by_hand(nnx.merge(graph, state), x, LABELS, second_order=second_order)[0]

    (loss, gradient), (expected, right) = (jax.jit(jax.value_and_grad(f))(state) for f in (ours, theirs))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-6), gradient, right)
    np.testing.assert_allclose(attention(net, x, LABELS), by_hand(net, x, LABELS)[1], atol=1e-6)


def test_the_orders_differ_and_finite_differences_agree_with_the_second():
    with jax.enable_x64(True):
        rngs = nnx.Rngs(0)
        net = nnx.Sequential(
            Correlate(2, 4, (3, 3), param_dtype=jnp.float64, method="direct", rngs=rngs), nnx.tanh,
            Correlate(4, 3, (3, 3), param_dtype=jnp.float64, method="direct", rngs=rngs), nnx.tanh,
            lambda a: (a**2).mean((1, 2)), nnx.Linear(3, 3, param_dtype=jnp.float64, rngs=rngs),
        )  # fmt: skip
        x = jnp.asarray(photos(), jnp.float64)
        graph, state = nnx.split(net)
        flat, back = jax.flatten_util.ravel_pytree(state)

        def mining(flat, second_order=True):
            # the largest value is a constant of the loss, so it is held here, too
            return gain_loss(nnx.merge(graph, back(flat)), x, LABELS, second_order=second_order, omega=3.0).mining

        def free(flat):
            model = nnx.merge(graph, back(flat))
            a = nnx.tanh(model.layers[0](x))
            a = model.layers[2](a)
            head = lambda a: model.layers[5]((nnx.tanh(a) ** 2).mean((1, 2)))  # noqa: E731
            w = jax.grad(lambda a: head(a)[np.arange(3), LABELS].sum())(a).mean((1, 2), keepdims=True)
            cam = jnp.maximum((w * a).sum(-1), 0) / most
            hidden = x - jax.nn.sigmoid(3.0 * (cam - 0.5))[..., None] * x
            return jax.nn.softmax(model(hidden))[np.arange(3), LABELS].mean()

        raw = grad_cam(net, x, LABELS, layer="layers.2", upsample=False)
        most = raw.max((1, 2), keepdims=True)
        assert (most > 0).all()
        np.testing.assert_allclose(jax.jit(mining)(flat), jax.jit(free)(flat), rtol=1e-12)
        free, gradient = jax.jit(free), jax.jit(jax.grad(mining))(flat)
        rng, step = np.random.default_rng(0), 1e-6
        for _ in range(5):
            way = rng.standard_normal(flat.shape)
            slope = (free(flat + step * way) - free(flat - step * way)) / (2 * step)
            np.testing.assert_allclose(gradient @ way, slope, rtol=1e-5, atol=1e-9)
        assert not np.allclose(gradient, jax.jit(jax.grad(partial(mining, second_order=False)))(flat), rtol=1e-2)


@pytest.mark.nightly
def test_omega_zero_leaves_half_and_alpha_zero_is_plain_training():
    net, x = Net(nnx.Rngs(0)), photos()
    np.testing.assert_array_equal(masked(x, attention(net, x, LABELS), omega=0.0), x / 2)
    half = gain_loss(net, x, LABELS, omega=0.0)
    np.testing.assert_allclose(half.mining, jax.nn.softmax(net(x / 2))[np.arange(3), LABELS].mean(), rtol=1e-6)
    graph, state = nnx.split(net)
    plain = jax.grad(lambda s: optax.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, s)(x), LABELS).mean())(
        state
    )
    guided = jax.grad(lambda s: gain_loss(nnx.merge(graph, s), x, LABELS, alpha=0.0).loss)(state)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-7), guided, plain)


def test_several_labels_have_a_mask_each():
    net, x = Net(nnx.Rngs(0)), photos()
    many = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]], np.float32)
    found = gain_loss(net, x, many)
    total, expected = 0.0, 0.0
    for image, label in zip(*np.nonzero(many), strict=True):
        a = attention(net, x[image : image + 1], int(label))
        expected += jax.nn.sigmoid(net(masked(x[image : image + 1], a)))[0, label]
        total += 1
    np.testing.assert_allclose(found.mining, expected / total, rtol=1e-5)
    np.testing.assert_allclose(found.classification, optax.sigmoid_binary_cross_entropy(net(x), many).mean(), rtol=1e-6)
    np.testing.assert_allclose(gain_loss(net, x, many, most_labels=3).loss, found.loss, rtol=1e-6)
    one = np.eye(3, dtype=np.float32)[LABELS]
    np.testing.assert_allclose(
        gain_loss(net, x, one, most_labels=1).attention, gain_loss(net, x, LABELS).attention, atol=1e-6
    )


def test_known_masks():
    net, x = Net(nnx.Rngs(0)), photos()
    masks = (np.random.default_rng(0).random((3, 8, 8)) > 0.5).astype(np.float32)
    a = np.asarray(attention(net, x, LABELS))
    apart = ((a - masks) ** 2).mean((1, 2))
    found = gain_loss(net, x, LABELS, masks=masks, external=10.0)
    np.testing.assert_allclose(found.external, apart.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.loss, found.classification + found.mining + 10 * apart.mean(), rtol=1e-5)
    some = gain_loss(net, x, LABELS, masks=masks, has_mask=[0, 1, 0])
    np.testing.assert_allclose(some.external, apart[1], rtol=1e-5)
    assert gain_loss(net, x, LABELS, masks=masks, has_mask=[0, 0, 0]).external == 0
    by_class = np.zeros((3, 3, 8, 8), np.float32)
    by_class[np.arange(3), LABELS] = masks
    np.testing.assert_allclose(gain_loss(net, x, LABELS, masks=by_class).external, apart.mean(), rtol=1e-5)
    for wrong in (masks[:2], masks[:, :4], by_class[:, :2]):
        with pytest.raises(ValueError, match="`gain_loss` got masks of shape"):
            gain_loss(net, x, LABELS, masks=wrong)
    with pytest.raises(ValueError, match="`gain_loss` got labels"):
        gain_loss(net, x, np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"has_mask of shape \(2,\)"):
        gain_loss(net, x, LABELS, masks=masks, has_mask=[1, 0])
    with pytest.raises(ValueError, match="most_labels=9: it must be an integer from 1 to 3"):
        gain_loss(net, x, np.ones((3, 3), np.float32), most_labels=9)
    one = lambda x: net(x)[:, :1]  # noqa: E731
    for call in (lambda: gain_loss(one, x, [0, 0, 0]), lambda: deletion(one, x, a, 0)):
        with pytest.raises(ValueError, match="a model with one score an image, whose softmax is always 1"):
            call()
    with pytest.raises(ValueError, match="one value a position"):
        masked(x, a[:, :4])


def test_batch_norm_is_trained_once_and_frozen_for_the_masked_image():
    net, x = Net(nnx.Rngs(0), norm=True), photos()
    net.train()
    alone = nnx.clone(net)
    expected = alone(x)  # trains its running statistics
    fixed = nnx.clone(net)
    fixed.eval()
    before = gain_loss(fixed, x, LABELS)
    found = gain_loss(net, x, LABELS)
    np.testing.assert_array_equal(net.norm.mean[...], alone.norm.mean[...])
    np.testing.assert_allclose(
        found.classification, optax.softmax_cross_entropy_with_integer_labels(expected, LABELS).mean(), rtol=1e-6
    )
    np.testing.assert_allclose(found.mining, before.mining, rtol=1e-6)

    @nnx.jit
    def step(net):
        return nnx.value_and_grad(lambda net: gain_loss(net, x, LABELS).loss)(net)

    fresh = nnx.clone(net)
    loss, gradient = step(fresh)
    assert not np.array_equal(fresh.norm.mean[...], net.norm.mean[...])
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert np.isfinite(loss)


def test_training_with_gain_hides_less():
    """A few steps lower the loss, and the mined probability with it."""
    net, x = Net(nnx.Rngs(1)), photos(6)
    labels = np.arange(6) % 3
    graph, state = nnx.split(net)
    optimiser = optax.adam(1e-2)
    loss = lambda state: gain_loss(nnx.merge(graph, state), x, labels).loss  # noqa: E731

    @jax.jit
    def step(state, memory):
        value, gradient = jax.value_and_grad(loss)(state)
        updates, memory = optimiser.update(gradient, memory)
        return optax.apply_updates(state, updates), memory, value

    memory, values = optimiser.init(state), []
    for _ in range(60):
        state, memory, value = step(state, memory)
        values.append(float(value))
    assert values[-1] < 0.6 * values[0]


def test_nan_is_said_where_values_are_known():
    net = Net(nnx.Rngs(0))
    with pytest.raises(ValueError, match="`gain_loss` got NaN or infinity as the score of image 1"):
        gain_loss(net, photos().at[1].set(jnp.nan), LABELS)
    with pytest.raises(ValueError, match="`attention` got NaN"):
        attention(net, photos().at[1].set(jnp.nan), LABELS)
    hidden = jax.jit(lambda x: attention(net, x, LABELS))(photos().at[1].set(jnp.nan))
    assert np.isnan(hidden[1]).all()
    assert np.isfinite(hidden[::2]).all()
    assert np.isnan(jax.jit(lambda x: gain_loss(net, x, LABELS).loss)(photos().at[1].set(jnp.nan)))


# ---- metrics


def test_deletion_and_insertion_by_hand():
    net, x = Net(nnx.Rngs(0)), photos()
    maps = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    for method, insert in ((deletion, False), (insertion, True)):
        found = method(net, x, maps, LABELS, steps=5, baseline=0.5, chunk=4)
        for image in range(3):
            order = np.argsort(-maps[image].ravel(), kind="stable")
            for s in range(6):
                first = np.zeros(64, bool)
                first[order[: round(s / 5 * 64)]] = True
                keep = (first if insert else ~first).reshape(8, 8, 1)
                picture = np.where(keep, x[image], 0.5)
                expected = jax.nn.softmax(net(picture[None]))[0, LABELS[image]]
                np.testing.assert_allclose(found.values[image, s], expected, rtol=1e-5)
        np.testing.assert_allclose(found.area, np.trapezoid(found.values, found.share, axis=1), rtol=1e-5)
    with pytest.raises(ValueError, match="`deletion` got maps of shape"):
        deletion(net, x, maps[:, :4], 0)
    with pytest.raises(ValueError, match="`deletion` got a map with NaN or infinity, that of image 1"):
        deletion(net, x, np.stack([maps[0], maps[1] * np.nan, maps[2]]), 0)
    with pytest.raises(ValueError, match="steps=0"):
        insertion(net, x, maps, 0, steps=0)


def test_pointing_game_and_energy():
    rng = np.random.default_rng(0)
    maps, masks = rng.standard_normal((20, 7, 9)).astype(np.float32), rng.random((20, 7, 9)) > 0.7
    for tolerance in (0, 1, 2):
        expected = []
        for map, mask in zip(maps, masks, strict=True):
            i, j = np.unravel_index(map.argmax(), map.shape)
            low = slice(max(i - tolerance, 0), i + tolerance + 1), slice(max(j - tolerance, 0), j + tolerance + 1)
            expected.append(mask[low].any())
        np.testing.assert_array_equal(pointing_game(maps, masks, tolerance=tolerance), expected)
    positive = np.maximum(maps, 0)
    np.testing.assert_allclose(
        energy_in_mask(maps, masks), (positive * masks).sum((1, 2)) / positive.sum((1, 2)), rtol=1e-5
    )
    np.testing.assert_array_equal(energy_in_mask(0 * maps, masks), 0)
    with pytest.raises(ValueError, match=r"both must be \[n, ...\]"):
        pointing_game(maps, masks[:, :3])
    with pytest.raises(ValueError, match="a map with NaN or infinity, that of image 0"):
        pointing_game(np.nan * maps, masks)
    with pytest.raises(ValueError, match="tolerance=-1"):
        pointing_game(maps, masks, tolerance=-1)
    assert not pointing_game(0 * maps, masks | True).any()  # the same everywhere: it points nowhere


def test_pixels_of_equal_rank_go_in_their_order():
    count = lambda x: jnp.stack([x.reshape(len(x), -1) @ (2.0 ** -jnp.arange(9)), jnp.zeros(len(x))], 1)  # noqa: E731
    found = insertion(count, jnp.ones((2, 3, 3, 1)), jnp.ones((2, 3, 3)), 0, steps=9)
    expected = 1 / (1 + np.exp(-np.append(0, np.cumsum(2.0 ** -np.arange(9)))))
    np.testing.assert_allclose(found.values, [expected] * 2, rtol=1e-6)


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 6, 30)).astype(np.float32)  # with many equal values
    expected = [stats.spearmanr(one, other).statistic for one, other in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(jnp.asarray(a), jnp.asarray(b)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rank_correlation(jnp.ones((2, 4)), jnp.arange(8.0).reshape(2, 4)), 0)


def test_sensitivity():
    net, x, key = Net(nnx.Rngs(0)), photos(), jax.random.key(0)
    linear = lambda x: x.reshape(len(x), -1)[:, :3]  # noqa: E731
    np.testing.assert_array_equal(sensitivity(lambda x: saliency(linear, x, 0), x, key=key), 0)
    found = sensitivity(lambda x: x, x, key=key, radius=0.1, samples=20)
    size = np.sqrt((np.asarray(x) ** 2).sum((1, 2, 3)))
    assert (found <= 0.1 * np.sqrt(128) / size + 1e-6).all()  # |u| <= 1 for each element
    assert (found >= 0.5 * 0.1 * np.sqrt(128 / 3) / size).all()
    assert (sensitivity(lambda x: saliency(net, x, 0), x, key=key) > 0).all()
    with pytest.raises(ValueError, match="samples=0"):
        sensitivity(lambda x: x, x, key=key, samples=0)


def test_the_sanity_check_of_the_last_layer():
    """Guided backpropagation hardly changes when the last layer is randomised, the gradient does: as is known."""
    net, x = Net(nnx.Rngs(3)), photos(6, 16)
    before = jax.tree.map(np.array, nnx.state(net))
    similar = {}
    for method in (saliency, guided_backprop):
        found = cascade(lambda net, x, method=method: method(net, x, 1), net, x, key=jax.random.key(5))
        assert found.layers == ("readout", "second", "first")
        assert found.maps.shape[:2] == (3, 6)
        similar[method] = found.similarity
    gradient, guided = float(similar[saliency][0].mean()), float(similar[guided_backprop][0].mean())
    assert guided > gradient + 0.1
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, nnx.state(net)))
    a, b = np.abs(found.maps[0]), np.abs(guided_backprop(net, x, 1))
    for image in range(6):
        rank = stats.spearmanr(a[image].ravel(), b[image].ravel()).statistic
        np.testing.assert_allclose(similar[guided_backprop][0][image], rank, atol=1e-5)
    with pytest.raises(ValueError, match="those with parameters are"):
        cascade(lambda net, x: saliency(net, x, 1), net, x, key=jax.random.key(5), layers=["third"])
    with pytest.raises(TypeError, match=r"must be a Flax NNX module"):
        cascade(saliency, lambda x: x, x, key=jax.random.key(5))


# ---- pictures


def test_overlay_and_signed():
    image, map = np.linspace(0, 1, 64).reshape(8, 8, 1), np.zeros((8, 8))
    np.testing.assert_allclose(overlay(image, map), np.repeat(image, 3, -1), atol=1e-12)  # nothing to show
    map[2, 3] = 5.0
    shown = overlay(image, map, alpha=1.0)
    np.testing.assert_allclose(shown[2, 3], [0.995737, 0.909344, 0.217772], atol=1e-2)  # cividis's upper end
    np.testing.assert_allclose(
        np.delete(shown.reshape(64, 3), 19, 0), np.delete(np.repeat(image.reshape(64, 1), 3, 1), 19, 0)
    )
    red, white, blue = signed(np.array([[1.0, 0.0, -1.0]]))[0]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert (white > 0.95).all()
    np.testing.assert_allclose(signed(np.zeros((2, 2))), np.broadcast_to(white, (2, 2, 3)))
    with pytest.raises(ValueError, match="one channel or three"):
        overlay(np.zeros((8, 8, 2)), map)
    with pytest.raises(ValueError, match="of one image"):
        signed(np.zeros(3))
    with pytest.raises(ValueError, match="alpha=2"):
        overlay(image, map, alpha=2)
    with pytest.raises(ValueError, match="a map without channels"):
        overlay(image, np.ones((8, 8, 2)))
    with pytest.raises(ValueError, match="`signed` got a map with NaN"):
        signed(np.full((2, 2), np.nan))


def test_contact_sheets_are_written_whole_or_not_at_all(tmp_path):
    images = np.random.default_rng(0).random((3, 8, 8, 1))
    maps = {"flat": np.ones((3, 8, 8)), "signed": images - 0.5}
    path = contact_sheet(images, maps, tmp_path / "sheet.png", titles=["a", "b", "c"])
    first = path.read_bytes()
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(ValueError, match="as many maps"):
        contact_sheet(images, {"few": np.ones((2, 8, 8))}, path)
    with pytest.raises(ValueError, match="'titles': 2"):
        contact_sheet(images, maps, path, titles=["a", "b"])
    with pytest.raises(ValueError, match="one channel or three"):
        contact_sheet(np.zeros((3, 8, 8, 2)), maps, path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def test_attention_of_a_plain_function():
    net, x = Net(nnx.Rngs(0)), photos()
    f = lambda x: net.head(checkpoint_name(net.features(x), "f"))  # noqa: E731
    np.testing.assert_allclose(attention(f, x, LABELS, layer="f"), attention(net, x, LABELS), atol=1e-6)
