"""The same maps as Captum's, for the same weights in PyTorch: to 1e-5 of each map's largest value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxconv.attribution import (
    deconvnet,
    grad_cam,
    guided_backprop,
    guided_grad_cam,
    input_x_gradient,
    integrated_gradients,
    occlusion,
    saliency,
)
from jaxconv.layers import Correlate

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")

pytestmark = [  # of PyTorch and Captum themselves
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks"),
    pytest.mark.filterwarnings("ignore:Input Tensor .* did not already require gradients"),
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU"),
]


class Block(nnx.Module):
    def __init__(self, features, rngs):
        self.conv, self.norm = (
            Correlate(features, features, (3, 3), method="direct", rngs=rngs),
            nnx.BatchNorm(features, rngs=rngs),
        )

    def __call__(self, x):
        return nnx.relu(x + self.norm(self.conv(x)))


class Ours(nnx.Module):
    """Stem, max pooling, a residual block with BatchNorm, a layer with strides, and a read-out."""

    def __init__(self, rngs):
        self.stem = Correlate(3, 8, (5, 5), method="direct", rngs=rngs)
        self.block = Block(8, rngs)
        self.last = Correlate(8, 12, (3, 3), strides=2, padding=1, method="direct", rngs=rngs)
        self.readout = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.stem(x)), (2, 2), strides=(2, 2))
        return self.readout(nnx.relu(self.last(self.block(x))).mean((1, 2)))


class Theirs(torch.nn.Module):
    """Each ReLU a module of its own: Captum sees no other."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_relu, self.pool = (
            torch.nn.Conv2d(3, 8, 5, padding=2),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
        )
        self.conv, self.norm, self.relu = torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
        self.last, self.last_relu = torch.nn.Conv2d(8, 12, 3, 2, padding=1), torch.nn.ReLU()
        self.readout = torch.nn.Linear(12, 5)

    def forward(self, x):
        x = self.pool(self.stem_relu(self.stem(x)))
        x = self.relu(x + self.norm(self.conv(x)))
        return self.readout(self.last_relu(self.last(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def nets():
    ours, theirs = Ours(nnx.Rngs(0)), Theirs()
    rng = np.random.default_rng(0)
    ours.block.norm.mean[...] = jnp.asarray(rng.standard_normal(8), jnp.float32)
    ours.block.norm.var[...] = jnp.asarray(rng.random(8) + 0.5, jnp.float32)
    pairs = {
        "stem": ours.stem, "conv": ours.block.conv, "last": ours.last, "readout": ours.readout,
    }  # fmt: skip
    with torch.no_grad():
        for name, layer in pairs.items():
            kernel = np.moveaxis(np.asarray(layer.kernel[...]), (-1, -2), (0, 1))
            getattr(theirs, name).weight.copy_(torch.from_numpy(kernel.copy()))
            getattr(theirs, name).bias.copy_(torch.from_numpy(rng.standard_normal(len(kernel)).astype(np.float32)))
            layer.bias[...] = jnp.asarray(getattr(theirs, name).bias.numpy())
        theirs.norm.running_mean.copy_(torch.from_numpy(np.array(ours.block.norm.mean[...])))
        theirs.norm.running_var.copy_(torch.from_numpy(np.array(ours.block.norm.var[...])))
    ours.eval()
    theirs.eval()
    return ours, theirs


X = np.asarray(jax.random.normal(jax.random.key(1), (4, 16, 16, 3)))
TARGET = np.array([4, 0, 2, 2])


def captums(algorithm, /, **more):
    """Channels first in, channels last out."""
    x = torch.from_numpy(np.moveaxis(X, -1, 1).copy()).requires_grad_()
    found = algorithm.attribute(x, target=torch.from_numpy(TARGET), **more)
    return np.moveaxis(found.detach().numpy(), 1, -1)


def same(ours, theirs):
    assert np.abs(theirs).max() > 0
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5 * np.abs(other).max())


def test_the_nets_are_the_same(nets):
    ours, theirs = nets
    scores = theirs(torch.from_numpy(np.moveaxis(X, -1, 1).copy())).detach().numpy()
    np.testing.assert_allclose(ours(X), scores, atol=1e-5 * np.abs(scores).max())


def test_saliency(nets):
    same(saliency(nets[0], X, TARGET), captums(attr.Saliency(nets[1])).max(-1))


def test_input_x_gradient(nets):
    same(input_x_gradient(nets[0], X, TARGET), captums(attr.InputXGradient(nets[1])))


def test_integrated_gradients(nets):
    theirs = captums(attr.IntegratedGradients(nets[1]), n_steps=30, method="gausslegendre")
    same(integrated_gradients(nets[0], X, TARGET, steps=30), theirs)


def test_guided_backprop(nets):
    same(guided_backprop(nets[0], X, TARGET), captums(attr.GuidedBackprop(nets[1])))


def test_deconvnet(nets):
    same(deconvnet(nets[0], X, TARGET), captums(attr.Deconvolution(nets[1])))


LAYERS = {"last": "last", "last_conv": "last", "block.conv": "conv", "stem": "stem"}


@pytest.mark.parametrize("layer", LAYERS)
def test_grad_cam(nets, layer):
    theirs = captums(attr.LayerGradCam(nets[1], getattr(nets[1], LAYERS[layer])), relu_attributions=True)[..., 0]
    same(grad_cam(nets[0], X, TARGET, layer=layer, upsample=False), theirs)


def test_guided_grad_cam(nets):
    theirs = captums(attr.GuidedGradCam(nets[1], nets[1].conv), interpolate_mode="bilinear")
    same(guided_grad_cam(nets[0], X, TARGET, layer="block.conv"), theirs)


def test_occlusion(nets):
    """Captum spreads each window's loss over its pixels; windows that do not overlap show it as it is."""
    theirs = captums(attr.Occlusion(nets[1]), sliding_window_shapes=(3, 4, 4), strides=(3, 4, 4))[..., 0]
    same(occlusion(nets[0], X, TARGET, window=4, stride=4), theirs[:, ::4, ::4])
