"""The ledger: what a claim is, what its ruling rests on, and how all of them are written down."""

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path

import jax
import jaxlib.version
import matplotlib.pyplot as plt
import numpy as np

HOLDS, CONVENTION, WRONG = "holds", "holds under a convention", "wrong as stated"
CLAIMS: dict[int, tuple[str, Callable[[Path], list[str]]]] = {}


def claim(number: int, verdict: str):
    """A claim, its docstring, and the ruling on it, which stands if every `check` does."""

    def add(f: Callable[[Path], list[str]]) -> Callable:
        CLAIMS[number] = verdict, f
        return f

    return add


class CheckFailed(Exception):
    """What a ruling rests on is not so."""


def check(statement: str, holds) -> None:
    """What must be true for the ruling."""
    if not bool(holds):
        raise CheckFailed(statement)


def same(a, b) -> bool:
    """Equal to the last bit, shapes too."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and bool((a == b).all())


def table(head: str, *rows: tuple) -> str:
    """A table in Markdown; the columns of its head stand between bars."""
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def grid(a) -> str:
    """A small matrix in one line."""
    return " / ".join(" ".join(map(str, row)) for row in np.asarray(a).tolist())


def save(figure, path: Path) -> None:
    """A figure as PNG, whole or not at all."""
    part = path.with_suffix(".png.part")
    figure.savefig(part, dpi=80, format="png", metadata={"Software": None})
    plt.close(figure)
    os.replace(part, path)


def rulings(numbers: Iterable[int], out: Path) -> Iterator[tuple[int, bool, str, str, list[str]]]:
    """(number, whether it stands, ruling, claim, evidence) of each; figures go to `out`."""
    for number in numbers:
        verdict, f = CLAIMS[number]
        statement = " ".join((f.__doc__ or "").split())
        try:
            yield number, True, verdict, statement, f(out)
        except CheckFailed as e:
            yield number, False, f"DOES NOT STAND: {verdict}", statement, [f"This failed: {e}."]


def device() -> str:
    """What the figures of a run depend on: processor, versions, date."""
    cpuinfo = Path("/proc/cpuinfo")  # elsewhere platform knows
    names = re.findall(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else []
    processor = names[0] if names else platform.processor() or platform.machine()
    versions = f"Python {platform.python_version()}, jax {jax.__version__}, jaxlib {jaxlib.version.__version__}"
    return f"{jax.devices()[0].platform}, {processor}, {os.cpu_count()} cores, {versions}, {date.today()}"


def ledger(found: list[tuple[int, bool, str, str, list[str]]]) -> str:
    """All rulings in Markdown."""
    rows = [(f"[{number}](#claim-{number})", verdict, statement) for number, _, verdict, statement, _ in found]
    head = [
        "# The claims, one by one",
        "What the texts say of convolution and correlation, and what is true of it. Written by "
        "[research/claims](../research/claims/ledger.py), whose checks stand behind every ruling; * is convolution, ⋆ "
        "correlation.",
        f"{device()}: `python -m research.claims --out docs`. The rulings hold on every processor; figures of rounding "
        "and of trained networks vary with processor and versions.",
        table("claim | ruling | statement", *rows),
    ]
    parts = [
        "\n\n".join([f"## Claim {number}", f"“{statement}”", f"**{verdict[0].upper() + verdict[1:]}.**", *evidence])
        for number, _, verdict, statement, evidence in found
    ]
    return "\n\n".join([*head, *parts]) + "\n"
