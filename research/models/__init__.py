"""The architectures of research/train.py, one a file: `MODELS` lists them, `build` makes one.

Each is made of the layers that `Layers` hands out, so that one architecture runs as correlations, as convolutions,
with any engine, or on plain nnx.Conv to be compared with.
"""

from collections.abc import Callable

from flax import nnx

from research.models.cnn import CNN
from research.models.convnext import ConvNeXt
from research.models.layers import Layers
from research.models.long import LongClassifier
from research.models.resnet import ResNet

__all__ = ["MODELS", "Layers", "build"]

MODELS: dict[str, Callable[..., nnx.Module]] = {
    "cnn": CNN,
    "resnet": ResNet,
    "convnext": ConvNeXt,
    "long": LongClassifier,
}


def build(name: str, shape: tuple[int, int, int], classes: int, width: int, layers: Layers) -> nnx.Module:
    """The architecture of that name for images (height, width, channels)."""
    return MODELS[name](shape, classes, width, layers)
