"""What lies between input and output is bounded: as XLA plans it, without running anything."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

import jaxconv
from jaxconv.engines import ENGINES
from jaxconv.padding import lax_axes, mode_axes
from jaxconv.planner import Options
from jaxconv.primitive import contract
from jaxconv.problem import Problem
from tests.problems import NHWC

FILTERS = [
    *[((n,), (m,)) for n, m in ((10**3, 31), (10**5, 31), (10**5, 1001), (10**6, 101), (10**6, 10001))],
    *[((n, n), (m, m)) for n, m in ((256, 3), (1024, 3), (1024, 7), (1024, 15), (1024, 31), (1024, 63), (2048, 7))],
    ((96,) * 3, (5,) * 3),
    ((777, 1300), (40, 9)),
]


def planned(f, *shapes):
    compiled = jax.jit(f).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes, memory.argument_size_in_bytes + memory.output_size_in_bytes


@pytest.mark.parametrize(("x", "h"), FILTERS, ids=str)
def test_a_filter_holds_at_most_four_times_its_input_and_output(x, h):
    between, arrays = planned(partial(jaxconv.convolve, mode="same"), x, h)
    assert between <= 4 * arrays


def test_a_hundred_million_samples_by_a_hundred_thousand_taps_are_planned_under_three_gigabytes():
    between, arrays = planned(partial(jaxconv.convolve, mode="same"), (10**8,), (10**5,))
    assert between + arrays < 3e9


LAYERS = {
    "dense": Problem(lax_axes("test", [56, 56], [3, 3], [1, 1], "SAME"), n=8, c=64, m=64, layouts=NHWC),
    "depthwise": Problem(lax_axes("test", [56, 56], [7, 7], [1, 1], "SAME"), n=4, g=96, layouts=NHWC),
    "signal": Problem(mode_axes("test", [10**6], [1001], "same", True)),
    "image": Problem(mode_axes("test", [1024, 1024], [15, 15], "same", True)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", LAYERS)
def test_an_engine_holds_about_what_it_says(name, engine):
    """No more than three times its estimate (and a megabyte): XLA's plan is not its business, the order is."""
    for problem in (LAYERS[name], LAYERS[name].kernel_pass):
        if ENGINES[engine].refusal(problem, "cpu"):
            continue
        between, _ = planned(
            partial(contract, problem, options=Options(forward=engine)), problem.x_shape, problem.w_shape
        )
        assert between <= 3 * ENGINES[engine].memory(problem) + 1e6
