"""Fit the planner's constants on this machine, and judge the planner on problems that were not fitted.

    .venv/bin/python scripts/fit.py measure     # times every engine on problems: 20 minutes for 500
    .venv/bin/python scripts/fit.py fit         # fits, judges on what was not fitted, writes jaxconv/costs.json
    .venv/bin/python scripts/fit.py fit --data FILE     # likewise, to what another machine measured

On CPU the problems are the bench's families, drawn with a seed (scripts/draws.py), and random ones of other kinds and
types (scripts/problems.py). The regret of a choice is the time of the engine that the planner takes over that of the
best. On CPU the constants are in units of the machine (jaxconv/rates.py), so that they can be judged on another:
`--judge FILE`. Measurements go to out/fit/: a line about the device and its rates, and one JSON line a problem, [seed,
problem, seconds by engine, precision, seconds to compile by engine]; they are resumed, and the report and its picture
lie beside them. Nothing else should run meanwhile.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, NamedTuple

import jax
import jaxlib
import matplotlib
import numpy as np
import typer
from draws import FAMILIES, contraction, drawn
from jax import lax
from problems import random_problem
from rich.progress import track
from scipy.optimize import least_squares, nnls

from jaxconv import costs
from jaxconv.engines import ENGINES, Engine
from jaxconv.engines.base import COMPILED
from jaxconv.engines.polyphase import bounded
from jaxconv.files import write as write_file
from jaxconv.planner import Options, candidates
from jaxconv.problem import Axis, Problem, Triple  # noqa: F401  (what a line of measurements is written in)
from jaxconv.rates import measured as rates_of_machine
from jaxconv.tune import measure as times_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path("out/fit")
TABLE = Path("jaxconv/costs.json")
FOLDS = 5
FAR = 0.3  # the least weight of an engine's time
CAUTION = 0.6  # quantile of what other types take: where they vary, an engine is not to be relied on
FEW = 12  # measurements, of which no engine is fitted
RIDGE, UNUSUAL = 0.1, 1e3  # how strongly a constant is drawn to a unit of the machine, and how far below it may begin
HOPELESS = 2.0  # seconds: an engine whose estimate is beyond is not measured
app = typer.Typer(help=__doc__, rich_markup_mode=None, pretty_exceptions_enable=False)
Precision = tuple[lax.Precision, lax.Precision] | None


class Measurement(NamedTuple):
    problem: Problem
    times: dict[str, float]  # seconds by engine
    precision: Precision = None
    compilations: Mapping[str, float] = MappingProxyType({})  # seconds by engine


class About(NamedTuple):
    """What was measured on: the first line of a file."""

    platform: str
    device: str
    jaxlib: str
    engines: list[str]
    date: str = ""
    rates: Mapping[str, float] = MappingProxyType({})

    @classmethod
    def here(cls) -> "About":
        device = jax.devices()[0]
        measured = rates_of_machine(time.perf_counter) if device.platform == "cpu" else {}
        date = time.strftime("%Y-%m-%d")
        return cls(device.platform, device.device_kind, jaxlib.__version__, list(ENGINES), date, measured)

    @property
    def key(self) -> str:
        """In costs.json."""
        return self.platform if self.platform == "cpu" else f"{self.platform}:{self.device}"


Measured = list[Measurement]


def measurements() -> Path:
    return FOLDER / f"{jax.default_backend()}-{jaxlib.__version__}.jsonl"


def drawn_problem(seed: int) -> Problem:
    """Every other one of the bench's families, in turns, and one of other kinds and types."""
    families = list(FAMILIES)
    if seed % 2:
        return random_problem(seed)
    [row] = drawn(seed, 1, families[seed // 2 % len(families)])
    return contraction(row)


def compilation(problem: Problem, engine: str) -> float:
    """Seconds from the function to the compiled program."""
    x, w = (
        jax.ShapeDtypeStruct(shape, t)
        for shape, t in zip((problem.x_shape, problem.w_shape), problem.dtypes[:2], strict=True)
    )
    start = time.perf_counter()
    jax.jit(lambda x, w: ENGINES[engine].run(problem, x, w)).lower(x, w).compile()
    return time.perf_counter() - start


@app.command()
def measure(
    seed: Annotated[int, typer.Option(help="the first seed")] = 0,
    count: Annotated[int, typer.Option(help="how many problems from there")] = 400,
    seconds: Annotated[float, typer.Option(help="time spent on each engine")] = 0.06,
    minutes: Annotated[float, typer.Option(help="stop after that long")] = 60,
    data: Annotated[Path | None, typer.Option(help="the file to write or to go on with")] = None,
) -> None:
    """Time every engine on drawn problems, but for those that were.

    Measurements of engines that have changed since are the caller's to remove.
    """
    path, platform, start = data or measurements(), jax.default_backend(), time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)[0] for line in path.read_text().splitlines()[1:]} if path.exists() else set()
    with path.open("a") as file:
        if not path.stat().st_size:
            file.write(json.dumps(About.here()._asdict()) + "\n")
        for one in track([s for s in range(seed, seed + count) if s not in done], description="measuring"):
            if time.monotonic() - start > 60 * minutes:
                break
            problem = drawn_problem(one)
            with jax.enable_x64("64" in problem.dtypes.x):
                answers = candidates(problem, Options(effort="throughput"), platform)
                able = [c.engine.name for c in answers if c.seconds is not None and c.seconds < HOPELESS]
                jax.clear_caches()
                compilations = {name: compilation(problem, name) for name in able} if one % 3 == 0 else {}
                times = times_of(problem, able, seconds=seconds)
            jax.clear_caches()
            file.write(json.dumps([one, repr(problem), times, None, {"to compile": compilations}]) + "\n")
            file.flush()


