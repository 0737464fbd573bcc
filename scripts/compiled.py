"""What XLA makes of the rows for an H100, on a machine without one: ./scripts/compiled

    ./scripts/compiled                              every row, pass and engine beside lax's; writes docs/accelerators.md
    ./scripts/compiled --rows depthwise --engine direct --engine shifts
    ./scripts/compiled --check                      also says what is not as it must be, and fails then

No program runs, so there are no times. Counted are, in the optimised program: calls of cuDNN and their kind, launches
of kernels and trips of loops, the memory between (temporaries), and the bytes that the kernels read and write, both
as multiples of the operands' and the result's. The device's facts (scripts/h100.txtpb) are as XLA lists them.

Method: jax.experimental.topologies; the program's text is XLA's HLO.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from math import prod
from pathlib import Path
from typing import Annotated

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import typer
from jax.experimental import topologies
from problems import ROWS, by_lax, name_of, pass_of
from rich.console import Console
from rich.progress import track

from jaxconv.engines import ENGINES
from jaxconv.engines.base import array_bytes
from jaxconv.planner import Options
from jaxconv.primitive import contract
from jaxconv.problem import Problem, Triple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "accelerators.md"
DEVICE = "NVIDIA H100 80GB HBM3"
FREE = {"parameter", "bitcast", "get-tuple-element", "tuple", "constant", "after-all", "opt-barrier", "async-done"}
KINDS = {"Forward": "forward", "BackwardInput": "input", "BackwardFilter": "filter"}  # as cuDNN calls the passes
SECONDS = 10.0  # that compiling one contraction may take


HEAD = """## What XLA compiles for an H100

`./scripts/compiled` writes this part: jax {jax}, {device} (its facts, no device), {date}. Nothing ran.

Each cell: the calls of cuDNN by their kind, and the launches of kernels, with the trips of loops; the memory between
and the bytes that the kernels read and write, as multiples of x, w and y; seconds to compile.
"""


@dataclass
class Program:
    """What is counted in one compiled program; launches within loops once for each trip."""

    seconds: float
    temporaries: float  # bytes
    kernels: float = 0.0
    trips: float = 0.0
    traffic: float = 0.0  # bytes
    convolutions: list[tuple[str, str, float]] = field(default_factory=list)  # kind, window, operands' elements


# ---- HLO


def elements_bytes(shape: str) -> tuple[float, float]:
    """Elements and bytes of the arrays in an HLO shape, "f32[8,56]{1,0}" or a tuple of such.

    >>> elements_bytes("(f32[8,2]{1,0}, bf16[3]{0})")
    (19.0, 70.0)
    """
    elements = size = 0.0
    for letters, digits, extents in re.findall(r"\b([a-z]+)(\d*)\[([\d,]*)\]", shape):
        count = prod(map(int, filter(None, extents.split(","))))
        elements += count
        size += count * (1 if letters == "pred" else int(digits) / 8 if digits else 0)
    return elements, size


def _closing(text: str) -> int:
    """Where the bracket closes with which a text begins."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i
    raise ValueError(text)


def instructions(text: str) -> tuple[str, dict[str, list[tuple[str, str, str, str, str]]]]:
    """(entry, computations): name -> (name, shape, operation, operands, attributes) of each instruction."""
    found, current, entry = {}, None, ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line):
            current = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (part := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)$", line)):
            name, rest = part.groups()
            end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
            shape, rest = rest[:end], rest[end:].lstrip()
            operation, rest = rest[: rest.index("(")], rest[rest.index("(") :]
            end = _closing(rest)
            current.append((name, shape, operation, rest[1:end], rest[end + 1 :]))
    return entry, found


