"""Three worked examples: which numbers meet in a convolution and in a correlation.

1. A convolution in one dimension, every term of every sum.
2. One output of a convolution in two dimensions: the kernel lies flipped on the image.
3. The same output under two ways to write correlation: the kernel lies unflipped, and
   where the patch's result is stored depends on the formula.

The terms are read from the relation (`Problem.meetings`), summed by hand here, and
compared with `jaxconv.convolve` and `jaxconv.correlate`. All numbers are integers or
dyadic fractions, so everything must be equal, not close.
"""

import os
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import typer
from rich.console import Console

import jaxconv
from jaxconv.padding import mode_axes
from jaxconv.problem import Axis, Problem
from jaxconv.reference import reference


def one_dimension(console: Console) -> None:
    console.print("## 1. Convolution, c[n] = sum over m of a[m] b[n-m]\n")
    a, b = np.array([1, 0.5, 1, 1]), np.array([1, 0.5, 0.25])
    console.print(f"a = {a.tolist()}, b = {b.tolist()}\n")
    problem = Problem(mode_axes("example", a.shape, b.shape, "full", flip=True))
    c = np.zeros(6)
    for n in range(6):
        terms = [(i[0], k[0]) for i, k, o in problem.meetings() if o == (n,)]
        c[n] = sum(a[i] * b[k] for i, k in terms)
        written = " + ".join(f"a[{i}] b[{k}]" for i, k in terms)
        values = " + ".join(f"{a[i]:g}*{b[k]:g}" for i, k in terms)
        console.print(f"    c[{n}] = {written} = {values} = {c[n]:g}")
    found = jaxconv.convolve(jnp.asarray(a), jnp.asarray(b))
    console.print(f"\n`jaxconv.convolve(a, b)` = {found.tolist()}\n")
    assert c.tolist() == found.tolist() == [1, 1, 1.5, 1.625, 0.75, 0.25]


def meetings_table(console: Console, problem: Problem, x, h, output: tuple[int, int]) -> int:
    """Print the terms of one output, in indices that count from the centres; return their sum."""
    total, written = 0, []
    for i, k, o in problem.meetings():
        if (o[0] - 3, o[1] - 3) == output:
            letter = "abcdefghi"[3 * k[0] + k[1]]
            total += int(x[i] * h[k])
            written.append(f"x[{i[0] - 3},{i[1] - 3}] {letter}[{k[0] - 1},{k[1] - 1}]")
    for row in range(0, 9, 3):
        console.print("      " + "   ".join(written[row : row + 3]))
    console.print(f"      sum = {total}\n")
    return total


def two_dimensions(console: Console) -> None:
    rng = np.random.default_rng(0)
    x, h = rng.integers(0, 10, (7, 7)), np.arange(1, 10).reshape(3, 3)
    console.print("## 2. Convolution in two dimensions, y[m,n] = sum of x[i,j] h[m-i, n-j]\n")
    console.print("A 7x7 image, indices -3..3, and the 3x3 kernel a b c / d e f / g h i, indices -1..1.\n")
    console.print("The terms of output [1,1]:\n")
    convolution = Problem(mode_axes("example", x.shape, h.shape, "same", flip=True))
    total = meetings_table(console, convolution, x, h, (1, 1))
    found = jaxconv.convolve(jnp.asarray(x), jnp.asarray(h), "same")
    assert total == int(found[4, 4])
    pairs = {(i, k) for i, k, o in convolution.meetings() if o == (4, 4)}
    assert ((3, 3), (2, 2)) in pairs  # pixel [0,0] meets i = kernel [1,1]
    assert ((5, 5), (0, 0)) in pairs  # pixel [2,2] meets a = kernel [-1,-1]
    assert {i for i, _ in pairs} == {(r, c) for r in (3, 4, 5) for c in (3, 4, 5)}
    console.print("Pixels 0..2 x 0..2; pixel [0,0] meets i, pixel [2,2] meets a: the kernel lies flipped.\n")

    console.print("## 3. Correlation, written in two ways\n")
    console.print("As y[m,n] = sum of x[i,j] h[m+i, n+j], the relation is i = -o + k. Output [-1,-1]:\n")
    reflected = Problem((Axis(I=7, K=3, O=7, S=-1, D=1, p=-5),) * 2)
    first = meetings_table(console, reflected, x, h, (-1, -1))
    console.print("As y[m,n] = sum of x[m+i, n+j] h[i,j], the relation is i = o + k. Output [1,1]:\n")
    usual = Problem(mode_axes("example", x.shape, h.shape, "same", flip=False))
    second = meetings_table(console, usual, x, h, (1, 1))
    assert first == second == int(jaxconv.correlate(jnp.asarray(x), jnp.asarray(h), "same")[4, 4])
    one, other = (reference(p, x.reshape(p.x_shape), h.reshape(p.w_shape))[0, 0, 0] for p in (reflected, usual))
    assert (one == other[::-1, ::-1]).all()
    assert (other == np.asarray(jaxconv.correlate(jnp.asarray(x), jnp.asarray(h), "same"))).all()
    console.print(
        "Both use the pixels 0..2 x 0..2 with the kernel unflipped, as the convolution used them flipped.\n"
        "The two formulas store the result at [-1,-1] and at [1,1]: their outputs are reflections of each other\n"
        "(all 49 values equal after turning one by 180 degrees). Only under the first formula is it true that the\n"
        "two operations use different pixels for the same output index; under the second they use the same ones."
    )


def main(out: Annotated[Path, typer.Option(help="The folder of the results.")] = Path("out")) -> None:
    """Print the worked examples with the terms of each sum, and write them to OUT/worked_examples.md."""
    console = Console(record=True, width=110, markup=False, highlight=False)
    console.print("# Worked examples\n")
    one_dimension(console)
    two_dimensions(console)
    out.mkdir(parents=True, exist_ok=True)
    (out / "worked_examples.md.part").write_text(console.export_text())
    os.replace(out / "worked_examples.md.part", out / "worked_examples.md")


if __name__ == "__main__":
    typer.run(main)
