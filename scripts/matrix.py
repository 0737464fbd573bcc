"""Run a core of the suite, and the demo, on what this machine can stand for; print the table.

    ./scripts/matrix                     all rows, the demo too; writes docs/machines.md row by row
    ./scripts/matrix --quick             a part in two minutes: fewer rows, a smaller core, no demo
    ./scripts/matrix --row SSE4.2        one row; repeatable

A row is an environment: the instruction set that XLA compiles for, how many cores and devices there are, a mode of
JAX, a Python with its jax. Logs are in out/matrix. The exit status is 1 where anything failed.
"""

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import typer
from rich.console import Console

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "out" / "matrix"
PAGE = ROOT / "docs" / "machines.md"
# The core: every public name, every engine, and the values of the sums.
CORE = [
    *("test_surface", "test_literal", "test_engines", "test_lax", "test_signal", "test_ndimage", "test_integers"),
    *("test_batched", "test_separable", "test_flax", "test_native"),
]
QUICK = ["test_signal", "test_ndimage", "test_flax", "test_native"]
PYTHONS = {"3.11": "0.10.2", "3.12": "0.12.0.1", "3.13": "0.12.0.1", "3.12, accelerator machine's": "0.11.2"}


class Row(NamedTuple):
    """What a row sets: variables, words before the command, a Python and its jax where they are not this one's."""

    name: str
    variables: dict[str, str]
    before: tuple[str, ...] = ()
    python: str | None = None
    jax: str | None = None
    quick: bool = False


def rows() -> Iterator[Row]:
    yield Row("this machine", {})
    for isa in ("SSE4_2", "AVX", "AVX2"):
        yield Row(isa.replace("_", "."), {"XLA_FLAGS": f"--xla_cpu_max_isa={isa}"}, quick=isa == "SSE4_2")
    yield Row("one core", {}, ("taskset", "-c", "0"))
    yield Row("without the native library", {"JAXCONV_ONEDNN": "/nowhere"}, quick=True)
    yield Row("8 devices", {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, quick=True)
    yield Row("64 bits", {"JAX_ENABLE_X64": "1"}, quick=True)
    yield Row("rank promotion raises", {"JAX_NUMPY_RANK_PROMOTION": "raise"}, quick=True)
    yield Row("dtype promotion strict", {"JAX_NUMPY_DTYPE_PROMOTION": "strict"}, quick=True)
    yield Row("NaN raises", {"JAX_DEBUG_NANS": "1"})
    for python, version in PYTHONS.items():
        if (python, version) != (".".join(platform.python_version_tuple()[:2]), jax.__version__):  # the first row
            yield Row(f"Python {python}", {}, python=python[:4], jax=version)


def runs(python: str) -> bool:
    """Not so of pyenv's stand-in for a version that is not chosen."""
    return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


def environment(row: Row) -> dict[str, str] | None:
    """The variables for the scripts; None where the row's Python is not here. Makes its virtual environment."""
    found = os.environ | row.variables
    if row.python is None:
        return found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{row.python}"), *sorted(pyenv.glob(f"versions/{row.python}.*/bin/python"))]
    python = next((str(path) for path in candidates if path and runs(str(path))), None)
    if python is None:
        return None
    found |= {"PYTHON": python, "VENV": f".venv-{row.python}-{row.jax}"}
    subprocess.run(["bash", "-c", "source scripts/environment test"], cwd=ROOT, env=found, check=True)
    python = ROOT / found["VENV"] / "bin" / "python"
    has = subprocess.run(
        [python, "-c", "import jax; print(jax.__version__)"], capture_output=True, text=True, check=True
    )
    if has.stdout.strip() != row.jax:
        pins = [f"jax=={row.jax}", f"jaxlib=={row.jax}"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *pins], cwd=ROOT, env=found, check=True)
    return found


def log_of(row: Row, name: str) -> Path:
    return LOGS / f"{re.sub('[^a-z0-9]+', '-', row.name.lower())}-{name}.log"