def read(path: Path) -> tuple[About, Measured]:
    """What was measured on, and what. A last line that is not whole is left away."""
    try:
        head, *lines = path.read_text().splitlines()
        about = About(**json.loads(head))
    except (OSError, ValueError, TypeError) as error:
        raise typer.BadParameter(
            f"--data {path}: no measurements ({type(error).__name__}: {error}). Make them with `fit.py measure`."
        ) from error
    if set(about.engines) - set(ENGINES):
        raise typer.BadParameter(
            f"--data {path}: it was measured with the engines {', '.join(about.engines)}; there are "
            f"{', '.join(ENGINES)}. Measure anew."
        )
    if about.platform == "cpu" and not about.rates:
        raise typer.BadParameter(f"--data {path}: its first line has no rates of the machine. Measure anew.")
    found: dict[tuple, Measurement] = {}  # the engines of one problem may stand on several lines
    for line in lines:
        try:
            _, text, times, precision, notes, *_ = [*json.loads(line), None, None]
        except ValueError:
            break  # a last line that is not whole, or a remark: the run was stopped here
        pair = tuple(lax.Precision(p) for p in precision) if precision else None
        once = (notes or {}).get("to compile", {})
        known = found.setdefault(
            (text, pair), Measurement(eval(text), {}, pair, once if about.platform == "cpu" else {})
        )
        known.times.update(times)
    return about, [m for m in found.values() if m.times]


def fitted(engine: Engine, measured: Measured, about: About) -> dict[str, float]:
    """The constants of one engine: of other types, how many times as long they take.

    An engine that is far from the best counts less: its time is only to be large. One that was hardly measured keeps
    the constants that it has.
    """
    mine = [m for m in measured if engine.name in m.times]
    if sum(costs.kind(m.problem) == "real" for m in mine) < FEW:
        known = costs.fitted_for(about.platform, about.device, about.jaxlib)
        return dict(carried(known, about._replace(rates=dict.fromkeys(about.rates, 1.0)), about).get(engine.name, {}))
    near = [min(m.times.values()) / m.times[engine.name] for m in mine]
    kinds = np.array([costs.kind(m.problem) for m in mine])
    real = kinds == "real"
    works = [engine.work(bounded(m.problem), about.platform, m.precision) for m in mine]
    running = [{name: count for name, count in work.items() if name not in COMPILED} for work in works]
    times, weights = np.array([m.times[engine.name] for m in mine]), np.sqrt(np.maximum(near, FAR))
    usual = {kind: about.rates[rate] for kind, rate in engine.kinds.items()} if about.platform == "cpu" else {}
    rates = least(list(compress(running, real)), times[real], weights[real], usual)
    total = np.array([sum(rates.get(name, 0.0) * count for name, count in work.items()) for work in running])
    for kind in sorted(set(kinds) - {"real"}):
        rates[f"times {kind}"] = float(f"{np.quantile((times / total)[kinds == kind], CAUTION):.3g}")
    compiling = [
        ({name: work[name] for name in COMPILED}, m.compilations[engine.name])
        for work, m in zip(works, mine, strict=True)
        if engine.name in m.compilations
    ]
    if len(compiling) >= FEW:
        counts, seconds = zip(*compiling, strict=True)
        rates |= least(counts, np.array(seconds), np.ones(len(seconds)), usual)
    return usual | rates  # what was never met, too, is as usual


