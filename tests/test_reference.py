"""The reference itself, against sums by hand, NumPy, SciPy and a dense matrix."""

import numpy as np
import pytest
import scipy.signal

from jaxconv.padding import mode_axes
from jaxconv.problem import Axis, Problem
from jaxconv.reference import reference
from tests.problems import PASSES, PROBLEMS, by_taps, operands


def test_the_worked_example():
    """1-D convolution of claim 1, whose result is known."""
    problem = Problem((Axis(4, 3, 6, D=-1),))
    y = reference(problem, np.reshape([1, 0.5, 1, 1], (1, 1, 1, 4)), np.reshape([1, 0.5, 0.25], (1, 1, 1, 3)))
    assert y.ravel().tolist() == [1, 1, 1.5, 1.625, 0.75, 0.25]


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.complex128])
@pytest.mark.parametrize(
    "shapes", [((7,), (3,)), ((4, 5), (2, 3)), ((3, 4, 3), (2, 2, 3)), ((2, 3, 2, 2), (2, 1, 2, 2))]
)
def test_against_scipy(shapes, dtype, rng):
    x, h = (rng.integers(-9, 9, shape).astype(dtype) for shape in shapes)
    if dtype == np.complex128:
        x, h = x + 1j * rng.integers(-9, 9, shapes[0]), h - 1j * rng.integers(-9, 9, shapes[1])
    for flip, oracle in ((True, scipy.signal.convolve), (False, scipy.signal.correlate)):
        problem = Problem(mode_axes("test", *shapes, "full", flip))
        weights = h if flip else np.conj(h)
        y = reference(problem, x.reshape(problem.x_shape), weights.reshape(problem.w_shape))
        assert y.dtype == dtype
        np.testing.assert_array_equal(y[0, 0, 0], oracle(x, h, method="direct"))


def test_features_and_groups_by_einsum(rng):
    problem = Problem((Axis(5, 1, 5),), n=2, g=3, c=2, m=4)
    x, w = rng.integers(-9, 9, problem.x_shape), rng.integers(-9, 9, problem.w_shape)
    np.testing.assert_array_equal(reference(problem, x, w), np.einsum("ngci,gmc->ngmi", x, w[..., 0]))


def test_int64_wraps():
    problem = Problem((Axis(1, 1, 1),))
    big = np.full((1, 1, 1, 1), 2**62)
    assert reference(problem, big, np.full_like(big, 4)).item() == 0


def test_half_precision_is_widened():
    problem = Problem((Axis(2, 2, 1),))
    x = np.reshape([2048.0, 1.0], (1, 1, 1, 2)).astype(np.float16)
    assert reference(problem, x, np.ones_like(x)).item() == 2049


@pytest.mark.parametrize("name", [name for name, p in PROBLEMS.items() if p.dtypes.y == "float32"][::3])
def test_the_faster_oracle_of_the_large_problems_agrees(name):
    for of in PASSES.values():
        problem = of(PROBLEMS[name])
        x, w = operands(problem)
        np.testing.assert_allclose(by_taps(problem, x, w), reference(problem, x, w), rtol=1e-12, atol=1e-12)
