"""Random problems of ordinary kinds, for fitting and judging the planner: what a program might ask for."""

from dataclasses import replace

import numpy as np

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


def _filter(rng) -> Problem:
    """A signal, an image or a volume, one channel, perhaps a few at once."""
    d = int(rng.choice([1, 1, 2, 2, 2, 3]))
    n = [_log_integer(rng, low, high) for low, high in [((100, 3e6),), ((32, 2048),) * 2, ((16, 128),) * 3][d - 1]]
    most = {1: 20_000, 2: 96, 3: 16}[d]
    k = [_log_integer(rng, 2, min(most, size)) for size in n]
    if d > 1 and rng.random() < 0.7:
        n, k = [n[0]] * d, [min(k)] * d
    mode = str(rng.choice(["same", "same", "valid", "full"]))
    copies = 1 if rng.random() < 0.7 else _log_integer(rng, 2, 32)
    problem = Problem(mode_axes("random", n, k, mode, bool(rng.random() < 0.5)), n=copies)
    kinds = ["float32"] * 7 + ["float64", "complex64", "int32"]
    kind = str(rng.choice(kinds))
    return replace(problem, dtypes=Triple(kind, kind, kind))


def _layer(rng) -> Problem:
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
    n = _log_integer(rng, 1, 128)
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


def random_problem(seed: int) -> Problem:
    """The problem of a seed: neither empty nor so large that measuring it would take long."""
    rng = np.random.default_rng([seed, 20261121])
    while True:
        problem = _filter(rng) if rng.random() < 0.35 else _layer(rng)
        if rng.random() < 0.3 and problem.dtypes.x != "int32":
            problem = (problem.input_pass, problem.kernel_pass)[int(rng.choice(2))]
        elements = max(np.prod(shape, dtype=float) for shape in (problem.x_shape, problem.w_shape, problem.y_shape))
        if not problem.is_empty and elements <= MOST_ELEMENTS and 1e4 <= problem.products <= MOST_PRODUCTS:
            return problem
