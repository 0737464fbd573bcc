"""Stays: the files that a call goes through, from the door to the primitive.

A stay is a run of calls into one file. The fewer, the less a reader turns pages. Prints a Markdown table and writes it
to docs/inside/stays.md:

    .venv/bin/python scripts/stays.py

The call is a first one, with empty caches. problem.py, the vocabulary, is left out, and so is what is not jaxconv's. A
kernel whose values are known goes through separable.py and, if it is a sum of outer products, the planner besides.
"""

import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import jax
import jax.numpy as jnp
import typer
from flax import nnx

import jaxconv
from jaxconv import lax, layers, primitive, signal

ROOT = Path(jaxconv.__file__).parent
OUT = Path("docs/inside/stays.md")


def stays(call: Callable[[], object]) -> list[str]:
    """The files between the call and the primitive's `bind`, each run of one told once."""
    files, reached = [], False

    def watch(frame, event, _):
        nonlocal reached
        path = Path(frame.f_code.co_filename)
        named = not frame.f_code.co_name.startswith("<")  # a comprehension is where it stands
        if event == "call" and named and not reached and ROOT in path.parents and path.name != "problem.py":
            files.append(str(path.relative_to(ROOT)))
            reached = frame.f_code is primitive.contract.__code__

    jax.clear_caches()
    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    assert reached, "the call contracts nothing"
    return [file for file, _ in groupby(files)]


def calls() -> dict[str, Callable[[], object]]:
    x, h, image, kernel = jnp.ones(16), jnp.ones(3), jnp.ones((16, 16)), jnp.ones((3, 3))
    lhs, rhs = jnp.ones((1, 1, 16)), jnp.ones((1, 1, 3))
    layer = layers.Correlate(1, 1, 3, rngs=nnx.Rngs(0))
    return {
        "`jaxconv.convolve(x, h)`": lambda: jaxconv.convolve(x, h),
        "`lax.conv_general_dilated(x, w, (1,), 'SAME')`": lambda: lax.conv_general_dilated(lhs, rhs, (1,), "SAME"),
        "`lax.conv_transpose(x, w, (2,), 'SAME')`": lambda: lax.conv_transpose(
            lhs, rhs, (2,), "SAME", dimension_numbers=("NCH", "OIH", "NCH")
        ),
        "`signal.upfirdn(h, x, 2, 3)`": lambda: signal.upfirdn(h, x, 2, 3),
        "`signal.convolve2d(image, kernel)`": lambda: signal.convolve2d(image, kernel),
        "`layers.Correlate(1, 1, 3)(x)`": lambda: layer(jnp.ones((1, 16, 1))),
    }


def main() -> None:
    """Count, print a Markdown table, and write it to docs/inside/stays.md."""
    found = {name: stays(call) for name, call in calls().items()}
    lines = ["# Stays", "", *(__doc__ or "").strip().splitlines()[2:], ""]
    lines += ["| call | stays | files |", "| --- | --- | --- |"]
    lines += [f"| {name} | {len(files)} | {', '.join(files)} |" for name, files in found.items()]
    text = "\n".join(lines) + "\n"
    print(text)
    OUT.write_text(text)


if __name__ == "__main__":
    typer.run(main)
