"""The bench: jaxconv beside JAX's own functions, SciPy, OpenCV, PyTorch and scikit-image, in one run.

    ./scripts/bench                          # every row, under 15 minutes on two cores
    ./scripts/bench --rows 'image|dense3x3'  # some
    ./scripts/bench --draw 7 --count 6       # six rows of each family of scripts/draws.py, drawn with a seed
    ./scripts/bench --draw 7 --busy 1        # beside a process that keeps a core busy

Every library computes the same row from the same random float32 arrays; each answer is checked
against float64 before it is timed. Blocks of calls of each library take turns over several rounds,
after a pause and an uncounted call; a library's figure is the 20 % quantile of its calls. JAX's
functions are jitted, their inputs are arguments on the device. First-call time (with compilation)
and memory stand beside: what XLA plans for jaxconv beside input and output, and how far the process
grows during a call of another library. "without" is jaxconv without its native library. Nothing else should run
meanwhile.

Writes bench.json, bench.md and bench.png to out/bench/.
"""

import ctypes
import gc
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import exp, log, nan
from pathlib import Path
from typing import Annotated

import cv2
import jax
import jax.numpy as jnp
import jaxlib
import matplotlib
import numpy as np
import scipy
import torch
import typer
from draws import FAMILIES, drawn
from rich.console import Console
from rows import GPU, Row, rows

import jaxconv
from jaxconv import planner
from jaxconv.engines import ENGINES
from jaxconv.problem import Axis, Problem

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Of the norm, in float32; every library answers within it, or is not timed. GPUs multiply in TF32 by default.
TOLERANCE = 2e-3 if GPU else 2e-4
QUANTILE = 0.2
SLOW = 1.0  # seconds; a peer that takes longer is called once
WITHOUT = "jaxconv without"
SMALLEST = Problem((Axis(1, 1, 1),), c=8, m=8)  # that native takes, where it is installed
console = Console(soft_wrap=True)


@contextmanager
def without_native() -> Iterator[None]:
    """What is compiled within has the choice of an installation without the native library."""
    known = ENGINES["native"]
    try:
        ENGINES["native"] = replace(known, refusal=lambda *_: "native: it is left out.")
        planner._candidates.cache_clear()
        yield
    finally:
        ENGINES["native"] = known
        planner._candidates.cache_clear()


def jitted_without(f: Callable) -> Callable:
    """f as without the native library: a program of its own."""
    jitted = jax.jit(lambda *arrays: f(*arrays))

    def call(*arrays):
        if jitted._cache_size():
            return jitted(*arrays)
        with without_native():
            return jitted(*arrays)

    return call


@dataclass
class Measured:
    """One library on one row; seconds, and bytes beside input and output (None where it is not known)."""

    seconds: float
    first_call: float
    memory: int | None
    error: float


@dataclass
class Result:
    row: str
    kind: str
    products: float
    array_bytes: int  # of input and output
    libraries: dict[str, Measured] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def best(self, wanted: Callable[[str], bool]) -> tuple[str, float]:
        found = {name: m.seconds for name, m in self.libraries.items() if wanted(name)}
        name = min(found, key=found.__getitem__, default="")
        return name, found.get(name, nan)

    @property
    def today(self) -> tuple[str, float]:
        """The faster of JAX's own."""
        return self.best(lambda name: name.startswith("jax "))

    @property
    def other(self) -> tuple[str, float]:
        """The fastest of the other libraries."""
        return self.best(lambda name: not name.startswith("jax"))

    def ratio(self, against: float) -> float:
        """How many times faster than `against` seconds we are."""
        mine = self.libraries.get("jaxconv")
        return against / mine.seconds if mine else nan

    @property
    def without(self) -> float:
        """How many times faster than without the native library we are."""
        return self.ratio(self.best(lambda name: name == WITHOUT)[1])

    @property
    def first(self) -> float:
        """How many times longer our first call takes than JAX's."""
        mine, today = (self.libraries.get(name) for name in ("jaxconv", self.today[0]))
        return mine.first_call / today.first_call if mine and today else nan


def calls(row: Row) -> dict[str, Callable]:
    """library -> () -> (its call, the answer in the order of the truth)."""
    on_device = [jnp.asarray(a) for a in row.data]
    found = {}
    for name, f in row.jax.items():
        jitted = jax.jit(f)
        found[name] = lambda jitted=jitted: lambda: jax.block_until_ready(jitted(*on_device))
    if not ENGINES["native"].refusal(SMALLEST, jax.default_backend()):
        jitted = jitted_without(row.jax["jaxconv"])
        found[WITHOUT] = lambda jitted=jitted: lambda: jax.block_until_ready(jitted(*on_device))
    for name, ready in row.others.items():
        found[name] = lambda ready=ready: ready(*row.data)
    return found


def answer(call: Callable, y) -> np.ndarray:
    y = getattr(call, "outward", lambda y: y)(y)
    return np.asarray(y.cpu() if isinstance(y, torch.Tensor) else y, np.float64)