def count(program: Program, text: str) -> Program:
    """The program with what its text says."""
    entry, computations = instructions(text)

    def walk(computation: str, times: float) -> None:
        shapes = {}
        for name, shape, operation, operands, attributes in computations[computation]:
            shapes[name] = shape
            if operation in FREE:
                continue
            called = re.findall(r"(?:to_apply|calls|body|true_computation|false_computation)=%?([\w.\-]+)", attributes)
            if operation == "while":
                known = re.search(r'known_trip_count":\{"n":"(\d+)"', attributes)
                trips = times * (int(known[1]) if known else 1)
                program.trips += trips
                walk(called[0], trips)
            elif operation in ("call", "conditional", "async-start"):
                for one in called:
                    walk(one, times)
            else:
                inputs = [shapes.get(operand, "") for operand in re.findall(r"%([\w.\-]+)", operands)]
                program.kernels += times
                program.traffic += times * sum(elements_bytes(one)[1] for one in [shape, *inputs])
                kind = re.search(r'custom_call_target="__cudnn\$conv(\w+)"', attributes)
                if kind or operation == "convolution":
                    window = re.search(r"window=\{([^}]*)\}", attributes)
                    operand = max(elements_bytes(one)[0] for one in inputs[:2])
                    word = KINDS.get(kind[1], kind[1]) if kind else "by XLA"
                    program.convolutions.append((word, window[1] if window else "", operand))

    walk(entry, 1.0)
    return program


def device():
    """The H100 that XLA compiles for."""
    try:
        facts = (Path(__file__).parent / "h100.txtpb").read_text()
        return topologies.get_topology_desc(platform="cuda", topology="1x1x1", target_config=facts).devices[0]
    except Exception as error:
        raise SystemExit(
            f"XLA cannot compile for CUDA here ({type(error).__name__}: {str(error)[:200]}). Run ./scripts/compiled, "
            "which installs jax's CUDA plugin into .venv-cuda: jax-cuda13-plugin and jax-cuda13-pjrt of jax's own "
            "version, without their dependencies."
        ) from error


def compiled(f: Callable, problem: Problem, target) -> Program:
    """f(x, w) compiled for the device."""
    sharding = jax.sharding.SingleDeviceSharding(target)
    arrays = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for shape, dtype in ((problem.x_shape, problem.dtypes.x), (problem.w_shape, problem.dtypes.w))
    ]
    start = time.perf_counter()
    done = jax.jit(f).lower(*arrays).compile()
    seconds = time.perf_counter() - start
    return count(Program(seconds, float(done.memory_analysis().temp_size_in_bytes)), done.as_text())


# ---- the table


def cell(program: Program | str, whole: float) -> str:
    if isinstance(program, str):
        return program
    kinds = ", ".join(dict.fromkeys(kind for kind, *_ in program.convolutions))
    loops = f" in {program.trips:.0f} trips" if program.trips else ""
    return (
        f"{kinds + ': ' if kinds else ''}{program.kernels:.0f}{loops}; {program.temporaries / whole:.2f}, "
        f"{program.traffic / whole:.2f}; {program.seconds:.1f} s"
    )


def poor_forms(problem: Problem, program: Program) -> Iterator[str]:
    """Convolutions of a window as large as the image, or on inserted zeros."""
    layer = pass_of(problem)[0]
    arrays = max(prod(problem.x_shape), prod(problem.w_shape), prod(problem.y_shape))
    for kind, window, operand in program.convolutions:
        sizes = re.search(r"size=([\dx]+)", window)
        sizes = [int(size) for size in sizes[1].split("x")] if sizes else []
        longest = [min(axis.I, axis.O) for axis in layer.axes]
        if max(sizes, default=0) > max(axis.K for axis in layer.axes) and max(sizes) >= max(longest):
            yield f"{kind}: a window of {window} for kernels of {[axis.K for axis in layer.axes]}"
        if operand > 2 * arrays or "lhs_dilate" in window:
            yield f"{kind}: an operand of {operand:.3g} numbers, where the arrays have {arrays:.3g}: zeros inserted"


