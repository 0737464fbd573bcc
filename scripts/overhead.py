"""What jaxconv costs beside lax before any number is computed: import, eager call, trace, compilation.

Prints a Markdown table and writes it to out/overhead.md:

    .venv/bin/python scripts/overhead.py

Planning is the choice of an engine for one contraction, when it is lowered. Medians; the calls alternate
between jaxconv and lax, and every trace and compilation starts with empty caches. Nothing else should run
on the machine meanwhile.
"""

import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import typer
from problems import ROWS

import jaxconv
from jaxconv.engines.fft import fast_length
from jaxconv.engines.polyphase import units
from jaxconv.planner import Options, _candidates, choose

NHWC = ("NHWC", "HWIO", "NHWC")


def gradient(convolution, x, w, **arguments):
    """The layer's value and both its gradients."""

    def loss(x, w):
        return (convolution(x, w, **arguments) ** 2).sum()

    return jax.value_and_grad(loss, (0, 1))(x, w)


def shapes(*sizes):
    return [jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes]


PROBLEMS = {
    "image 1024x1024 * 7x7": (
        lambda f, x, w: f(x, w, window_strides=(1, 1), padding="SAME"),
        shapes((1, 1, 1024, 1024), (1, 1, 7, 7)),
    ),
    "signal 100000 * 1001": (
        lambda f, x, w: f(x, w, window_strides=(1,), padding="SAME"),
        shapes((1, 1, 100000), (1, 1, 1001)),
    ),
    "dense 3x3 64->64, gradients": (
        partial(gradient, window_strides=(1, 1), padding="SAME", dimension_numbers=NHWC),
        shapes((8, 56, 56, 64), (3, 3, 64, 64)),
    ),
    "depthwise 7x7 96, gradients": (
        partial(gradient, window_strides=(1, 1), padding="SAME", dimension_numbers=NHWC, feature_group_count=96),
        shapes((4, 56, 56, 96), (7, 7, 1, 96)),
    ),
    "transposed 3-D 32->16 stride 2, gradients": (
        partial(gradient, window_strides=(1,) * 3, padding=[(1, 2)] * 3, lhs_dilation=(2,) * 3),
        shapes((1, 32, 16, 16, 16), (16, 32, 3, 3, 3)),
    ),
}


def seconds(f, *args) -> float:
    start = time.perf_counter()
    f(*args)
    return time.perf_counter() - start


def imports(module: str) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def alternating(theirs, ours, rounds: int) -> tuple[float, float]:
    """The median of either, called in turns."""
    pairs = [(theirs(), ours()) for _ in range(rounds)]
    a, b = zip(*pairs, strict=True)
    return statistics.median(a), statistics.median(b)


def eager(f, calls: int = 300) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        f()
    return (time.perf_counter() - start) / calls


def trace_and_compile(problem, convolution, arrays) -> tuple[float, float]:
    jax.clear_caches()
    f = jax.jit(partial(problem, convolution))
    start = time.perf_counter()
    traced = f.trace(*arrays)
    middle = time.perf_counter()
    traced.lower().compile()
    return middle - start, time.perf_counter() - middle


def planning(problem) -> float:
    for cached in (fast_length, units, _candidates):
        cached.cache_clear()
    return seconds(choose, replace(problem), Options(), "cpu")


def main() -> None:
    """Measure, print a Markdown table, and write it to out/overhead.md."""
    rows = []
    imports("jaxconv")  # writes the bytecode
    theirs, ours = alternating(lambda: imports("jax, jax.numpy"), lambda: imports("jaxconv"), 7)
    rows.append(("import jax and jax.numpy / jaxconv", f"{theirs * 1e3:.0f} ms", f"{ours * 1e3:.0f} ms"))

    x, w, a, b = jnp.ones((1, 1, 16)), jnp.ones((1, 1, 3)), jnp.ones(16), jnp.ones(3)
    pairs = {
        "eager call, conv_general_dilated": (
            lambda: jax.lax.conv_general_dilated(x, w, (1,), "SAME"),
            lambda: jaxconv.lax.conv_general_dilated(x, w, (1,), "SAME"),
        ),
        "eager call, jnp.correlate / jaxconv.correlate": (
            lambda: jnp.correlate(a, b),
            lambda: jaxconv.correlate(a, b),
        ),
    }
    for name, (f, g) in pairs.items():
        f(), g()
        theirs, ours = alternating(partial(eager, f), partial(eager, g), 15)
        rows.append((name, f"{theirs * 1e6:.0f} us", f"{ours * 1e6:.0f} us"))

    plans = [statistics.median(planning(p) for _ in range(9)) for p in ROWS]
    rows.append(
        (f"planning, {len(ROWS)} contractions of the bench, median", "", f"{statistics.median(plans) * 1e3:.2f} ms")
    )
    rows.append(("planning, the longest of them", "", f"{max(plans) * 1e3:.2f} ms"))

    for name, (problem, arrays) in PROBLEMS.items():
        results = []
        for convolution in (jax.lax.conv_general_dilated, jaxconv.lax.conv_general_dilated):
            samples = [trace_and_compile(problem, convolution, arrays) for _ in range(4)][1:]
            results.append([statistics.median(s) for s in zip(*samples, strict=True)])
        (trace, compilation), (our_trace, our_compilation) = results
        rows.append((f"jaxpr, {name}", f"{trace * 1e3:.1f} ms", f"{our_trace * 1e3:.1f} ms"))
        rows.append((f"compile, {name}", f"{compilation * 1e3:.0f} ms", f"{our_compilation * 1e3:.0f} ms"))

    device = f"{jax.devices()[0].device_kind}, {platform.machine()}, Python {platform.python_version()}"
    lines = [f"{device}, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}", "", "| what | jax | jaxconv |"]
    lines += ["| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    text = "\n".join(lines) + "\n"
    print(text)
    Path("out").mkdir(exist_ok=True)
    part = Path("out/overhead.md.part")
    part.write_text(text)
    part.replace("out/overhead.md")


if __name__ == "__main__":
    typer.run(main)
