"""A net like ResNet-18: a 3x3 stem and four stages of two residual blocks.

He et al., Deep residual learning for image recognition, 2016; with the stem that small images want.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from research.models.layers import Layers


class Block(nnx.Module):
    """Two 3x3 layers beside a shortcut, which is a 1x1 layer where the shape changes."""

    def __init__(self, features: int, out: int, strides: int, layers: Layers):
        self.first = layers.conv(features, out, 3, strides, use_bias=False)
        self.first_norm = layers.normalise(out)
        self.second = layers.conv(out, out, 3, use_bias=False)
        self.second_norm = layers.normalise(out)
        same = features == out and strides == 1
        self.shortcut = None if same else layers.conv(features, out, 1, strides, use_bias=False)

    def __call__(self, x: Array) -> Array:
        y = nnx.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """Stages of `width`, 2, 4 and 8 `width` features; the first keeps the resolution, the others halve it."""

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int, layers: Layers):
        self.stem = layers.conv(shape[2], width, 3, use_bias=False)
        self.norm = layers.normalise(width)
        blocks, features = [], width
        for stage in range(4):
            out = width * 2**stage
            blocks += [Block(features, out, 2 if stage else 1, layers), Block(out, out, 1, layers)]
            features = out
        self.blocks = nnx.List(blocks)
        self.readout = layers.linear(features, classes)

    def __call__(self, x: Array) -> Array:
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.readout(jnp.mean(x, (1, 2)))
