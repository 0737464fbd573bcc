"""Fit the planner's constants on this machine, and judge the planner on problems that were not fitted.

    .venv/bin/python scripts/fit.py measure     # times every engine on problems: 20 minutes for 500
    .venv/bin/python scripts/fit.py fit         # fits, judges on what was not fitted, writes jaxconv/costs.json
    .venv/bin/python scripts/fit.py fit --data FILE     # likewise, to what another machine measured

The problems are the bench's rows, and random ones (scripts/problems.py); judged are random ones only.
The loss of a choice is the time of the engine that the planner takes over that of the best, less one.
Measurements go to out/fit/: a line about the device, and one JSON line a problem, [seed, problem, seconds by engine,
precision]; they are resumed, and the report and its picture lie beside them. Nothing else should run meanwhile.
"""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jaxlib
import matplotlib
import numpy as np
import typer
from jax import lax
from problems import ROWS, random_problem
from rich.progress import track
from scipy.optimize import least_squares, nnls

from jaxconv import costs
from jaxconv.engines import INSTALLED, Engine
from jaxconv.planner import Options, candidates
from jaxconv.problem import Axis, Problem, Triple  # noqa: F401  (what a line of measurements is written in)
from jaxconv.tune import measure as times_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path("out/fit")
TABLE = Path("jaxconv/costs.json")
FOLDS = 5
COUNTED = 8  # times that a row counts
FAR = 0.3  # the least weight of an engine's time
CAUTION = 0.6  # quantile of what other types take: where they vary, an engine is not to be relied on
FEW = 12  # measurements, of which no engine is fitted
HOPELESS = 2.0  # seconds: an engine whose estimate is beyond is not measured
app = typer.Typer(help=__doc__, rich_markup_mode=None, pretty_exceptions_enable=False)
Precision = tuple[lax.Precision, lax.Precision] | None


class Measurement(NamedTuple):
    problem: Problem
    times: dict[str, float]  # seconds by engine
    precision: Precision = None


class About(NamedTuple):
    """What was measured on: the first line of a file."""

    platform: str
    device: str
    jaxlib: str
    engines: list[str]
    date: str = ""

    @classmethod
    def here(cls) -> "About":
        device = jax.devices()[0]
        return cls(device.platform, device.device_kind, jaxlib.__version__, list(INSTALLED), time.strftime("%Y-%m-%d"))

    @property
    def key(self) -> str:
        """In costs.json."""
        return self.platform if self.platform == "cpu" else f"{self.platform}:{self.device}"


Measured = list[Measurement]


def measurements() -> Path:
    return FOLDER / f"{jax.default_backend()}-{jaxlib.__version__}.jsonl"


@app.command()
def measure(
    count: Annotated[int, typer.Option(help="how many problems in all")] = 620,
    seconds: Annotated[float, typer.Option(help="time spent on each engine")] = 0.06,
    minutes: Annotated[float, typer.Option(help="stop after that long")] = 60,
) -> None:
    """Time every engine on the rows (their seeds are negative) and on random problems, but for those that were.

    Measurements of engines that have changed since are the caller's to remove.
    """
    path, platform, start = measurements(), jax.default_backend(), time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)[0] for line in path.read_text().splitlines()[1:]} if path.exists() else set()
    with path.open("a") as file:
        if not path.stat().st_size:
            file.write(json.dumps(About.here()._asdict()) + "\n")
        for seed in track([s for s in range(-len(ROWS), count) if s not in done], description="measuring"):
            if time.monotonic() - start > 60 * minutes:
                break
            problem = random_problem(seed) if seed >= 0 else ROWS[seed]
            with jax.enable_x64("64" in problem.dtypes.x):
                answers = candidates(problem, Options(), platform)
                able = [c.engine.name for c in answers if c.seconds is not None and c.seconds < HOPELESS]
                times = times_of(problem, able, seconds=seconds)
            jax.clear_caches()
            file.write(json.dumps([seed, repr(problem), times]) + "\n")
            file.flush()


