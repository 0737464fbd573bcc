"""A small CNN: 3x3 layers, ReLU and 2x2 mean pooling, as long as there is something to pool."""

from itertools import pairwise

from flax import nnx
from jax import Array

from research.models.layers import Layers


class CNN(nnx.Module):
    """Three stages of `width`, 2 `width` and 4 `width` features, the mean over positions, and a linear read-out."""

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int, layers: Layers):
        features = (shape[2], width, 2 * width, 4 * width)
        self.convs = nnx.List([layers.conv(a, b, 3) for a, b in pairwise(features)])
        self.readout = layers.linear(features[-1], classes)

    def __call__(self, x: Array) -> Array:
        for conv in self.convs:
            x = nnx.relu(conv(x))
            if min(x.shape[1:3]) >= 2:
                x = nnx.avg_pool(x, (2, 2), (2, 2))
        return self.readout(x.mean((1, 2)))
