"""Rule on every claim."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from research.claims import networks, photographs, sums  # noqa: F401  (they state the claims)
from research.claims.ledger import CLAIMS, ledger, rulings


def main(
    only: Annotated[list[int] | None, typer.Option(help="a claim's number; repeatable; all by default")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the ledger and its figures.")] = Path("out"),
) -> None:
    """Rule on every claim; write OUT/claims.md and its figures; exit with 1 if a ruling does not stand."""
    if unknown := [number for number in only or () if number not in CLAIMS]:
        raise typer.BadParameter(f"--only {unknown[0]}: the claims are numbered 1 to {len(CLAIMS)}")
    out.mkdir(parents=True, exist_ok=True)
    numbers = sorted(set(only or CLAIMS))
    bar = track(rulings(numbers, out), "claims", len(numbers), console=Console(stderr=True), transient=True)
    console, found = Console(width=110, highlight=False), []
    for ruling in bar:
        found.append(ruling)
        console.print(f"{ruling[0]:>3}  {ruling[2]}", markup=False)
    (out / "claims.md.part").write_text(ledger(found), encoding="utf-8")
    os.replace(out / "claims.md.part", out / "claims.md")
    standing = sum(stands for _, stands, *_ in found)
    console.print(f"{standing} of {len(found)} rulings stand: {out / 'claims.md'}", markup=False)
    raise typer.Exit(standing < len(found))


if __name__ == "__main__":
    typer.run(main)
