"""The error of every engine over the bench's layers, in three types, against its own bound."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from jaxconv.engines import ENGINES
from jaxconv.padding import lax_axes, mode_axes
from jaxconv.problem import Problem, Triple
from tests.problems import PASSES, by_taps, error_bound, operands

# The rows of scripts/rows.py with their channels and kernels, on smaller images and fewer of them.
CHANNELS_LAST = {
    1: Triple("n0gc", "0cgm", "n0gm"),
    2: Triple("n01gc", "01cgm", "n01gm"),
    3: Triple("n012gc", "012cgm", "n012gm"),
}


def layer(size, kernel, stride=1, dilation=1, **sizes):
    d = len(size)
    half = dilation * (kernel - 1) // 2
    axes = lax_axes("test", size, [kernel] * d, [stride] * d, [(half, half)] * d, None, [dilation] * d)
    return Problem(axes, layouts=CHANNELS_LAST[d], **sizes)


ROWS = {
    "dense3x3": layer([20, 20], 3, n=2, c=64, m=64),
    "stem": layer([40, 40], 3, 2, n=2, c=3, m=32),
    "pointwise": layer([12, 12], 1, n=2, c=256, m=256),
    "dense7x7": layer([24, 24], 7, n=1, c=32, m=32),
    "dilated": layer([20, 20], 3, 1, 2, n=1, c=64, m=64),
    "depthwise3x3": layer([30, 30], 3, n=1, g=64),
    "depthwise7x7": layer([20, 20], 7, n=2, g=48),
    "grouped": layer([16, 16], 3, n=2, g=8, c=8, m=8),
    "1d dense": layer([128], 5, n=2, c=64, m=64),
    "1d long": layer([256], 255, n=2, g=16),
    "3d dense": layer([8, 8, 8], 3, n=1, c=16, m=16),
    "digits": layer([8, 8], 3, n=16, c=32, m=32),
    "signal": Problem(mode_axes("test", [4000], [101], "same", True)),
    "image": Problem(mode_axes("test", [96, 96], [15, 15], "same", True)),
    "volume": Problem(mode_axes("test", [20, 20, 20], [5, 5, 5], "same", True)),
}


@pytest.mark.covering
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ROWS)
def test_every_engine_is_within_its_bound(name, dtype):
    for which, of in PASSES.items():
        if dtype != "float32" and which != "forward":
            continue
        problem = replace(of(ROWS[name]), dtypes=Triple(dtype, dtype, dtype))
        x, w = operands(problem)
        truth, total = by_taps(problem, x, w), by_taps(problem, np.abs(x), np.abs(w))
        for engine in ENGINES.values():
            if engine.refusal(problem, "cpu"):
                continue
            y = np.asarray(jax.jit(partial(engine.run, problem))(x, w), np.float64)
            bound = error_bound(problem, [engine], x, w, lambda *_: total)
            error = np.abs(y - truth)
            assert np.all(error <= bound), f"{engine.name}, {which}: {np.max(error / bound):.3g} of the bound"
