"""The theorem, by automatic differentiation, on a photograph.

Let y = correlate(x, h), a number L(y) and r = dL/dy. Then

    dL/dx = convolve(r, h)          the gradient in the input is the convolution
    dL/dh = correlate(x, r)         the gradient in the kernel is the correlation with r

Both sides are computed: the left by `jax.grad` and `jax.vmap`, with every engine; the
right by SciPy in float64. Then the dot test, <A x, y> = <x, A' y>, with the adjoint A' as
JAX derives it. Differences are counted in units in the last place (ulps) of the sum of
the absolute values of an element's terms. They must stay below a stated limit, 16 ulps by
default (four times that for engines whose error is bounded by norms only: Winograd's
interpolation loses up to two bits more), and below the bound that follows from the engine's own error analysis
(`Engine.error`), which is a worst case over all inputs.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
import skimage.data
import typer
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

import jaxconv
from jaxconv.engines import ENGINES
from jaxconv.padding import mode_axes
from jaxconv.problem import Problem

NORMWISE = ("winograd", "fft", "overlap")
DTYPES = ("float32", "float64")


def norm(a) -> float:
    return float(np.linalg.norm(np.asarray(a, np.float64).ravel()))


def ulps(found, right, size, dtype) -> float:
    """The largest difference, in units in the last place of `size`."""
    eps = float(jnp.finfo(dtype).eps)
    return float(np.max(np.abs(np.asarray(found, np.float64) - right) / (eps * size)))


def derived(problem: Problem, engine, size, norms) -> float:
    """The engine's bound in the same units: u*(a*size + b*norms), u half an ulp."""
    a, b = engine.error(problem)
    return float(np.max((a * size + b * norms) / (2 * size)))


def remembered(f: Callable) -> Callable:
    """f of arrays, computed once for the same values: all engines are judged by the same sums."""
    known: dict[tuple, Any] = {}

    def call(*arguments):
        key = tuple(a.tobytes() if isinstance(a, np.ndarray) else a for a in arguments)
        if key not in known:
            known[key] = f(*arguments)
        return known[key]

    return call


@remembered
def convolution(r, h):
    """(the convolution of r with h, that of their moduli)."""
    return tuple(scipy.signal.convolve(*pair, "same", method="direct") for pair in ((r, h), (np.abs(r), np.abs(h))))


