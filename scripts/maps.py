"""What the maps of jaxconv.attribution cost, beside one forward and backward pass of the same net.

    ./scripts/bench maps

The net has four 3x3 layers with ReLU, two of them with max pooling; the batch is 32 images of 64x64x3. The pass is that
of training: the gradient of a cross-entropy in all parameters. Calls of all take turns over several rounds; a figure is
the 20 % quantile. `jitted` is the map within `jax.jit`, `called` the call as one writes it. Nothing else should run
meanwhile. Writes maps.md to OUT.
"""

import os
import platform
import re
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer
from jax import lax

from jaxconv.attribution import (
    deconvnet,
    grad_cam,
    grad_cam_plus_plus,
    guided_backprop,
    guided_grad_cam,
    hires_cam,
    input_x_gradient,
    layer_cam,
    saliency,
)
from jaxconv.lax import conv_general_dilated

METHODS = (
    grad_cam, grad_cam_plus_plus, layer_cam, hires_cam, saliency, input_x_gradient, deconvnet, guided_backprop,
    guided_grad_cam,
)  # fmt: skip
FEATURES = (3, 32, 64, 64, 128)


def scores(parameters: dict, x: jax.Array) -> jax.Array:
    for number, (kernel, bias) in enumerate(parameters["layers"]):
        x = conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias
        x = jax.nn.relu(x)
        if number < 2:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.mean((1, 2)) @ parameters["readout"]


def main(
    rounds: Annotated[int, typer.Option(help="how often all take turns", min=1)] = 12,
    batch: Annotated[int, typer.Option(help="images", min=1)] = 32,
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("out/bench"),
) -> None:
    """Measure, print, and write maps.md."""
    rng = np.random.default_rng(0)
    layers = [
        (jnp.asarray(rng.standard_normal((3, 3, a, b), np.float32) * (9 * a / 2) ** -0.5), jnp.zeros(b))
        for a, b in pairwise(FEATURES)
    ]
    parameters = {"layers": layers, "readout": jnp.asarray(rng.standard_normal((FEATURES[-1], 10), np.float32))}
    x = jnp.asarray(rng.standard_normal((batch, 64, 64, 3), np.float32))
    labels = jnp.asarray(rng.integers(0, 10, batch))
    net = partial(scores, parameters)

    @jax.jit
    def training(parameters, x, labels):
        def loss(parameters):
            return -jax.nn.log_softmax(scores(parameters, x))[jnp.arange(batch), labels].mean()

        return jax.value_and_grad(loss)(parameters)

    calls = {"forward and backward": partial(training, parameters, x, labels)}
    for method in METHODS:
        within = jax.jit(lambda parameters, x, labels, method=method: method(partial(scores, parameters), x, labels))
        calls[f"{method.__name__}, jitted"] = partial(within, parameters, x, labels)
        calls[f"{method.__name__}, called"] = partial(method, net, x, labels)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in calls.items():
            jax.block_until_ready(call())
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    seconds = {name: sorted(t)[int(0.2 * (len(t) - 1))] for name, t in times.items()}
    one = seconds["forward and backward"]
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    lines = [
        f"{jax.devices()[0].device_kind}, {cpu[1] if cpu else platform.processor()}, {len(os.sched_getaffinity(0))} "
        f"cores, {time.strftime('%Y-%m-%d')}, python {platform.python_version()}, jax {jax.__version__}; "
        f"`./scripts/bench maps --rounds {rounds} --batch {batch}`",
        "",
        f"One forward and backward pass: {1e3 * one:.1f} ms. Times that:",
        "",
        "| map | jitted | called |",
        "| --- | --- | --- |",
        *(
            f"| {m} | {seconds[f'{m}, jitted'] / one:.2f} | {seconds[f'{m}, called'] / one:.2f} |"
            for m in (method.__name__ for method in METHODS)
        ),
    ]
    print("\n".join(lines))
    out.mkdir(parents=True, exist_ok=True)
    (out / "maps.md.part").write_text("\n".join(lines) + "\n")
    (out / "maps.md.part").replace(out / "maps.md")


if __name__ == "__main__":
    typer.run(main)