def read(path: Path) -> tuple[About, Measured, Measured]:
    """What was measured on, on the rows, and on random problems. A last line that is not whole is left away."""
    try:
        head, *lines = path.read_text().splitlines()
        about = About(**json.loads(head))
    except (OSError, ValueError, TypeError) as error:
        raise typer.BadParameter(
            f"--data {path}: no measurements ({type(error).__name__}: {error}). Make them with `fit.py measure`."
        ) from error
    if about.engines != list(INSTALLED):
        raise typer.BadParameter(
            f"--data {path}: it was measured with the engines {', '.join(about.engines)}; there are "
            f"{', '.join(INSTALLED)}. Measure anew."
        )
    found: dict[tuple, Measurement] = {}  # the engines of one problem may stand on several lines
    for line in lines:
        try:
            seed, text, times, *precision = json.loads(line)
        except ValueError:
            break  # a last line that is not whole, or a remark: the run was stopped here
        pair = tuple(lax.Precision(p) for p in precision[0]) if precision and precision[0] else None
        known = found.setdefault((seed < 0, text, pair), Measurement(eval(text), {}, pair))
        known.times.update(times)
    return about, *([m for (row, *_), m in found.items() if row == wanted and m.times] for wanted in (True, False))


def fitted(engine: Engine, measured: Measured, platform: str, device: str) -> dict[str, float]:
    """The constants of one engine: not negative, least squares of the logarithm.

    Outliers count less, and so does an engine that is far from the best: its time is only to be large. One that was
    hardly measured keeps the constants that it has.
    """
    mine = [m for m in measured if engine.name in m.times]
    if sum(costs.kind(m.problem) == "real" for m in mine) < FEW:
        return dict(costs.constants(platform, device, jaxlib.__version__)[engine.name])
    near = [min(m.times.values()) / m.times[engine.name] for m in mine]
    kinds = np.array([costs.kind(m.problem) for m in mine])
    times, weights = np.array([m.times[engine.name] for m in mine]), np.sqrt(np.maximum(near, FAR))
    real = kinds == "real"
    works = [engine.work(m.problem, platform, m.precision) for m in mine]
    names = sorted({name for work, r in zip(works, real, strict=True) if r for name in work})
    counts = np.array([[work.get(name, 0.0) for name in names] for work in works])
    scale = np.maximum(counts[real].max(0), 1e-30)
    counts /= scale
    start, _ = nnls((weights[:, None] * counts / times[:, None])[real], weights[real])

    # Unused constants may come in again, from a small share of the median time.
    start = np.log(np.maximum(start, 1e-3 * np.median(times)))
    result = least_squares(
        lambda theta: weights[real] * (np.log(counts[real] @ np.exp(theta)) - np.log(times[real])),
        start,
        jac=lambda theta: (weights / (counts @ np.exp(theta)))[real, None] * counts[real] * np.exp(theta),
        bounds=(start - 40, start + 20),
        loss="soft_l1",
        f_scale=0.3,
    )
    parts = counts * np.exp(result.x)
    total = parts.sum(1)
    share = (parts / total[:, None])[real].max(0)
    rates = {
        n: float(f"{np.exp(t) / s:.4g}") for n, t, s, u in zip(names, result.x, scale, share, strict=True) if u > 0.01
    }
    for kind in sorted(set(kinds) - {"real"}):
        rates[f"times {kind}"] = float(f"{np.quantile((times / total)[kinds == kind], CAUTION):.3g}")
    return rates


def fit_all(measured: Measured, about: About) -> dict[str, dict[str, float]]:
    return {name: fitted(engine, measured, about.platform, about.device) for name, engine in INSTALLED.items()}


def losses(measured: Measured, table, platform: str) -> Iterator[tuple[float, str, str, Problem]]:
    """(loss, chosen, best, problem)."""
    for problem, times, precision in measured:
        if not times:
            continue
        able = [e.name for e in INSTALLED.values() if not e.refusal(problem, platform)]
        chosen = min(able, key=lambda name: costs.estimate(table, INSTALLED[name], problem, platform, precision))
        best = min(times, key=times.__getitem__)
        yield times.get(chosen, math.inf) / times[best] - 1, chosen, best, problem


