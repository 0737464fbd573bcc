"""A net like ConvNeXt: depthwise 7x7 layers, and a perceptron at each position.

Liu et al., A ConvNet for the 2020s, 2022; with a stem of 2x2 patches for small images.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from research.models.layers import Layers


class Block(nnx.Module):
    """A depthwise 7x7 layer, LayerNorm, a perceptron of four times the features, a learned scale, and the shortcut."""

    def __init__(self, features: int, layers: Layers):
        self.depthwise = layers.depthwise(features, 7)
        self.norm = layers.layer_norm(features)
        self.expand = layers.pointwise(features, 4 * features)
        self.project = layers.pointwise(4 * features, features)
        self.scale = nnx.Param(jnp.full(features, 0.1))

    def __call__(self, x: Array) -> Array:
        y = self.project(nnx.gelu(self.expand(self.norm(self.depthwise(x)))))
        return x + self.scale[...].astype(y.dtype) * y


class ConvNeXt(nnx.Module):
    """Two stages of two blocks, of `width` and 2 `width` features; each begins with 2x2 patches."""

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int, layers: Layers):
        modules, features = [], shape[2]
        for out in (width, 2 * width):
            modules += [
                layers.conv(features, out, 2, 2),
                layers.layer_norm(out),
                Block(out, layers),
                Block(out, layers),
            ]
            features = out
        self.modules = nnx.List(modules)
        self.norm = layers.layer_norm(features)
        self.readout = layers.linear(features, classes)

    def __call__(self, x: Array) -> Array:
        for module in self.modules:
            x = module(x)
        return self.readout(self.norm(x.mean((1, 2))))
