"""A classifier of sequences by convolutions as long as they are: an image is read pixel by pixel.

Each block is a gated long convolution, as in Hyena (Poli et al., 2023) with one gate, and a perceptron.
"""

from flax import nnx
from jax import Array

from research.models.layers import Layers


class Block(nnx.Module):
    """gate * long convolution, and a perceptron of twice the features; each beside a shortcut, after LayerNorm."""

    def __init__(self, features: int, length: int, layers: Layers):
        self.norm = layers.layer_norm(features)
        self.gate = layers.pointwise(features, features, 1)
        self.long = layers.long(features, length)
        self.mix = layers.pointwise(features, features, 1)
        self.second_norm = layers.layer_norm(features)
        self.expand = layers.pointwise(features, 2 * features, 1)
        self.project = layers.pointwise(2 * features, features, 1)

    def __call__(self, x: Array) -> Array:
        y = self.norm(x)
        x = x + self.mix(nnx.silu(self.gate(y)) * self.long(y))
        return x + self.project(nnx.gelu(self.expand(self.second_norm(x))))


class LongClassifier(nnx.Module):
    """An embedding of each sample, two blocks of `width` features, the mean over time, and a linear read-out."""

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int, layers: Layers):
        height, breadth, channels = shape
        self.embed = layers.pointwise(channels, width, 1)
        self.blocks = nnx.List([Block(width, height * breadth, layers) for _ in range(2)])
        self.norm = layers.layer_norm(width)
        self.readout = layers.linear(width, classes)

    def __call__(self, x: Array) -> Array:
        x = self.embed(x.reshape(len(x), -1, x.shape[-1]))
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x.mean(1)))