def least(
    works: Sequence[Mapping[str, float]], times: np.ndarray, weights: np.ndarray, usual: Mapping[str, float]
) -> dict[str, float]:
    """Seconds for a unit of each kind: not negative, least squares of the logarithm. Outliers count less.

    What the measurements hardly say is as usual: a unit of the machine.
    """
    names = sorted({name for work in works for name in work})
    counts = np.array([[work.get(name, 0.0) for name in names] for work in works])
    scale = np.maximum(counts.max(0), 1e-30)
    counts /= scale
    start, _ = nnls(weights[:, None] * counts / times[:, None], weights)

    # Unused constants may come in again, from a small share of the median time.
    start = np.log(np.maximum(start, 1e-3 * np.median(times)))
    known = np.array([name in usual for name in names])
    expected = np.log([usual.get(name, 1.0) for name in names]) + np.log(scale)
    start[known] = np.maximum(start, expected - np.log(UNUSUAL))[known]
    pull = RIDGE * np.eye(len(names))[known]

    def off(theta: np.ndarray) -> np.ndarray:
        return np.concatenate([weights * (np.log(counts @ np.exp(theta)) - np.log(times)), pull @ (theta - expected)])

    def slope(theta: np.ndarray) -> np.ndarray:
        return np.concatenate([(weights / (counts @ np.exp(theta)))[:, None] * counts * np.exp(theta), pull])

    result = least_squares(off, start, jac=slope, bounds=(start - 40, start + 20), loss="soft_l1", f_scale=0.3)
    parts = counts * np.exp(result.x)
    share = (parts / parts.sum(1)[:, None]).max(0) + known
    return {
        n: float(f"{np.exp(t) / s:.4g}") for n, t, s, u in zip(names, result.x, scale, share, strict=True) if u > 0.01
    }


def fit_all(measured: Measured, about: About) -> dict[str, dict[str, float]]:
    """The constants in seconds."""
    return {name: fitted(engine, measured, about) for name, engine in ENGINES.items()}


def carried(table: costs.Table, about: About, to: About) -> costs.Table:
    """A table in seconds of one machine, in those of another by the rates of both."""
    if about.platform != "cpu":
        return table
    return costs.in_seconds(table, {name: to.rates[name] / rate for name, rate in about.rates.items()})


def regrets(measured: Measured, table, platform: str) -> Iterator[tuple[float, str, str, Problem]]:
    """(time of the choice over that of the best, chosen, best, problem)."""
    for problem, times, precision, _ in measured:
        able = [e.name for e in ENGINES.values() if not e.refusal(problem, platform)]
        chosen = min(able, key=lambda n: costs.estimate(table, ENGINES[n], problem, platform, precision).seconds)
        best = min(times, key=times.__getitem__)
        yield times.get(chosen, math.inf) / times[best], chosen, best, problem


