"""A CNN that averages its last features over all positions, as class activation maps want it (Lin et al., 2013)."""

from flax import nnx
from jax import Array

from research.models.layers import Layers


class Averaging(nnx.Module):
    """Four 3x3 layers, a norm before each ReLU but the last, 2x2 max pooling after two, the mean, a linear read-out."""

    def __init__(self, channels: int, classes: int, width: int, layers: Layers):
        self.first, self.first_norm = layers.conv(channels, width, 3), layers.normalise(width)
        self.second, self.second_norm = layers.conv(width, 2 * width, 3), layers.normalise(2 * width)
        self.third, self.third_norm = layers.conv(2 * width, 2 * width, 3), layers.normalise(2 * width)
        self.last = layers.conv(2 * width, 4 * width, 3)
        self.readout = layers.linear(4 * width, classes)

    def __call__(self, x: Array) -> Array:
        x = nnx.max_pool(nnx.relu(self.first_norm(self.first(x))), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.second_norm(self.second(x))), (2, 2), (2, 2))
        x = nnx.relu(self.third_norm(self.third(x)))
        return self.readout(nnx.relu(self.last(x)).mean((1, 2)))