@remembered
def lags(x, r, shape):
    """(the lags -c .. c of the correlation of x with r, those of their moduli)."""
    padded = np.pad(x, [(size // 2, size - 1 - size // 2) for size in shape])
    windows = np.lib.stride_tricks.sliding_window_view(padded, r.shape)
    return tuple(np.einsum("klij,ij->kl", *pair) for pair in ((windows, r), (np.abs(windows), np.abs(r))))


def judge(x, h, r, dtype: str, engine) -> list[tuple[str, float, float]]:
    """(statement, difference in ulps, bound in ulps) for one engine and dtype."""
    X, H, R = (jnp.asarray(a, dtype) for a in (x, h, r))
    x, h, r = (np.asarray(a, np.float64) for a in (X, H, R))  # as rounded to dtype
    layer = Problem(mode_axes("adjoint", x.shape, h.shape, "same", flip=False))

    def loss(x, h, r):
        y = jaxconv.correlate(x, h, "same", engine.name)
        return jnp.vdot(y, r), y

    def in_input(dx, r) -> tuple[float, float]:
        right, size = convolution(r, h)
        return ulps(dx, right, size, dtype), derived(layer.input_pass, engine, size, norm(r) * norm(h))

    def in_kernel(dh, x, r) -> tuple[float, float]:
        right, size = lags(x, r, h.shape)
        return ulps(dh, right, size, dtype), derived(layer.kernel_pass, engine, size, norm(x) * norm(r))

    gradients = jax.grad(loss, (0, 1), has_aux=True)
    (dx, dh), y = jax.jit(gradients)(X, H, R)
    rows = [("dL/dx = convolve(r, h)", *in_input(dx, r)), ("dL/dh = correlate(x, r)", *in_kernel(dh, x, r))]

    # The same for each of four photographs and four r at once.
    Xs, Rs = jnp.stack([X, X[::-1], X[:, ::-1], X.T]), jnp.stack([R, 2 * R, R.T, R[::-1]])
    (dxs, dhs), _ = jax.jit(jax.vmap(gradients, (0, None, 0)))(Xs, H, Rs)
    xs, rs = np.asarray(Xs, np.float64), np.asarray(Rs, np.float64)
    each = [in_input(*pair) for pair in zip(dxs, rs, strict=True)]
    rows.append(("dL/dx of each of a batch, by vmap", *max(each, key=lambda pair: pair[0] / pair[1])))
    each = [in_kernel(*triple) for triple in zip(dhs, xs, rs, strict=True)]
    rows.append(("dL/dh of each of a batch, by vmap", *max(each, key=lambda pair: pair[0] / pair[1])))

    # The dot test: dL/dx is A' r. Both inner products are summed in float64 from what the engine computed.
    left = np.vdot(np.asarray(y, np.float64), r)
    right = np.vdot(x, np.asarray(dx, np.float64))
    total = np.vdot(scipy.signal.correlate(np.abs(x), np.abs(h), "same", method="fft"), np.abs(r))
    (a, b), (a_t, b_t) = engine.error(layer), engine.error(layer.input_pass)
    sums = np.abs(r).sum() * norm(x) * norm(h), np.abs(x).sum() * norm(r) * norm(h)
    bound = ((a + a_t) * total + b * sums[0] + b_t * sums[1]) / (2 * total)
    rows.append(("<A x, r> = <x, A' r>", ulps(left, right, total, dtype), float(bound)))
    return rows


def main(
    size: Annotated[int, typer.Option(help="Side of the photograph's central part, at most 512.")] = 512,
    kernel: Annotated[int, typer.Option(help="Side of the kernel, odd.")] = 7,
    limit: Annotated[float, typer.Option(help="The ulps that no difference may exceed.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the kernel and of r.")] = 0,
    quick: Annotated[bool, typer.Option(help="In float32 alone.")] = False,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = Path("out"),
) -> None:
    """Certify the theorem with every engine in float32 and float64; write OUT/adjoint.md."""
    if kernel % 2 == 0 or not 0 < kernel <= size <= 512:
        raise typer.BadParameter("--kernel must be odd, and 0 < kernel <= size <= 512 (the photograph's side)")
    out.mkdir(parents=True, exist_ok=True)
    console = Console(record=True, width=110, markup=False, highlight=False)
    console.print("# The gradient of correlation is convolution\n")
    console.print(f"skimage's `camera`, central {size}x{size} pixels; kernel {kernel}x{kernel} and r normal.")
    console.print(
        f"It holds where the difference is at most {limit:g} ulps ({4 * limit:g} for engines that are bounded by "
        "norms), and within the derived bound.\n"
    )
    low = (512 - size) // 2
    x = skimage.data.camera()[low : low + size, low : low + size] / 255.0
    rng = np.random.default_rng(seed)
    h, r = rng.normal(size=(kernel, kernel)), rng.normal(size=x.shape)

    table = Table("statement", "engine", "dtype", "difference / ulp", "bound / ulp", "verdict", box=MARKDOWN)
    failures = 0
    able = [engine for engine in ENGINES.values() if engine.name != "native"]  # its loops are over many features
    cases = [(dtype, engine) for dtype in DTYPES[: 1 if quick else 2] for engine in able]
    for dtype, engine in track(cases, "engines", console=Console(stderr=True), transient=True):
        with jax.enable_x64(dtype == "float64"):
            for statement, difference, bound in judge(x, h, r, dtype, engine):
                holds = difference <= min(limit * (4 if engine.name in NORMWISE else 1), bound)
                failures += not holds
                verdict = "holds" if holds else "FAILS"
                table.add_row(statement, engine.name, dtype, f"{difference:.2f}", f"{bound:.3g}", verdict)
    console.print(table)

    jaxpr = jax.make_jaxpr(jax.grad(lambda x: jaxconv.correlate(x, jnp.ones((3, 3)), "same").sum()))(jnp.ones((4, 4)))
    signs = [e.params["problem"].axes[0].D for e in jaxpr.jaxpr.eqns if e.primitive.name == "contract"]
    console.print(f"In the jaxpr of the gradient, D of the layer and of its input pass: {signs}. D > 0 is correlation,")
    console.print("D < 0 is convolution.")
    (out / "adjoint.md.part").write_text(console.export_text())
    os.replace(out / "adjoint.md.part", out / "adjoint.md")
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
