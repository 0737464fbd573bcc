"""What the native library could save beside a layer: its weights' reorder, and the loop over its results.

oneDNN can add a bias and a residual and take the ReLU within a layer (post-ops), where XLA makes a loop of its own over
the layer's results; and weights that stay could be kept in its format. Draws layers with a seed and prints, for each
kind, how many times as long a call takes with what follows it, which is the most that post-ops could save, and what the
weights' reorder takes of it, by itself:

    .venv/bin/python scripts/fusion.py --seed 3 --count 8
"""

from functools import partial
from math import exp, log
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer
from bench import geometric_mean, machine, timed

from jaxconv.engines import native
from jaxconv.planner import Options
from jaxconv.primitive import contract
from jaxconv.problem import Axis, Problem, Triple

KINDS = ("dense", "pointwise", "depthwise")
NATIVE = Options("native", "native", "native")


def layer(kind: str, rng: np.random.Generator) -> Problem:
    """Features last, 'same', without strides, of ten to a thousand million products."""

    def drawn(low: int, high: int) -> int:
        return round(exp(rng.uniform(log(low), log(high))))

    while True:
        size, k = drawn(7, 112), 1 if kind == "pointwise" else int(rng.choice([3, 5, 7]))
        inputs, outputs = 8 * drawn(2, 64), 8 * drawn(2, 64)
        features = {"g": inputs} if kind == "depthwise" else {"c": inputs, "m": outputs}
        axes = (Axis(size, k, size, p=k // 2),) * 2
        problem = Problem(axes, n=drawn(1, 16), layouts=Triple("n01gc", "01cgm", "n01gm"), **features)
        if 1e7 < problem.products < 1e9:
            return problem


def ratios(problem: Problem) -> dict[str, float]:
    """How many times as long as the layer alone."""
    rng = np.random.default_rng(0)
    shapes = problem.x_shape, problem.w_shape, problem.y_shape[-2:], problem.y_shape
    x, w, b, r = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    y = partial(contract, problem, options=NATIVE)
    programs = {
        "alone": (y, (x, w)),
        "bias, ReLU": (lambda x, w, b: jax.nn.relu(y(x, w) + b), (x, w, b)),
        "bias, residual, ReLU": (lambda x, w, b, r: jax.nn.relu(y(x, w) + b + r), (x, w, b, r)),
        "the weights' reorder": (lambda x, w: native.ready(native._asked(problem)[1], x, w), (x, w)),
    }
    calls = {}
    for name, (f, arrays) in programs.items():
        compiled = jax.jit(f).lower(*arrays).compile()
        calls[name] = lambda compiled=compiled, arrays=arrays: jax.block_until_ready(compiled(*arrays))
        calls[name]()
    seconds = timed(calls, 5, 0.05)
    alone = seconds.pop("alone")
    return {name: time / alone for name, time in seconds.items()}


def main(
    seed: Annotated[int, typer.Option(help="of the layers")],
    count: Annotated[int, typer.Option(help="layers of each kind")] = 8,
) -> None:
    print(", ".join(f"{key} {value}" for key, value in (machine() | {"seed": seed, "layers a kind": count}).items()))
    for kind in KINDS:
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        found = [ratios(layer(kind, rng)) for _ in range(count)]
        for name in found[0]:
            times = [one[name] for one in found]
            print(
                f"{kind:10} {name:22} {geometric_mean(times):5.2f} times as long; {min(times):.2f} to {max(times):.2f}"
            )


if __name__ == "__main__":
    typer.run(main)
