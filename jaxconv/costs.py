"""What the engines' work costs: constants by platform and jaxlib, fitted to measurements.

An engine says how much of each kind of work a Problem is (`Engine.work`); `costs.json` says
what a unit of each kind costs, in seconds, and how many times slower other types than float32
are. `scripts/fit.py` measures and writes them; docs/planner.md has what they are worth. XLA
changes, so there is a table for each jaxlib that was measured, and the latest that is not newer
than the one in use serves.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import jax.numpy as jnp
from jaxlib.version import __version__ as jaxlib_version

from jaxconv.engines import Engine
from jaxconv.engines.phases import bounded
from jaxconv.problem import Problem

Table = Mapping[str, Mapping[str, float]]


def kind(problem: Problem) -> str:
    """The class of arithmetic: types of one kind cost the same."""
    if problem.is_exact:
        return "integer"
    if "float16" in problem.dtypes.x or "float16" in problem.dtypes.w:
        return "half"
    double = any(jnp.dtype(dtype).name in ("float64", "complex128") for dtype in problem.dtypes)
    return ("complex" if problem.is_complex else "real") + (
        "128" if double and problem.is_complex else "64" if double else ""
    )


def seconds(engine: Engine, problem: Problem, platform: str) -> float:
    """The estimated time of an engine that does not refuse."""
    return estimate(constants(platform, jaxlib_version), engine, problem)


def estimate(table: Table, engine: Engine, problem: Problem) -> float:
    """Seconds by a table: the work of each kind times what a unit costs."""
    rates = table[engine.name]
    total = sum(rates.get(name, 0.0) * count for name, count in engine.work(bounded(problem)).items())
    return total * rates.get(f"times {kind(problem)}", 1.0)


@cache
def constants(platform: str, version: str) -> Table:
    """engine -> kind of work -> seconds a unit, as fitted for the latest jaxlib up to `version`."""
    tables = json.loads(files("jaxconv").joinpath("costs.json").read_text())[platform]
    known = sorted(tables, key=_numbers)
    return tables[next((v for v in reversed(known) if _numbers(v) <= _numbers(version)), known[0])]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]
