"""Where the architectures get their layers from: correlations, convolutions, or plain nnx.Conv to compare with."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import jax.numpy as jnp
from flax import nnx

from jaxconv.layers import Convolve, Correlate, LongConvolve

Op = Literal["correlate", "convolve", "lax"]
OPERATIONS = {"correlate": Correlate, "convolve": Convolve, "lax": nnx.Conv}


@dataclass(frozen=True)
class Layers:
    """Where an architecture gets its layers from.

    op: 'correlate', 'convolve', or 'lax' for plain nnx.Conv. method: jaxconv's engine. norm: of the convolutional
    nets, over the batch or over the features of each example.
    """

    rngs: nnx.Rngs = field(compare=False)
    op: Op = "correlate"
    method: str = "auto"
    dtype: jnp.dtype | None = None
    norm: Literal["batch", "group"] = "batch"

    def conv(self, features: int, out: int, size: int, strides: int = 1, **arguments) -> nnx.Module:
        more = {} if self.op == "lax" else {"method": self.method}
        layer = partial(OPERATIONS[self.op], rngs=self.rngs, dtype=self.dtype)
        return layer(features, out, (size, size), strides, **more, **arguments)

    def pointwise(self, features: int, out: int, axes: int = 2) -> nnx.Module:
        """A linear map at each position of `axes` spatial axes."""
        if self.op == "lax":
            return self.linear(features, out)
        layer = partial(OPERATIONS[self.op], rngs=self.rngs, dtype=self.dtype)
        return layer(features, out, (1,) * axes, method=self.method)

    def depthwise(self, features: int, size: int) -> nnx.Module:
        return self.conv(features, features, size, feature_group_count=features)

    def long(self, features: int, length: int) -> nnx.Module:
        if self.op != "lax":
            return LongConvolve(features, length, method=self.method, dtype=self.dtype, rngs=self.rngs)
        init = nnx.initializers.normal(length**-0.5)
        return nnx.Conv(
            features, features, (length,), padding="CAUSAL", feature_group_count=features,
            kernel_init=init, dtype=self.dtype, rngs=self.rngs,
        )  # fmt: skip

    def normalise(self, features: int) -> nnx.Module:
        if self.norm == "batch":
            return nnx.BatchNorm(features, momentum=0.9, dtype=self.dtype, rngs=self.rngs)
        groups = next(g for g in (8, 4, 2, 1) if features % g == 0)
        return nnx.GroupNorm(features, num_groups=groups, dtype=self.dtype, rngs=self.rngs)

    def layer_norm(self, features: int) -> nnx.Module:
        return nnx.LayerNorm(features, dtype=self.dtype, rngs=self.rngs)

    def linear(self, features: int, out: int) -> nnx.Module:
        return nnx.Linear(features, out, dtype=self.dtype, rngs=self.rngs)