def resident(which: str) -> int:
    """Bytes of the process: VmRSS now, or VmHWM, the peak since `reset`."""
    return int(re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def planned(row: Row, name: str) -> int | None:
    """What XLA plans beside input and output; of jaxconv only, since it is compiled once more."""
    if not name.startswith("jaxconv"):
        return None
    return jax.jit(row.jax[name]).lower(*row.data).compile().memory_analysis().temp_size_in_bytes


def memory(call: Callable) -> int | None:
    """How far the process grows during one call, in bytes (on a GPU, what PyTorch holds there); None if unknown."""
    if GPU:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return max(0, torch.cuda.max_memory_allocated() - before)
    try:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        call()
        return max(0, resident("VmHWM") - before)
    except (OSError, TypeError):
        return None


def measure(row: Row, rounds: int, block: float) -> Result:
    truth = np.asarray(row.truth(*(a.astype(float) for a in row.data)))
    result = Result(row.name, row.kind, row.products, sum(a.nbytes for a in row.data) + truth.nbytes // 2)
    scale = np.linalg.norm(truth)
    ready = {}
    for name, make in calls(row).items():
        try:
            call = make()
            start = time.perf_counter()
            y = call()
            first = time.perf_counter() - start
            error = float(np.linalg.norm(answer(call, y) - truth) / scale)
        except Exception as e:  # a peer that cannot is named in the table
            result.failures[name] = f"{type(e).__name__}: {str(e).splitlines()[0][:200]}"
            continue
        if not error < TOLERANCE:
            result.failures[name] = f"its answer is off by {error:.2g} of the norm"
            continue
        del y
        if first > SLOW and name in row.others:  # nothing was compiled: it is that slow
            result.libraries[name] = Measured(first, first, None, error)
            continue
        ready[name] = call
        between = planned(row, name) if name in row.jax else memory(call)
        result.libraries[name] = Measured(nan, first, between, error)
    for name, seconds in timed(ready, rounds, block).items():
        result.libraries[name].seconds = seconds
    return result


def timed(calls: dict[str, Callable], rounds: int, block: float) -> dict[str, float]:
    """The 20 % quantile of each call's seconds, in blocks that take turns. A slow call is made twice."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if len(samples[name]) >= 2 and min(samples[name]) > 6 * block:
                continue
            time.sleep(0.01)
            call()
            end = time.perf_counter() + block
            while time.perf_counter() < end:
                start = time.perf_counter()
                call()
                samples[name].append(time.perf_counter() - start)
    return {name: sorted(times)[int(QUANTILE * (len(times) - 1))] for name, times in samples.items()}


@contextmanager
def beside(count: int) -> Iterator[None]:
    """So many other processes keep a core busy meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in others:
            one.kill()
            one.wait()


# ---- reports


def geometric_mean(ratios: list[float]) -> float:
    ratios = [r for r in ratios if r == r]
    return exp(statistics.fmean(map(log, ratios))) if ratios else nan


def machine() -> dict[str, str]:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "device": jax.devices()[0].device_kind,
        "processor": f"{cpu[1] if cpu else platform.processor()}, {len(os.sched_getaffinity(0))} cores",
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "jaxconv": jaxconv.__version__,
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "scipy": scipy.__version__,
    }


SUMMARY = (
    *("rows", "number", "to best other, mean", "10 %", "least", "without: mean", "10 %", "least"),
    *("to JAX today, mean", "least", "without: least", "to without, mean", "least"),
    *("first call, times JAX's, mean", "most"),
)


def summary(results: list[Result]) -> list[tuple[str, ...]]:
    """By kind: ratios to the best other library and to JAX today, and of first calls; means are geometric."""
    kinds = {result.kind: [r for r in results if r.kind == result.kind] for result in results} | {"all": results}
    lines = []
    for kind, group in kinds.items():
        other, today = ([r.ratio(getattr(r, name)[1]) for r in group] for name in ("other", "today"))
        without, first = [r.without for r in group], [r.first for r in group]
        less, least = ([a / b for a, b in zip(ratios, without, strict=True)] for ratios in (other, today))
        figures = (
            *(geometric_mean(other), float(np.nanquantile(other, 0.1)), min(other)),
            *(geometric_mean(less), float(np.nanquantile(less, 0.1)), min(less)),
            *(geometric_mean(today), min(today), min(least), geometric_mean(without), min(without)),
            *(geometric_mean(first), max(first)),
        )
        lines.append((kind, str(len(group)), *(f"{figure:.2f}" for figure in figures)))
    return lines


def markdown(results: list[Result], about: dict[str, str]) -> str:
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    lines += [f"| {' | '.join(line)} |" for line in (SUMMARY, ["---"] * len(SUMMARY), *summary(results))]
    lines += [
        "",
        "| row | jaxconv ms | without ms | elementwise ms | best other | ms | ratio | JAX today | ms | ratio "
        "| first call s (JAX today) | MB between (input and output) |",
        "| --- |" + " --- |" * 11,
    ]
    for r in results:
        (other, o), (today, t) = r.other, r.today
        mine, less, exact = (r.libraries.get(name) for name in ("jaxconv", WITHOUT, "jaxconv elementwise"))
        if mine is None:
            lines.append(f"| {r.row} | {r.failures.get('jaxconv')} |" + " |" * 10)
            continue
        ours = " | ".join(f"{m.seconds * 1e3 if m else nan:.3f}" for m in (mine, less, exact))
        lines.append(
            f"| {r.row} | {ours} | {other} "
            f"| {o * 1e3:.3f} | {r.ratio(o):.2f} | {today} | {t * 1e3:.3f} | {r.ratio(t):.2f} "
            f"| {mine.first_call:.2f} ({r.libraries[today].first_call if today else nan:.2f}) "
            f"| {'-' if mine.memory is None else f'{mine.memory / 1e6:.1f}'} ({r.array_bytes / 1e6:.1f}) |"
        )
    failures = [f"- {r.row}, {name}: {why}" for r in results for name, why in r.failures.items()]
    if failures:
        lines += ["", "Not timed:", "", *failures]
    return "\n".join(lines) + "\n"


def picture(results: list[Result], about: dict[str, str]):
    """A dot for each row, by kind; a stroke for the geometric mean."""
    kinds = list(dict.fromkeys(r.kind for r in results))
    figure, axis = plt.subplots(figsize=(8, 1.6 + 0.36 * len(kinds)), layout="constrained")
    for offset, color, label, of in (
        (-0.17, "#0072b2", "the best other library", lambda r: r.other[1]),
        (0.17, "#d55e00", "JAX's own functions", lambda r: r.today[1]),
    ):
        for place, kind in enumerate(kinds):
            ratios = [r.ratio(of(r)) for r in results if r.kind == kind]
            axis.plot(ratios, np.full(len(ratios), place + offset), "o", color=color, alpha=0.45, markersize=5)
            axis.plot(geometric_mean(ratios), place + offset, "|", color=color, markersize=13, markeredgewidth=2)
        axis.plot([], [], "o", color=color, label=f"against {label}")
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.invert_yaxis()
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axis.set_xlabel("times as fast (one dot a row)")
    axis.legend(loc="lower right")
    seed = f", seed {about['seed']}" if "seed" in about else ""
    axis.set_title(f"jaxconv, float32{seed}: {about['processor']}, jax {about['jax']}, {about['date']}", fontsize=9)
    return figure


def write(folder: Path, name: str, save: Callable[[Path], object]) -> None:
    """Whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"part-{name}"
    save(part)
    part.replace(folder / name)


def main(
    pattern: Annotated[str, typer.Option("--rows", help="regular expression over row names")] = "",
    draw: Annotated[int | None, typer.Option(help="draw the rows with this seed")] = None,
    count: Annotated[int, typer.Option(help="rows drawn of each family", min=1)] = 6,
    rounds: Annotated[int, typer.Option(help="how often the libraries take turns")] = 5,
    block: Annotated[float, typer.Option(help="seconds of each turn")] = 0.05,
    busy: Annotated[int, typer.Option(help="other processes that keep a core busy meanwhile")] = 0,
    out: Annotated[Path, typer.Option(help="folder of the results")] = Path("out/bench"),
) -> None:
    """Measure, print, and write JSON, Markdown and a picture."""
    every = rows() if draw is None else [row for family in FAMILIES for row in drawn(draw, count, family)]
    chosen = [row for row in every if re.search(pattern, row.name)]
    if not chosen:
        raise typer.BadParameter(f"--rows {pattern!r} names no row; the names: {', '.join(r.name for r in every)}.")
    started, results = time.perf_counter(), []
    for row in chosen:
        with beside(busy):
            result = measure(row, rounds, block)
        results.append(result)
        (other, o), (today, t) = result.other, result.today
        mine = result.libraries.get("jaxconv")
        console.print(
            f"{row.name:50} {mine.seconds * 1e3 if mine else nan:9.3f} ms   {result.without:6.2f} x without   "
            f"{result.ratio(o):6.2f} x {other:20} "
            f"{result.ratio(t):7.2f} x {today}",
            *result.failures.items(),
            highlight=False,
        )
        jax.clear_caches()
        row.__dict__.pop("data", None)
    about = machine() | ({} if draw is None else {"seed": str(draw), "rows a family": str(count)})
    about |= {"busy beside it": str(busy)} if busy else {}
    text = markdown(results, about)
    write(out, "bench.md", lambda path: path.write_text(text))
    write(
        out,
        "bench.json",
        lambda path: path.write_text(json.dumps({"about": about, "rows": [asdict(r) for r in results]}, indent=1)),
    )
    write(out, "bench.png", lambda path: picture(results, about).savefig(path, dpi=120))
    for line in (SUMMARY, *summary(results)):
        console.print("; ".join(line), highlight=False)
    console.print(f"{time.perf_counter() - started:.0f} s; {out}/bench.md, bench.json, bench.png")


if __name__ == "__main__":
    typer.run(main)