@app.command()
def fit(
    data: Annotated[Path | None, typer.Option(help="the measurements; by default those of this jaxlib")] = None,
    write: Annotated[bool, typer.Option(help="write jaxconv/costs.json")] = True,
    worst: Annotated[int, typer.Option(help="how many of the worst choices to print")] = 15,
) -> None:
    """Fit on all measurements; judge each problem by constants that were fitted without it."""
    about, of_rows, measured = read(data or measurements())
    platform, version = about.platform, about.jaxlib
    if len(of_rows) + len(measured) < FEW or len(measured) < FOLDS:
        raise typer.BadParameter(
            f"--data {data or measurements()}: it has {len(of_rows)} rows and {len(measured)} random problems, too few "
            f"to fit. Measure on: at least {FEW} in all, and {FOLDS} random ones."
        )
    found, ratios = [], {name: [] for name in INSTALLED}
    for fold in range(FOLDS):
        rest = [one for i, one in enumerate(measured) if i % FOLDS != fold]
        table = {
            engine.name: fitted(engine, COUNTED * of_rows + rest, platform, about.device)
            for engine in INSTALLED.values()
        }
        found += losses(measured[fold::FOLDS], table, platform)
        for problem, times, precision in measured[fold::FOLDS]:
            for name, t in times.items():
                ratios[name].append(costs.estimate(table, INSTALLED[name], problem, platform, precision) / t)
    found.sort(key=lambda row: -row[0])
    everything = {
        engine.name: fitted(engine, COUNTED * of_rows + measured, platform, about.device)
        for engine in INSTALLED.values()
    }
    own = np.array([loss for loss, *_ in losses(of_rows, everything, platform)])
    values = np.array([row[0] for row in found])
    found_times = [m.times for m in measured if m.times]
    always = {n: np.array([t[n] / min(t.values()) - 1 if n in t else math.inf for t in found_times]) for n in INSTALLED}
    lines = [
        f"jaxlib {version}, {about.device}, {time.strftime('%Y-%m-%d')}: {len(values)} random "
        f"problems, each judged by constants that were fitted without it ({FOLDS} folds).",
        f"On the bench's {len(of_rows)} problems, which are in the fit, the median loss is "
        f"{np.median(own):.1%}, the greatest {_percentile(own, 1.0)}.",
        "",
        "| choice | median loss | 90th percentile | 95th percentile | best engine chosen |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {np.median(v):.1%} | {_percentile(v, 0.9)} | {_percentile(v, 0.95)} | {np.mean(v == 0):.0%} |"
            for name, v in {"the planner": values, **{f"always {n}": v for n, v in always.items()}}.items()
        ),
        "",
    ]
    print("\n".join(lines))
    for name, r in ((name, r) for name, r in ratios.items() if r):
        quantiles = " ".join(f"{q:.2f}" for q in np.quantile(r, [0.05, 0.25, 0.5, 0.75, 0.95]))
        print(f"{name:9} {len(r)} estimates, quantiles of estimate/measured: {quantiles}")
    for loss, chosen, best, problem in found[:worst]:
        print(f"{loss:7.0%} {chosen} for {best}: {problem}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"planner-{version}.md").write_text("\n".join(lines))
    picture(np.sort(values), version).savefig(FOLDER / f"planner-{version}.png", dpi=110)
    if write:
        tables = json.loads(TABLE.read_text()) if TABLE.exists() else {}
        known = tables.setdefault(about.key, {})
        prior = known.pop("prior", {})  # serves for kinds of work that were not met
        known[version] = {name: prior.get(name, {}) | rates for name, rates in everything.items()}
        part = TABLE.with_suffix(".part")
        part.write_text(json.dumps(tables, indent=1) + "\n")
        part.replace(TABLE)


def _percentile(values: np.ndarray, share: float) -> str:
    """The smallest loss that `share` of the problems do not exceed; infinite where the choice was not measured."""
    value = float(np.sort(values)[math.ceil(share * len(values)) - 1])
    return f"{value:.0%}" if math.isfinite(value) else "not measured, it would take too long"


def picture(values: np.ndarray, version: str):
    """How the losses are distributed."""
    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axis.step(
        np.clip(values, 1e-3, 1e2) * 100, np.arange(1, len(values) + 1) / len(values), where="post", color="#0072b2"
    )
    axis.set_xscale("log")
    axis.axvline(50, color="gray", linewidth=0.8, linestyle=":")
    axis.axhline(0.95, color="gray", linewidth=0.8, linestyle=":")
    axis.set_xlabel("time lost by the planner's choice, % (at least 0.1 is drawn)")
    axis.set_ylabel("share of the problems")
    axis.set_title(f"{len(values)} random problems, jaxlib {version}", fontsize=10)
    return figure


if __name__ == "__main__":
    app()
