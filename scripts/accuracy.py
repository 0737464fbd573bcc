"""Measure the error of every engine over the bench's layers, and of the gradients of whole networks.

    .venv/bin/python scripts/accuracy.py            # both
    .venv/bin/python scripts/accuracy.py --seed 7   # other networks

The problems are those of tests/test_accuracy.py, in every pass and in three types; the truth is a sum in
float64. The networks are drawn with the seed: four to ten layers of 3x3 or 5x5, with ReLUs (of which the rounding may
flip some, each of which moves the gradient) or SiLUs, at each `accuracy`, beside lax in float32 and judged by float64.
accuracy.md and accuracy.png go to out/accuracy/, and from there to docs/.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple, get_args

import jax
import jax.numpy as jnp
import jaxlib
import matplotlib
import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
import jaxconv
from jaxconv.engines import ENGINES, Engine
from jaxconv.planner import Accuracy
from jaxconv.problem import Problem, Triple
from tests.problems import PASSES, by_taps, error_bound, operands
from tests.test_accuracy import ROWS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OUT = Path("out/accuracy")
DTYPES = ("float32", "bfloat16", "float16")


def errors(engine: Engine, problem: Problem, x, w, truth, total) -> tuple[float, float]:
    """(the error's norm over the result's, the greatest share of the bound that an element reaches)."""
    y = np.asarray(jax.jit(partial(engine.run, problem))(x, w), np.float64)
    error = np.abs(y - truth)
    share = error / error_bound(problem, [engine], x, w, lambda *_: total)
    return float(np.linalg.norm(error) / np.linalg.norm(truth)), float(share.max())


def of_engines() -> list[str]:
    """A table of the engines' errors."""
    found: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    for name, row in ROWS.items():
        for dtype in DTYPES:
            for which, of in PASSES.items():
                problem = replace(of(row), dtypes=Triple(dtype, dtype, dtype))
                x, w = operands(problem)
                truth, total = by_taps(problem, x, w), by_taps(problem, np.abs(x), np.abs(w))
                for engine in ENGINES.values():
                    if not engine.refusal(problem, jax.default_backend()):
                        one = errors(engine, problem, x, w, truth, total)
                        found.setdefault((engine.name, dtype), []).append((*one, f"{name}, {which}"))
    lines = [
        f"{about()}: {len(ROWS)} problems, three passes each.",
        "",
        "| engine | type | relative error, median | largest | where | largest share of the bound |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (engine, dtype), rows in sorted(found.items(), key=lambda item: DTYPES.index(item[0][1])):
        worst = max(rows)
        lines.append(
            f"| {engine} | {dtype} | {np.median([row[0] for row in rows]):.1e} | {worst[0]:.1e} | {worst[2]} "
            f"| {max(row[1] for row in rows):.2g} |"
        )
    return lines


def about() -> str:
    return f"jaxlib {jaxlib.__version__}, {jax.devices()[0].device_kind}, {time.strftime('%Y-%m-%d')}"


# ---- networks


class Network(NamedTuple):
    """Layers of one extent, each with its kernel, and an activation; the gradients of (output, dy) in all of them."""

    activation: str
    kernels: list[np.ndarray]
    x: np.ndarray
    dy: np.ndarray

    def run(self, convolution: Callable, dtype: str) -> tuple[list[np.ndarray], np.ndarray]:
        """(gradients by layer and in x, the signs of what is activated)."""

        def inner(kernels, x):
            signs = []
            for w in kernels:
                x = convolution(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
                signs.append((x > 0).ravel())
                x = getattr(jax.nn, self.activation)(x)
            return (x * jnp.asarray(self.dy, x.dtype)).sum(), jnp.concatenate(signs)

        with jax.enable_x64(dtype == "float64"):
            arrays = jax.tree.map(lambda a: jnp.asarray(a, dtype), (self.kernels, self.x))
            (of_kernels, of_x), signs = jax.jit(jax.grad(inner, (0, 1), has_aux=True))(*arrays)
            return [np.asarray(a, np.float64) for a in (*of_kernels, of_x)], np.asarray(signs)


def network(rng: np.random.Generator) -> Network:
    count, k, size = int(rng.integers(4, 11)), int(rng.choice([3, 3, 5])), round(np.exp(rng.uniform(*np.log([10, 40]))))
    channels = [int(rng.choice([3, 8, 16])), *np.exp(rng.uniform(np.log(12), np.log(200), count)).astype(int)]
    kernels = [rng.standard_normal((k, k, a, b)) * np.sqrt(2 / (k * k * a)) for a, b in pairwise(channels)]
    n = int(rng.integers(1, 5))
    x, dy = (rng.standard_normal((n, size, size, c)).astype(np.float32) for c in (channels[0], channels[-1]))
    return Network(str(rng.choice(["relu", "silu"])), [w.astype(np.float32) for w in kernels], x, dy)


def of_networks(seed: int, count: int) -> list[str]:
    """A table of the gradients' errors beside lax's: medians over the layers, and counted flips of signs."""
    rng, ratios = np.random.default_rng(seed), {accuracy: [] for accuracy in get_args(Accuracy)}
    lines = [
        f"{about()}: {count} networks drawn with seed {seed}; the median over layers of the gradient's error, over "
        "that of lax's, and how many units' signs differ from float64's.",
        "",
        f"| network | units | lax: error, flips | {' | '.join(f'{accuracy}, flips' for accuracy in ratios)} |",
        "| --- | --- | --- |" + " --- |" * len(ratios),
    ]
    for _ in range(count):
        net = network(rng)
        truth, signs = net.run(jax.lax.conv_general_dilated, "float64")
        found = {}
        for accuracy in (None, *ratios):
            f = (
                partial(jaxconv.lax.conv_general_dilated, accuracy=accuracy)
                if accuracy
                else jax.lax.conv_general_dilated
            )
            gradients, mine = net.run(f, "float32")
            off = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(gradients, truth, strict=True)]
            found[accuracy] = float(np.median(off)), int((mine != signs).sum())
        error, flips = found.pop(None)
        k = net.kernels[0].shape[0]
        for accuracy, (mine, flipped) in found.items():
            if net.activation == "silu" or flips == flipped == 0:
                ratios[accuracy].append(mine / error)
        cells = [f"{mine / error:.2f}, {flipped}" for mine, flipped in found.values()]
        name = f"{len(net.kernels)} layers {k}x{k} over {net.x.shape[0]} x {net.x.shape[1]}^2, {net.activation}"
        lines.append(f"| {name} | {signs.size:.1e} | {error:.1e}, {flips} | {' | '.join(cells)} |")
        jax.clear_caches()
    medians = [f"{np.median(r):.2f} ({max(r):.2f})" for r in ratios.values()]
    lines.append(f"| median (largest), without flips of ReLUs | | | {' | '.join(medians)} |")
    picture(ratios)
    return lines


def picture(ratios: dict[str, list[float]]) -> None:
    figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
    for place, values in enumerate(ratios.values()):
        axis.plot(values, np.full(len(values), place), "o", color="#0072b2", alpha=0.5)
        axis.plot(np.median(values), place, "|", color="black", markersize=22)
    axis.set_yticks(range(len(ratios)), list(ratios))
    axis.set_ylim(len(ratios) - 0.5, -0.5)
    axis.axvline(1, color="gray", linewidth=0.8)
    axis.axvline(3, color="#d55e00", linewidth=0.8, linestyle=":")
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.set_xticks([0.5, 1, 2, 3, 5], ["0.5", "1", "2", "3", "5"])
    axis.set_xlabel("error of a network's gradients, times lax's (one dot a network)")
    figure.savefig(OUT / "accuracy.png", dpi=110)


def main(
    seed: Annotated[int, typer.Option(help="of the networks")] = 0,
    networks: Annotated[int, typer.Option(help="how many")] = 16,
) -> None:
    """Measure, print, and write accuracy.md and accuracy.png."""
    OUT.mkdir(parents=True, exist_ok=True)
    text = "\n".join([*of_networks(seed, networks), "", *of_engines()]) + "\n"
    (OUT / "accuracy.md").write_text(text)
    print(text)


if __name__ == "__main__":
    typer.run(main)