@app.command()
def fit(
    data: Annotated[Path | None, typer.Option(help="the measurements; by default those of this jaxlib")] = None,
    judge: Annotated[Path | None, typer.Option(help="other measurements, to judge by; without, it is folds")] = None,
    write: Annotated[bool, typer.Option(help="write jaxconv/costs.json")] = True,
    worst: Annotated[int, typer.Option(help="how many of the worst choices to print")] = 15,
) -> None:
    """Fit on all measurements; judge each problem by constants that were fitted without it."""
    about, measured = read(data or measurements())
    platform, version = about.platform, about.jaxlib
    if len(measured) < max(FEW, FOLDS):
        raise typer.BadParameter(
            f"--data {data or measurements()}: it has {len(measured)} problems, too few to fit. Measure on: at least "
            f"{FEW}."
        )
    about_judged = about
    if judge:
        about_judged, judged = read(judge)
        if about_judged[:3] != about[:3]:
            raise typer.BadParameter(f"--judge {judge}: it was measured on {about_judged[:3]}, not on {about[:3]}.")
        folds = [(measured, judged)]
    else:
        folds = [
            ([one for i, one in enumerate(measured) if i % FOLDS != fold], measured[fold::FOLDS])
            for fold in range(FOLDS)
        ]
    found, ratios = [], {name: [] for name in ENGINES}
    for known, unknown in folds:
        table = carried(fit_all(known, about), about, about_judged)
        found += regrets(unknown, table, platform)
        for m in unknown:
            for name, t in m.times.items():
                estimate = costs.estimate(table, ENGINES[name], m.problem, platform, m.precision)
                ratios[name].append(estimate.seconds / t)
    found.sort(key=lambda row: -row[0])
    everything, values = fit_all(measured, about), np.array([row[0] for row in found])
    found_times = [m.times for _, unknown in folds for m in unknown]
    always = {n: np.array([t[n] / min(t.values()) if n in t else math.inf for t in found_times]) for n in ENGINES}
    lines = [
        f"jaxlib {version}, {about.device}, {time.strftime('%Y-%m-%d')}: {len(values)} problems, each judged by "
        + ("constants that were fitted to others." if judge else f"constants fitted without it ({FOLDS} folds)."),
        "",
        "| choice | regret: geometric mean | median | 90th percentile | 95th percentile | best engine chosen |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {_mean(v)} | {_percentile(v, 0.5)} | {_percentile(v, 0.9)} | {_percentile(v, 0.95)} "
            f"| {np.mean(v == 1):.0%} |"
            for name, v in {"the planner": values, **{f"always {n}": v for n, v in always.items()}}.items()
        ),
        "",
    ]
    print("\n".join(lines))
    for name, r in ((name, r) for name, r in ratios.items() if r):
        quantiles = " ".join(f"{q:.2f}" for q in np.quantile(r, [0.05, 0.25, 0.5, 0.75, 0.95]))
        print(f"{name:9} {len(r)} estimates, quantiles of estimate/measured: {quantiles}")
    for regret, chosen, best, problem in found[:worst]:
        print(f"{regret:7.2f} {chosen} for {best}: {problem}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"planner-{version}.md").write_text("\n".join(lines))
    picture(np.sort(values), version).savefig(FOLDER / f"planner-{version}.png", dpi=110)
    if write:
        tables = json.loads(TABLE.read_text()) if TABLE.exists() else {}
        known = tables.setdefault(about.key, {})
        prior = known.pop("prior", {})  # serves for kinds of work that were not met
        in_units = about._replace(rates=dict.fromkeys(about.rates, 1.0))
        known[version] = {
            name: prior.get(name, {}) | {kind: float(f"{value:.4g}") for kind, value in row.items()}
            for name, row in carried(everything, about, in_units).items()
        }
        write_file(TABLE, json.dumps(tables, indent=1) + "\n")


def _mean(values: np.ndarray) -> str:
    """Geometric, of those that were measured."""
    finite = values[np.isfinite(values)]
    rest = len(values) - len(finite)
    if not len(finite):
        return "not measured"
    return f"{np.exp(np.log(finite).mean()):.2f}" + (f" ({rest} not measured)" if rest else "")


def _percentile(values: np.ndarray, share: float) -> str:
    """The smallest regret that `share` of the problems do not exceed; infinite where the choice was not measured."""
    value = float(np.sort(values)[math.ceil(share * len(values)) - 1])
    return f"{value:.2f}" if math.isfinite(value) else "not measured, it would take too long"


def picture(values: np.ndarray, version: str):
    """How the regrets are distributed."""
    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axis.step(
        np.clip(values - 1, 1e-3, 1e2) * 100, np.arange(1, len(values) + 1) / len(values), where="post", color="#0072b2"
    )
    axis.set_xscale("log")
    axis.axvline(40, color="gray", linewidth=0.8, linestyle=":")
    axis.axhline(0.95, color="gray", linewidth=0.8, linestyle=":")
    axis.set_xlabel("time lost by the planner's choice, % (at least 0.1 is drawn)")
    axis.set_ylabel("share of the problems")
    axis.set_title(f"{len(values)} problems, jaxlib {version}", fontsize=10)
    return figure


if __name__ == "__main__":
    app()
