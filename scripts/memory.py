"""How much memory a long signal takes: 10^8 samples by 10^5 taps, by overlap-save.

    .venv/bin/python scripts/memory.py [SAMPLES] [TAPS]

Prints the memory of input and output, what XLA plans for the rest, the most that the process held, and the
time of the one call. A few outputs are checked against the plain sum.
"""

import platform
import resource
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import typer

import jaxconv


def main(samples: int = 10**8, taps: int = 10**5) -> None:
    """Convolve a signal of normal numbers, 'same', and print what it took."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(samples, np.float32))
    h = jnp.asarray(rng.standard_normal(taps, np.float32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    call = jax.jit(partial(jaxconv.convolve, mode="same")).lower(x, h).compile()
    start = time.perf_counter()
    y = jax.block_until_ready(call(x, h))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    worst = 0.0
    for o in rng.integers(taps, samples - taps, 20):
        window = np.asarray(x[o - taps // 2 : o - taps // 2 + taps], np.float64)[::-1]
        worst = max(worst, abs(float(y[o]) - float(window @ np.asarray(h, np.float64))))
    memory = call.memory_analysis()
    print(f"{jax.devices()[0].device_kind}, {platform.machine()}, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}")
    print(f"{samples:.0e} samples by {taps:.0e} taps, {seconds:.1f} s")
    print(f"input and output {(x.nbytes + h.nbytes + y.nbytes) / 1e9:.2f} GB, planned between them ", end="")
    print(f"{memory.temp_size_in_bytes / 1e9:.2f} GB")
    print(f"the process held {peak / 1e9:.2f} GB at most, {before / 1e9:.2f} GB of it before the call")
    print(f"greatest error of 20 outputs {worst:.2g}, of a standard deviation of {taps**0.5:.0f}")


if __name__ == "__main__":
    typer.run(main)
