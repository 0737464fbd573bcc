"""Measure the error of every engine over the bench's layers, and print it beside the bound.

    .venv/bin/python scripts/accuracy.py

The problems are those of tests/test_accuracy.py, in every pass and in three types; the truth is a sum in
float64. The table goes to out/accuracy/accuracy.md, and from there to docs/accuracy.md.
"""

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jaxlib
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from jaxconv.engines import INSTALLED, Engine
from jaxconv.problem import Problem, Triple
from tests.problems import PASSES, by_taps, error_bound, operands
from tests.test_accuracy import ROWS

OUT = Path("out/accuracy/accuracy.md")
DTYPES = ("float32", "bfloat16", "float16")


def errors(engine: Engine, problem: Problem, x, w, truth, total) -> tuple[float, float]:
    """(the error's norm over the result's, the greatest share of the bound that an element reaches)."""
    y = np.asarray(jax.jit(partial(engine.run, problem))(x, w), np.float64)
    error = np.abs(y - truth)
    share = error / error_bound(problem, [engine], x, w, lambda *_: total)
    return float(np.linalg.norm(error) / np.linalg.norm(truth)), float(share.max())


def main() -> None:
    found: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    for name, row in ROWS.items():
        for dtype in DTYPES:
            for which, of in PASSES.items():
                problem = replace(of(row), dtypes=Triple(dtype, dtype, dtype))
                x, w = operands(problem)
                truth, total = by_taps(problem, x, w), by_taps(problem, np.abs(x), np.abs(w))
                for engine in INSTALLED.values():
                    if not engine.refusal(problem, jax.default_backend()):
                        one = errors(engine, problem, x, w, truth, total)
                        found.setdefault((engine.name, dtype), []).append((*one, f"{name}, {which}"))
    lines = [
        f"jaxlib {jaxlib.__version__}, {jax.devices()[0].device_kind}, {time.strftime('%Y-%m-%d')}: {len(ROWS)} "
        "problems, three passes each.",
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
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(lines) + "\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
