"""Time a layer alone and inside a fori_loop, by jaxconv and by lax (jax-ml/jax issue 12868).

    .venv/bin/python scripts/loops.py

Prints a Markdown table and writes it to out/loops.md. A loop runs a layer eight times, each on the last
one's result; its time is divided by eight. Medians, taken in turns. Nothing else should run meanwhile.
"""

import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import typer

import jaxconv

NHWC, NCW = ("NHWC", "HWIO", "NHWC"), ("NCH", "OIH", "NCH")
TIMES, ROUNDS = 8, 15
LAYERS = {
    "1 wide, 500 -> 500 over 512, NCW": ((1, 500, 512), (500, 500, 1), dict(dimension_numbers=NCW)),
    "dense 3x3, 64 -> 64, 8x56x56, NHWC": ((8, 56, 56, 64), (3, 3, 64, 64), dict(dimension_numbers=NHWC)),
    "depthwise 7x7, 96, 4x56x56, NHWC": (
        (4, 56, 56, 96),
        (7, 7, 1, 96),
        dict(dimension_numbers=NHWC, feature_group_count=96),
    ),
    "image 1024x1024 * 7x7": ((1, 1, 1024, 1024), (1, 1, 7, 7), {}),
}


def seconds(call, *args) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call(*args))
    return time.perf_counter() - start


def measured(convolution, x, w, arguments) -> list:
    """The compiled layer, and the compiled loop over it."""

    def layer(x, w):
        return convolution(x, w, window_strides=(1,) * (x.ndim - 2), padding="SAME", **arguments)

    def loop(x, w):
        return jax.lax.fori_loop(0, TIMES, lambda _, x: layer(x, w), x)

    return [jax.jit(f).lower(x, w).compile() for f in (layer, loop)]


def main() -> None:
    """Measure, print a Markdown table, and write it to out/loops.md."""
    rng = np.random.default_rng(0)
    rows = []
    for name, (x_shape, w_shape, arguments) in LAYERS.items():
        x = jnp.asarray(rng.standard_normal(x_shape, np.float32))
        w = jnp.asarray(rng.standard_normal(w_shape, np.float32) / np.sqrt(np.prod(w_shape[1:])))
        libraries = jax.lax.conv_general_dilated, jaxconv.lax.conv_general_dilated
        calls = [call for library in libraries for call in measured(library, x, w, arguments)]
        for call in calls:
            seconds(call, x, w)
        times = [[seconds(call, x, w) for call in calls] for _ in range(ROUNDS)]
        found = [statistics.median(t) / each for t, each in zip(zip(*times, strict=True), (1, TIMES) * 2, strict=True)]
        rows.append((name, *(f"{t * 1e3:.2f} ms" for t in found)))
    device = f"{jax.devices()[0].device_kind}, {platform.machine()}, Python {platform.python_version()}"
    text = "\n".join(
        [
            f"{device}, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}",
            "",
            "| layer | lax alone | lax in a loop | jaxconv alone | jaxconv in a loop |",
            "| --- | --- | --- | --- | --- |",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    )
    print(text)
    Path("out").mkdir(exist_ok=True)
    Path("out/loops.md").write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
