"""Rows of the bench that are drawn at random, by families, so that nothing can be tuned to a list.

A seed and a family give a sequence of problems: sizes, channels and kernels log-uniform, strides, dilations and passes
uniform, between a million and four thousand million floating-point operations; what is outside is drawn again.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from zlib import crc32

import jax
import numpy as np
from rows import PASSES, Layer, Row, filtering, per_example

from jaxconv.plan import plan
from jaxconv.problem import Problem

OPERATIONS = (1e6, 4e9)  # two for each product
MOST_ELEMENTS = 3e7  # of any array
Rng = np.random.Generator


def _integer(rng: Rng, low: float, high: float) -> int:
    return round(np.exp(rng.uniform(np.log(low), np.log(high))))


def _channels(rng: Rng, low: int, high: int) -> int:
    """Log-uniform; every other time a multiple of eight, as networks mostly have it."""
    n = _integer(rng, low, high)
    return n if n < 8 or rng.random() < 0.5 else n // 8 * 8


def _sizes(rng: Rng, low: int, high: int, d: int) -> tuple[int, ...]:
    return tuple(_integer(rng, low, high) for _ in range(d))


def _layer(rng: Rng, name: str, layer: Layer) -> Row | None:
    """One pass of the layer; None if it is out of bounds."""
    if min(layer.out) < 1 or max(map(prod, layer.shapes())) > MOST_ELEMENTS:
        return None
    which = int(rng.integers(3))
    words = [name, f"n{layer.N}", f"c{layer.C}-{layer.O}", "x".join(map(str, layer.size)), f"k{layer.kernel}"]
    words += [f"s{layer.stride}"] * (layer.stride > 1) + [f"d{layer.dilation}"] * (layer.dilation > 1)
    words += [f"g{layer.groups}"] * (1 < layer.groups < layer.C) + [PASSES[which]]
    return layer.row(which, " ".join(words), name)


def _dense_2d(rng: Rng) -> Row | None:
    c = 3 if rng.random() < 0.1 else _channels(rng, 8, 256)
    kernel, stride, dilation = (int(rng.choice(some)) for some in ((1, 3, 5, 7), (1, 2), (1, 2)))
    sizes = _sizes(rng, 7, 128, 2)
    layer = Layer("", _integer(rng, 1, 16), c, sizes, _channels(rng, 8, 256), kernel, stride, dilation)
    return _layer(rng, "dense 2-D", layer)


def _pointwise_2d(rng: Rng) -> Row | None:
    sizes, stride = _sizes(rng, 7, 128, 2), int(rng.choice((1, 1, 1, 2)))
    layer = Layer("", _integer(rng, 1, 16), _channels(rng, 8, 1024), sizes, _channels(rng, 8, 1024), 1, stride)
    return _layer(rng, "pointwise 2-D", layer)


def _stem_2d(rng: Rng) -> Row | None:
    kernel, stride, c = (int(rng.choice(some)) for some in ((3, 4, 5, 7, 11), (1, 2, 4), (1, 3, 3, 3, 4)))
    layer = Layer("", _integer(rng, 1, 16), c, _sizes(rng, 32, 256, 2), _channels(rng, 8, 96), kernel, stride)
    return _layer(rng, "stem 2-D", layer)


def _depthwise_2d(rng: Rng) -> Row | None:
    c, kernel, stride = _channels(rng, 16, 512), int(rng.choice((3, 5, 7, 9, 11))), int(rng.choice((1, 2)))
    layer = Layer("", _integer(rng, 1, 16), c, _sizes(rng, 7, 128, 2), c, kernel, stride, groups=c)
    return _layer(rng, "depthwise 2-D", layer)


def _grouped_2d(rng: Rng) -> Row | None:
    groups, kernel, stride = _integer(rng, 2, 32), int(rng.choice((3, 3, 5, 7))), int(rng.choice((1, 2)))
    c, o = (groups * _integer(rng, 2, 16) for _ in range(2))
    layer = Layer("", _integer(rng, 1, 16), c, _sizes(rng, 7, 128, 2), o, kernel, stride, groups=groups)
    return _layer(rng, "grouped 2-D", layer)


def _dense_1d(rng: Rng) -> Row | None:
    kernel, stride = _integer(rng, 1, 48), int(rng.integers(1, 5))
    dilation = 1 if rng.random() < 0.5 else _integer(rng, 2, 64)
    sizes = _sizes(rng, 64, 16384, 1)
    layer = Layer(
        "", _integer(rng, 1, 16), _channels(rng, 8, 256), sizes, _channels(rng, 8, 256), kernel, stride, dilation
    )
    return _layer(rng, "dense 1-D", layer)


def _depthwise_1d(rng: Rng) -> Row | None:
    c, length = _channels(rng, 16, 1024), _integer(rng, 64, 16384)
    kernel = _integer(rng, 2, 2048)
    return _layer(rng, "depthwise 1-D", Layer("", _integer(rng, 1, 16), c, (length,), c, min(kernel, length), groups=c))


def _dense_3d(rng: Rng) -> Row | None:
    kernel, stride = int(rng.choice((1, 2, 3, 3, 3, 5))), int(rng.choice((1, 2)))
    sizes = _sizes(rng, 8, 40, 3)
    layer = Layer("", _integer(rng, 1, 8), _channels(rng, 4, 48), sizes, _channels(rng, 4, 48), kernel, stride)
    return _layer(rng, "dense 3-D", layer)


def _transposed(rng: Rng) -> Row | None:
    """Of generators and decoders: kernels a multiple of the stride, or odd."""
    d, (kernel, pads) = int(rng.choice((1, 2, 2, 2, 3))), ((4, 1), (2, 0), (3, 1), (5, 2))[int(rng.integers(4))]
    sizes = _sizes(rng, *((16, 4096), (4, 64), (4, 20))[d - 1], d)
    most = (256, 512, 64)[d - 1]
    layer = Layer("", _integer(rng, 1, 32), _channels(rng, 8, most), sizes, _channels(rng, 3, most // 2), kernel, 2,
                  transposed=True, pads=pads)  # fmt: skip
    return _layer(rng, "transposed", layer)


def _per_example(rng: Rng) -> Row | None:
    kernel, size = int(rng.choice((3, 3, 5))), _integer(rng, 6, 48)
    return per_example(_integer(rng, 4, 128), size, _channels(rng, 3, 64), _channels(rng, 8, 64), kernel)


def _signal(rng: Rng) -> Row | None:
    n, m = _integer(rng, 1e3, 2e6), _integer(rng, 3, 20_000)
    return filtering(f"signal {n}*{m}", "signal", (n,), (m,)) if m <= n else None


def _image(rng: Rng) -> Row | None:
    n = _sizes(rng, 64, 2500, 2)
    m = (_integer(rng, 3, 129),) * 2 if rng.random() < 0.7 else _sizes(rng, 3, 129, 2)
    if any(b > a for a, b in zip(n, m, strict=True)):
        return None
    return filtering(f"image {n[0]}x{n[1]}*{m[0]}x{m[1]}", "image", n, m)


FAMILIES: dict[str, Callable[[Rng], Row | None]] = {
    "dense 2-D": _dense_2d,
    "pointwise 2-D": _pointwise_2d,
    "stem 2-D": _stem_2d,
    "depthwise 2-D": _depthwise_2d,
    "grouped 2-D": _grouped_2d,
    "dense 1-D": _dense_1d,
    "depthwise 1-D": _depthwise_1d,
    "dense 3-D": _dense_3d,
    "transposed": _transposed,
    "per-example": _per_example,
    "signal": _signal,
    "image": _image,
}


def contraction(row: Row) -> Problem:
    """The Problem of a drawn row: of a gradient, which is the last that its call contracts."""
    arrays = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in row.data]
    return plan(row.jax["jaxconv"], *arrays)[-1].problem


def drawn(seed: int, count: int, family: str) -> Iterator[Row]:
    """The first `count` rows of a family."""
    rng, found = np.random.default_rng([seed, crc32(family.encode())]), 0
    while found < count:
        row = FAMILIES[family](rng)
        if row is not None and OPERATIONS[0] < 2 * row.products < OPERATIONS[1]:
            found += 1
            yield replace(row, jax={name: f for name, f in row.jax.items() if name != "jaxconv elementwise"})
