"""A probe is sought in a photograph: what the raw correlation and the normalised one find.

The raw correlation sum x*t grows with the brightness of x, so a bright patch without any
structure beats the very place that the probe was cut from. The zero-normalised one compares
shapes: it is 1 there, and nowhere else.
"""

import os
from pathlib import Path
from typing import Annotated, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import typer
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.table import Table

from jaxconv.matching import find_matches, match_template


class Probe(NamedTuple):
    """Where in a photograph a probe is cut, and how large."""

    photograph: str
    place: tuple[int, int]
    size: tuple[int, int]


PROBES = {
    "a coin": Probe("coins", (170, 75), (50, 50)),
    "a letter of a page": Probe("page", (69, 104), (12, 9)),
    "a letter in ink": Probe("text", (56, 172), (20, 48)),
}


def main(
    patch: Annotated[int, typer.Option(help="The side of the bright patch, in pixels.", min=1, max=120)] = 60,
    count: Annotated[int, typer.Option(help="How many matches to draw.", min=1)] = 6,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = Path("out"),
) -> None:
    """Seek each probe in its photograph, a bright patch added, and draw OUT/probes.png."""
    out.mkdir(parents=True, exist_ok=True)
    console = Console(record=True, width=110, markup=False, highlight=False)
    figure, frames = plt.subplots(len(PROBES), 4, figsize=(13, 3.1 * len(PROBES)), layout="constrained")
    table = Table("probe", "cut at", "raw finds", "normalised finds", "its score", "second best")
    right = True
    for (name, probe), row in zip(PROBES.items(), frames, strict=True):
        image = getattr(skimage.data, probe.photograph)().astype(np.float32)
        (i, j), (h, w) = probe.place, probe.size
        template = image[i : i + h, j : j + w].copy()
        image[-patch:, -patch:] = 255
        raw = match_template(image, template, measure="ccorr")
        normalised = match_template(image, template)
        by_raw = find_matches(raw)
        found = find_matches(normalised, count, min_distance=(h // 2, w // 2))
        right &= found.positions[0].tolist() == [i, j] and by_raw.positions[0].tolist() != [i, j]
        table.add_row(
            name,
            f"{i}, {j}",
            "{}, {}".format(*by_raw.positions[0].tolist()),
            "{}, {}".format(*found.positions[0].tolist()),
            f"{float(found.scores[0]):.4f}",
            f"{float(found.scores[1]):.4f}" if count > 1 else "",
        )
        row[0].imshow(template, cmap="gray")
        row[0].set_title(name)
        row[1].imshow(image, cmap="gray")
        row[1].set_title(f"the first {count} of {probe.photograph}")
        for n, (a, b) in enumerate(found.positions.tolist()):
            colour = "tab:green" if n == 0 else "tab:orange"
            row[1].add_patch(Rectangle((b, a), w, h, fill=False, edgecolor=colour))
        row[2].imshow(raw, cmap="gray")
        row[2].set_title("raw correlation")
        row[3].imshow(normalised, cmap="RdBu", vmin=-1, vmax=1)
        row[3].set_title("normalised")
        for frame, response in ((row[2], by_raw), (row[3], found)):
            a, b = response.positions[0].tolist()
            frame.plot(b, a, "o", markerfacecolor="none", markeredgecolor="tab:green", markersize=10)
        for frame in row:
            frame.axis("off")

    console.print(f"# Probes in photographs with a bright patch of {patch}x{patch}\n")
    console.print(table)
    holds = "holds" if right else "FAILS"
    console.print(f"\nThe normalised correlation finds each probe where it was cut, the raw one elsewhere: {holds}.")
    console.print("\n![probes](probes.png)")
    figure.savefig(out / "probes.png.part", dpi=90, format="png")
    os.replace(out / "probes.png.part", out / "probes.png")
    (out / "probes.md.part").write_text(console.export_text())
    os.replace(out / "probes.md.part", out / "probes.md")
    raise typer.Exit(0 if right else 1)


if __name__ == "__main__":
    typer.run(main)