def faults(problem: Problem, engine: str, program: Program, of_lax: Program) -> Iterator[str]:
    """What is not as it must be."""
    whole, layer = array_bytes(problem), pass_of(problem)[0]
    if program.seconds > SECONDS:
        yield f"it took {program.seconds:.0f} s to compile"
    yield from poor_forms(problem, program)
    # Where lax's own form is poor, a better one may cost what arranges its operands.
    most = max((1.5 if any(poor_forms(problem, of_lax)) else 1.02) * of_lax.temporaries, 0.05 * whole)
    if engine == "direct" and program.temporaries > most:
        yield f"temporaries of {program.temporaries / whole:.2f}, lax has {of_lax.temporaries / whole:.2f}"
    if engine == "shifts":
        if layer.c * layer.m == 1 and program.temporaries > 1.5 * whole:
            yield f"temporaries of {program.temporaries / whole:.2f}"
        if problem.taps * problem.c <= 9 and problem.c * problem.m == 1 and program.kernels > 2:
            yield f"{program.kernels:.0f} kernels for one pass over memory"


def main(
    rows: Annotated[str, typer.Option(help="regular expression over the rows' names")] = "",
    engine: Annotated[list[str] | None, typer.Option(help="an engine's name; repeatable; all by default")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="repeatable; float32 and bfloat16 by default")] = None,
    check: Annotated[bool, typer.Option(help="say what is not as it must be, and fail then")] = False,
) -> None:
    """Compile, print, and where nothing was chosen write docs/accelerators.md."""
    console, target = Console(highlight=False, soft_wrap=True), device()
    names, kinds = engine or list(ENGINES), dtype or ["float32", "bfloat16"]
    if unknown := [name for name in names if name not in ENGINES]:
        raise typer.BadParameter(f"--engine {unknown[0]}: the engines are {', '.join(ENGINES)}")
    chosen = [problem for problem in ROWS if re.search(rows, name_of(problem))]
    if not chosen:
        raise typer.BadParameter(f"--rows {rows!r} names no row; one is {name_of(ROWS[0])!r}")
    table, wrong = [], []
    for problem, kind in track([(p, k) for k in kinds for p in chosen], console=console, description="compiling"):
        problem = replace(problem, dtypes=Triple(kind, kind, kind))
        of_lax = compiled(by_lax(problem), problem, target)
        programs: dict[str, Program | str] = {"lax": of_lax}
        for name in names:
            if ENGINES[name].refusal(problem, "gpu"):
                programs[name] = "refuses"
                continue
            found = compiled(partial(contract, problem, options=Options(forward=name)), problem, target)
            programs[name] = found
            wrong += [f"{name_of(problem)}, {kind}, {name}: {w}" for w in faults(problem, name, found, of_lax)]
        cells = {name: cell(program, array_bytes(problem)) for name, program in programs.items()}
        table.append((name_of(problem), kind, cells, programs))
        if rows or engine:
            console.print(f"{name_of(problem)}, {kind}", *(f"    {n:9}{c}" for n, c in cells.items()), sep="\n")
    for name in names:
        pairs = [(p["lax"], p[name]) for *_, p in table if not isinstance(p[name], str)]
        ratio = geometric([ours.seconds / theirs.seconds for theirs, ours in pairs])
        worst = max(ours.seconds for _, ours in pairs) if pairs else 0.0
        console.print(f"{name}: compiling takes {ratio:.2f} times lax's (geometric mean), {worst:.1f} s at most")
    if not (rows or engine or dtype):
        write(table, names)
        console.print(f"{PAGE.relative_to(ROOT)} written")
    if check:
        console.print(*wrong, f"{len(wrong)} things are not as they must be", sep="\n")
        raise typer.Exit(bool(wrong))


def geometric(ratios: list[float]) -> float:
    return prod(ratios) ** (1 / max(1, len(ratios)))


def write(table: list[tuple], names: list[str]) -> None:
    lines = [
        HEAD.format(jax=jax.__version__, device=DEVICE, date=date.today()),
        f"| row | type | lax | {' | '.join(names)} |",
        "| --- | --- | --- |" + " --- |" * len(names),
        *(f"| {row} | {kind} | {' | '.join(cells.values())} |" for row, kind, cells, _ in table),
    ]
    measured = PAGE.read_text(encoding="utf-8").partition(lines[0].splitlines()[0])[0]  # stands before, and stays
    part = PAGE.with_suffix(".md.part")
    part.write_text(measured + "\n".join(lines) + "\n", encoding="utf-8")
    os.replace(part, PAGE)


if __name__ == "__main__":
    typer.run(main)