def run(row: Row, name: str, command: list[str], variables: dict[str, str]) -> tuple[str, bool]:
    """(what it came to and how long it took, whether it is well)."""
    path, start = log_of(row, name), time.monotonic()
    with path.open("w") as log:
        done = subprocess.run([*row.before, *command], cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT)
    counts = re.findall(r"\d+ (?:passed|failed|skipped|errors?)", "".join(path.read_text().splitlines()[-1:]))
    words = ", ".join(counts) if name == "core" and counts else f"exit {done.returncode}"
    return f"{words}, {time.monotonic() - start:.0f} s", done.returncode == 0


def main(
    row: Annotated[list[str] | None, typer.Option(help="a row's name; repeatable; all by default")] = None,
    quick: Annotated[bool, typer.Option(help="fewer rows, a smaller core, no demo")] = False,
    demo: Annotated[bool, typer.Option(help="run the demo, too")] = True,
) -> None:
    """Run the rows one after the other."""
    names = [r.name for r in rows()]
    if unknown := [name for name in row or () if name not in names]:
        raise typer.BadParameter(f"--row {unknown[0]}: the rows are {', '.join(map(repr, names))}")
    LOGS.mkdir(parents=True, exist_ok=True)
    console, table, failed = Console(highlight=False, soft_wrap=True), [], []
    for chosen in (r for r in rows() if (r.name in row if row else r.quick or not quick)):
        try:
            variables = environment(chosen)
        except subprocess.CalledProcessError as error:
            console.print(f"{chosen.name}: {error}", markup=False)
            table.append((chosen.name, "could not be set up", ""))
            failed.append(chosen.name)
            continue
        if variables is None or (chosen.before and not shutil.which(chosen.before[0])):
            console.print(f"{chosen.name}: not here")
            table.append((chosen.name, "not here", ""))
            failed += [chosen.name] * bool(row)  # asked for by name
            continue
        tests = [f"tests/{name}.py" for name in (QUICK if quick else CORE)]
        jobs = {"core": ["./scripts/test", "-q", *tests]}
        if demo and not quick:
            jobs["demo"] = ["./scripts/demo"]
        cells = []
        for name, command in jobs.items():
            words, well = run(chosen, name, command, variables)
            console.print(f"{chosen.name}: {name}: {words}")
            cells.append(words)
            if not well:
                failed.append(f"{chosen.name} ({name})")
                console.print(log_of(chosen, name).read_text()[-4000:], markup=False)
        table.append((chosen.name, *cells, *([] if "demo" in jobs else ["not run"])))
        if demo and not row and not quick:
            write(table)  # so far
    absent = [name for name, *cells in table if "not here" in cells]
    console.print(
        f"{len(table) - len(absent)} of {len(table)} rows ran" + f"; not here: {', '.join(absent)}" * bool(absent)
    )
    console.print(f"failed: {', '.join(failed)}; see {LOGS}" if failed else "all that ran are well")
    raise typer.Exit(bool(failed))


def write(table: list[tuple[str, ...]]) -> None:
    settings = {r.name: " ".join([*(f"{k}={v}" for k, v in r.variables.items()), *r.before]) for r in rows()}
    versions = {r.name: f"jax {r.jax}" for r in rows() if r.jax}
    lines = [
        "# On which machines it was seen to work",
        "",
        "`./scripts/matrix` writes this page. A row is an environment that this machine can stand for; in each run the",
        f"core of the suite ({', '.join(CORE)}) and the demo.",
        "",
        f"{processor()}, {os.cpu_count()} cores, {date.today()}, Python {platform.python_version()}, jax "
        f"{jax.__version__} where the row names no other.",
        "",
        "| row | set | core | demo |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {settings[name] or versions.get(name, '')} | {' | '.join(cells)} |" for name, *cells in table),
    ]
    lines += [
        "",
        "Skipped are tests of float16 where the processor has no conversion of it (F16C): XLA has none for it either.",
    ]
    part = PAGE.with_suffix(".md.part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(part, PAGE)


def processor() -> str:
    """Its name, and the widest instruction set that it has."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    has = next((isa for isa in ("avx512f", "avx2", "avx", "sse4_2") if re.search(rf"\b{isa}\b", text)), "unknown")
    return f"{name.group(1) if name else platform.processor()} ({has})"


if __name__ == "__main__":
    typer.run(main)
