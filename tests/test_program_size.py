"""What is handed to XLA stays small: a stand-in for the time that it takes to compile.

The instructions of a lowered program are counted, per engine and pass; XLA compiles a loop for each that it cannot
fuse. The bounds are some tenths above what is lowered today.
"""

import re
from functools import partial

import jax
import numpy as np
import pytest

from jaxconv.engines import ENGINES
from jaxconv.padding import lax_axes
from jaxconv.problem import Problem, Triple
from tests.problems import PASSES


def layer(d: int, size: int, kernel: int, stride: int = 1, transposed: int = 1, **sizes: int) -> Problem:
    pads = [(kernel // 2, (kernel - 1) // 2)] * d
    axes = lax_axes("test", [size] * d, [kernel] * d, [stride] * d, pads, [transposed] * d)
    spatial = "012"[:d]
    return Problem(axes, layouts=Triple(f"n{spatial}gc", f"{spatial}cgm", f"n{spatial}gm"), **sizes)


LAYERS = {
    "3x3": layer(2, 28, 3, n=4, c=64, m=64),
    "5x5": layer(2, 28, 5, n=4, c=32, m=32),
    "3x3, stride 2": layer(2, 28, 3, 2, n=4, c=32, m=32),
    "grouped": layer(2, 28, 3, n=4, g=8, c=8, m=8),
    "depthwise": layer(2, 28, 5, n=4, g=64),
    "volume": layer(3, 12, 3, n=2, c=16, m=16),
    "transposed": layer(2, 14, 4, 1, 2, n=4, c=32, m=16),
    "few inputs": layer(2, 4, 3, n=1, c=256, m=256),
}


def instructions(problem: Problem, engine: str) -> int:
    x, w = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (problem.x_shape, problem.w_shape))
    text = jax.jit(partial(ENGINES[engine].run, problem)).lower(x, w).as_text()
    return len(re.findall(r" = (?:stablehlo|call|\"stablehlo)", text))


MOST = {  # forward, input, kernel; 0 where an engine refuses
    "direct": {
        "3x3": (15, 15, 15), "5x5": (15, 15, 15), "3x3, stride 2": (15, 15, 15), "grouped": (15, 20, 20),
        "depthwise": (15, 15, 20), "volume": (25, 30, 20), "transposed": (15, 15, 15),
        "few inputs": (15, 15, 15),
    },
    "shifts": {
        "3x3": (170, 175, 120), "5x5": (170, 175, 315), "3x3, stride 2": (170, 135, 120), "grouped": (1065, 1095,
        555), "depthwise": (340, 375, 755), "volume": (3185, 3210, 3335), "transposed": (220, 1940, 245),
        "few inputs": (150, 150, 85),
    },
    "gemm": {
        "3x3": (35, 40, 75), "5x5": (45, 50, 80), "3x3, stride 2": (30, 105, 35), "grouped": (30, 30, 75),
        "depthwise": (80, 80, 80), "volume": (40, 45, 40), "transposed": (135, 35, 135),
        "few inputs": (45, 45, 25),
    },
    "winograd": {
        "3x3": (385, 385, 360), "5x5": (460, 460, 345), "3x3, stride 2": (0, 415, 0), "grouped": (345, 345, 360),
        "depthwise": (385, 390, 345), "volume": (590, 590, 525), "transposed": (665, 0, 740),
        "few inputs": (140, 145, 145),
    },
    "fft": {
        "3x3": (50, 50, 45), "5x5": (50, 50, 45), "3x3, stride 2": (95, 195, 100), "grouped": (45, 50, 45),
        "depthwise": (50, 55, 45), "volume": (55, 60, 55), "transposed": (215, 100, 210),
        "few inputs": (45, 45, 45),
    },
    "overlap": {
        "3x3": (60, 60, 65), "5x5": (60, 60, 65), "3x3, stride 2": (105, 235, 110), "grouped": (60, 60, 60),
        "depthwise": (60, 65, 60), "volume": (65, 65, 65), "transposed": (250, 105, 260),
        "few inputs": (50, 55, 55),
    },
    "native": dict.fromkeys(LAYERS, (20, 20, 20)),
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", LAYERS)
def test_programs_stay_small(name, engine):
    for which, most in zip(PASSES.items(), MOST[engine][name], strict=True):
        problem = which[1](LAYERS[name])
        if not ENGINES[engine].refusal(problem, "cpu"):
            assert instructions(problem, engine) <= most, which[0]
