"""A photograph smoothed, its edges, and a gradient that flows back into its pixels.

The kernels are the customary ones: the 5x5 Gaussian over 273, Sobel's pair. With
g = correlate(x, sobel) along both axes, the energy E(x) = 1/2 * sum g0^2 + g1^2 has the
gradient dE/dx = convolve(g0, sobel0) + convolve(g1, sobel1), by the theorem; `jax.grad`
finds the same map.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import typer
from rich.console import Console

import jaxconv

GAUSSIAN = (
    np.array([[1, 4, 7, 4, 1], [4, 16, 26, 16, 4], [7, 26, 41, 26, 7], [4, 16, 26, 16, 4], [1, 4, 7, 4, 1]], np.float32)
    / 273
)
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 8
PHOTOGRAPHS = ("camera", "coins", "moon", "page", "text", "brick", "grass", "gravel")


def edges(x):
    """Sobel's derivatives, down and across, the border mirrored."""
    return [jaxconv.correlate(x, kernel, "same", boundary="reflect") for kernel in (SOBEL.T, SOBEL)]


def main(
    name: Annotated[str, typer.Option(help=f"One of {', '.join(PHOTOGRAPHS)}.")] = "camera",
    passes: Annotated[int, typer.Option(help="How often to smooth.", min=1)] = 3,
    method: Annotated[Literal["auto", "direct", "shifts", "fft"], typer.Option(help="The engine.")] = "auto",
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = Path("out"),
) -> None:
    """Smooth a photograph and draw its gradient maps into OUT/photograph.png."""
    if name not in PHOTOGRAPHS:
        raise typer.BadParameter(f"--name {name}: choose one of {', '.join(PHOTOGRAPHS)}")
    out.mkdir(parents=True, exist_ok=True)
    console = Console(record=True, width=110, markup=False, highlight=False)
    x = jnp.asarray(getattr(skimage.data, name)(), jnp.float32) / 255
    smooth = x
    for _ in range(passes):
        smooth = jaxconv.convolve(smooth, GAUSSIAN, "same", method, boundary="reflect")
    down, across = edges(x)

    def energy(x):
        down, across = edges(x)
        return 0.5 * (down**2 + across**2).sum()

    gradient = jax.jit(jax.grad(energy))(x)
    # The theorem away from the border, where no pixel is mirrored.
    inside = (slice(2, -2), slice(2, -2))
    by_hand = jaxconv.convolve(down, SOBEL.T, "same") + jaxconv.convolve(across, SOBEL, "same")
    difference = float(jnp.abs(gradient - by_hand)[inside].max())
    roughness = [float((jnp.hypot(*edges(a))).mean()) for a in (x, smooth)]

    console.print(f"# The photograph `{name}`, {x.shape[0]}x{x.shape[1]}\n")
    console.print(f"Mean edge strength before and after {passes} smoothings: {roughness[0]:.4f}, {roughness[1]:.4f}.")
    console.print(f"Energy gradient by autodiff against the convolution of the edges: at most {difference:.1e} apart.")
    console.print("\n![photograph](photograph.png)")

    panels = [
        (x, "photograph", "gray"),
        (smooth, f"smoothed {passes} times", "gray"),
        (jnp.hypot(down, across), "edge strength", "gray"),
        (down, "derivative down", "RdBu"),
        (across, "derivative across", "RdBu"),
        (gradient, "gradient of the edge energy", "RdBu"),
    ]
    figure, frames = plt.subplots(2, 3, figsize=(12, 8.4), layout="constrained")
    for frame, (image, title, colours) in zip(frames.flat, panels, strict=True):
        span = float(jnp.quantile(jnp.abs(image), 0.995))
        low = -span if colours == "RdBu" else 0
        frame.imshow(image, cmap=colours, vmin=low, vmax=1 if title in ("photograph", panels[1][1]) else span)
        frame.set_title(title)
        frame.axis("off")
    figure.savefig(out / "photograph.png.part", dpi=100, format="png")
    os.replace(out / "photograph.png.part", out / "photograph.png")
    (out / "photograph.md.part").write_text(console.export_text())
    os.replace(out / "photograph.md.part", out / "photograph.md")


if __name__ == "__main__":
    typer.run(main)
