"""Problems for fitting and judging the planner: those of the bench's rows, and random ones of ordinary kinds.

And each as lax itself has it, to be compared with.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import ConvDimensionNumbers, conv_general_dilated

from jaxconv.padding import lax_axes, mode_axes
from jaxconv.problem import Problem, Triple

MOST_ELEMENTS = 1e7  # of any array
MOST_PRODUCTS = 1e9
CHANNELS_LAST = {
    1: Triple("n0gc", "0cgm", "n0gm"),
    2: Triple("n01gc", "01cgm", "n01gm"),
    3: Triple("n012gc", "012cgm", "n012gm"),
}


def _log_integer(rng, low: float, high: float) -> int:
    return round(np.exp(rng.uniform(np.log(low), np.log(high))))


def _channels(rng, low: int, high: int) -> int:
    """Mostly a power of two or a multiple of eight, as in networks."""
    n = _log_integer(rng, low, high)
    return n if rng.random() < 0.2 or n < 8 else max(8, n // 8 * 8)


def _filter(rng, scale: int) -> Problem:
    """A signal, an image or a volume, one channel, perhaps a few at once."""
    d = int(rng.choice([1, 1, 2, 2, 2, 3]))
    n = [_log_integer(rng, low, high) for low, high in [((100, 3e6),), ((32, 2048),) * 2, ((16, 128),) * 3][d - 1]]
    most = {1: 20_000, 2: 96, 3: 16}[d]
    k = [_log_integer(rng, 2, min(most, size)) for size in n]
    if d > 1 and rng.random() < 0.7:
        n, k = [n[0]] * d, [min(k)] * d
    mode = str(rng.choice(["same", "same", "valid", "full"]))
    copies = 1 if rng.random() < 0.7 else _log_integer(rng, 2, 32)
    problem = Problem(mode_axes("random", n, k, mode, bool(rng.random() < 0.5)), n=scale * copies)
    kinds = ["float32"] * 7 + ["float64", "complex64", "int32"]
    kind = str(rng.choice(kinds))
    problem = replace(problem, dtypes=Triple(kind, kind, kind))
    swapped = rng.random() < 0.3 and kind != "int32"
    return (problem.input_pass, problem.kernel_pass)[int(rng.choice(2))] if swapped else problem


def _layer(rng, scale: int) -> Problem:
    """A layer of a network: dense, grouped or depthwise, strided, dilated or transposed."""
    d = int(rng.choice([1, 2, 2, 2, 2, 3]))
    size = [_log_integer(rng, low, high) for low, high in [((16, 8192),), ((6, 256),) * 2, ((4, 48),) * 3][d - 1]]
    if rng.random() < 0.8:
        size = [size[0]] * d
    kernel = [int(rng.choice([1, 2, 3, 3, 3, 3, 4, 5, 5, 7, 7, 9, 11, 31] if d < 3 else [1, 2, 3, 3, 3, 4, 5]))] * d
    stride, dilation, transposed = [1] * d, [1] * d, [1] * d
    which = rng.random()
    if which < 0.2:
        stride = [2] * d
    elif which < 0.3:
        dilation = [int(rng.choice([2, 3, 4]))] * d
    elif which < 0.4:
        transposed = [2] * d
    family = rng.random()
    kernel = [min(k, n) for k, n in zip(kernel, size, strict=True)]
    n = scale * _log_integer(rng, 1, 128)
    if family < 0.25:
        sizes = dict(n=n, g=_channels(rng, 8, 1024), m=int(rng.choice([1, 1, 1, 2])))
    elif family < 0.4:
        sizes = dict(n=n, g=int(rng.choice([2, 4, 8, 16, 32])), c=_channels(rng, 2, 64), m=_channels(rng, 2, 64))
    else:
        sizes = dict(n=n, c=_channels(rng, 1, 512), m=_channels(rng, 1, 512))
    padding = str(rng.choice(["SAME", "SAME", "SAME", "VALID"]))
    if any(s != 1 for s in transposed):
        padding = [(k - 1, k - 1) for k in kernel]
    problem = Problem(lax_axes("random", size, kernel, stride, padding, transposed, dilation), **sizes)
    if rng.random() < 0.8:
        problem = replace(problem, layouts=CHANNELS_LAST[d])
    kind = str(rng.choice(["float32"] * 12 + ["float64", "bfloat16"]))
    problem = replace(problem, dtypes=Triple(kind, kind, kind))
    return (problem, problem.input_pass, problem.kernel_pass)[int(rng.choice(3))]


def _deep(rng, scale: int) -> Problem:
    """A layer near the end of a network or at the beginning of a generator: few positions, many features."""
    size, kernel = [_log_integer(rng, 1, 16)] * 2, int(rng.choice([1, 2, 3, 3, 3, 4, 5]))
    stride, transposed = ((1, 1), (1, 1), (1, 1), (2, 1), (1, 2))[int(rng.integers(5))]
    sizes = dict(n=scale * _log_integer(rng, 1, 16), c=_channels(rng, 64, 1024), m=_channels(rng, 64, 1024))
    axes = lax_axes("random", size, [kernel] * 2, [stride] * 2, [(kernel // 2, kernel // 2)] * 2, [transposed] * 2)
    problem = Problem(axes, layouts=CHANNELS_LAST[2], **sizes)
    return (problem, problem.input_pass, problem.kernel_pass)[int(rng.choice(3))]


def _layers(d: int, size: int, kernel: int, stride: int = 1, dilation: int = 1, **sizes: int) -> list[Problem]:
    """A layer of a network, channels last, and its two gradients."""
    axes = lax_axes("row", [size] * d, [kernel] * d, [stride] * d, "SAME", [1] * d, [dilation] * d)
    layer = Problem(axes, layouts=CHANNELS_LAST[d], **sizes)
    return [layer, layer.input_pass, layer.kernel_pass]


def _causal(size: int, kernel: int, **sizes: int) -> list[Problem]:
    """Each output meets what is before it, as in state-space models; and the two gradients."""
    layer = Problem(lax_axes("row", [size], [kernel], [1], [(kernel - 1, 0)]), layouts=CHANNELS_LAST[1], **sizes)
    return [layer, layer.input_pass, layer.kernel_pass]


def _filters(*rows: tuple[int, int, int]) -> list[Problem]:
    return [Problem(mode_axes("row", [n] * d, [k] * d, "same", True)) for d, n, k in rows]


# As in rows.py and steps.py, and the two passes of a Gaussian.
ROWS = [
    *_filters((1, 10**3, 31), (1, 10**5, 31), (1, 10**5, 1001), (1, 10**6, 101), (1, 10**6, 10001)),
    *_filters((2, 256, 3), *((2, 1024, k) for k in (3, 7, 15, 31, 63)), (2, 2048, 7), (3, 96, 5)),
    *(Problem(mode_axes("row", [1024] * 2, k, "same", True)) for k in ([41, 1], [1, 41])),
    *(Problem(mode_axes("row", [1024] * 2, k, "valid", False)) for k in ([64, 1], [1, 64], [64, 64])),
    *_layers(2, 56, 3, n=8, c=64, m=64),
    *_layers(2, 224, 3, 2, n=8, c=3, m=32),
    *_layers(2, 28, 1, n=8, c=256, m=256),
    *_layers(2, 64, 7, n=4, c=32, m=32),
    *_layers(2, 56, 3, 1, 2, n=4, c=64, m=64),
    *_layers(2, 124, 3, n=1, g=256),
    *_layers(2, 56, 7, n=4, g=96),
    *_layers(2, 56, 3, n=8, g=8, c=8, m=8),
    *_layers(1, 1024, 5, n=8, c=128, m=128),
    *_layers(1, 1024, 5, n=8, g=512),
    *_layers(1, 1024, 1023, n=4, g=64),
    *_layers(3, 32, 3, n=1, c=16, m=16),
    *_layers(2, 8, 3, n=128, c=32, m=32),
    *_layers(2, 32, 3, n=64, c=3, m=32),
    *_layers(2, 16, 3, n=64, c=32, m=64),
    *_layers(2, 8, 3, n=64, c=64, m=128),
    *_layers(2, 4, 3, n=64, c=16, m=32),
    *_layers(2, 32, 3, n=16, c=32, m=32),
    *_layers(2, 8, 3, n=16, c=128, m=128),
    *_layers(2, 4, 3, n=16, c=256, m=256),
    replace(_layers(2, 16, 3, n=1, g=64, c=16, m=32)[2], layouts=Triple("c01gn", "c01gm", "01ngm")),
    Problem(lax_axes("row", [16] * 3, [3] * 3, [1] * 3, [(1, 2)] * 3, [2] * 3), n=1, c=32, m=16).kernel_pass,
    Problem(lax_axes("row", [512], [1], [1], "SAME"), c=500, m=500),
]


# What fills an accelerator, where the rows are over before they have begun.
LARGE = [
    *_filters((2, 4096, 3), (2, 4096, 15), (2, 1024, 31), (2, 1024, 63), (3, 256, 5)),
    Problem(mode_axes("row", [1024] * 2, [64] * 2, "valid", False)),
    *_layers(2, 124, 3, n=32, g=256),
    *_layers(2, 124, 3, 2, n=32, g=256),
    *_causal(4096, 4, n=8, g=2048),
    *_causal(1024, 1023, n=64, g=768),
    *_layers(2, 28, 3, n=64, c=256, m=256),
    *_layers(2, 224, 3, 2, n=256, c=3, m=32),
    *_layers(2, 56, 3, n=128, g=8, c=32, m=32),
    *_layers(3, 64, 3, n=4, c=64, m=64),
    Problem(lax_axes("row", [32] * 3, [3] * 3, [1] * 3, [(1, 2)] * 3, [2] * 3), n=4, c=64, m=32).kernel_pass,
    replace(_layers(2, 56, 3, g=64, c=64, m=64)[2], layouts=Triple("c01gn", "c01gm", "01ngm")),
]


def random_problem(seed: int, scale: int = 1) -> Problem:
    """The problem of a seed: neither empty nor so large that measuring it would take long.

    `scale` multiplies the batch and what is not too large.
    """
    rng = np.random.default_rng([seed, 20261121])
    while True:
        if seed % 8 == 1:
            problem = _deep(rng, scale)
        else:
            problem = _filter(rng, scale) if rng.random() < 0.35 else _layer(rng, scale)
        elements = max(np.prod(shape, dtype=float) for shape in (problem.x_shape, problem.w_shape, problem.y_shape))
        most = scale * MOST_ELEMENTS, scale * MOST_PRODUCTS
        if not problem.is_empty and elements <= most[0] and 1e4 * scale <= problem.products <= most[1]:
            return problem


# ---- the same by lax itself


def pass_of(problem: Problem) -> tuple[Problem, str]:
    """(layer, pass): the layer that lax can say, of which the Problem is a pass."""
    passes = {"forward": problem, "input": problem.input_pass, "kernel": problem.kernel_pass}
    if problem.n * problem.g * problem.c * problem.m == 1 and problem.taps <= problem.outputs:
        return problem, "forward"  # a filter
    plain = {name: q for name, q in passes.items() if all(axis.L > 0 and axis.S > 0 for axis in q.axes)}
    layers = [n for n, q in plain.items() if q.taps <= q.outputs and all(axis.D > 0 for axis in q.axes)]
    name = (layers or list(plain))[0]
    return plain[name], name


def by_lax(problem: Problem) -> Callable[[Array, Array], Array]:
    """The pass as lax has it: its convolution, or its own gradient of one."""
    layer, name = pass_of(problem)
    of_w = jnp.zeros(layer.w_shape, layer.dtypes.w)
    of_x = jnp.zeros(layer.x_shape, layer.dtypes.x)
    f = partial(_lax_layer, layer)
    return {
        "forward": f,
        "input": lambda dy, w: jax.vjp(lambda x: f(x, w), of_x)[1](dy)[0],
        "kernel": lambda x, dy: jax.vjp(lambda w: f(x, w), of_w)[1](dy)[0],
    }[name]


def _lax_layer(layer: Problem, x: Array, w: Array) -> Array:
    spatial, (lx, lw, _) = layer.spatial, layer.layouts
    w = jnp.flip(w, [lw.index(letter) for letter, axis in zip(spatial, layer.axes, strict=True) if axis.D < 0])
    axes = [axis.kernel_flipped if axis.D < 0 else axis for axis in layer.axes]
    merged = [layout.replace("g" + letter, "F") for layout, letter in zip(layer.layouts, "cmm", strict=True)]
    sizes = {"F": -1, "n": layer.n, "c": layer.c}
    x, w = (
        array.reshape([sizes.get(letter, extents.get(letter)) for letter in layout])
        for array, layout, extents in (
            (x, merged[0], dict(zip(lx, layer.x_shape, strict=True))),
            (w, merged[1], dict(zip(lw, layer.w_shape, strict=True))),
        )
    )
    numbers = [
        tuple(map(layout.index, letters + spatial)) for layout, letters in zip(merged, ("nF", "Fc", "nF"), strict=True)
    ]
    y = conv_general_dilated(
        x, w, [a.S for a in axes],
        [(a.p, a.S * (a.O - 1) + a.D * (a.K - 1) - a.p - a.L * (a.I - 1)) for a in axes],
        [a.L for a in axes], [a.D for a in axes], ConvDimensionNumbers(*numbers), feature_group_count=layer.g,
    )  # fmt: skip
    return y.reshape(layer.y_shape)


def name_of(problem: Problem) -> str:
    """A few words for a Problem.

    >>> name_of(ROWS[35])
    '2-D 124, k 3, depthwise 256: kernel gradient'
    """
    layer, which = pass_of(problem)
    first = layer.axes[0]
    words = [f"{len(layer.axes)}-D {first.I}, k {'x'.join(str(k) for k in dict.fromkeys(a.K for a in layer.axes))}"]
    words += [f"stride {first.S}"] * (first.S != 1) + [f"dilated {first.D}"] * (abs(first.D) != 1)
    words += [f"transposed {first.L}"] * (first.L != 1) + [f"n {layer.n}"] * (layer.n != 1)
    if layer.g > 1:
        words.append(f"depthwise {layer.g}" if layer.c == layer.m == 1 else f"{layer.g} groups")
    words += [f"{layer.c} to {layer.m}"] * (layer.c * layer.m > 1)
    return ", ".join(words) + {"forward": "", "input": ": input gradient", "kernel": ": kernel gradient"}[which]
