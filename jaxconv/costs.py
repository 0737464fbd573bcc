"""What the engines' work costs on a device: constants, fitted to measurements or stated.

An engine says how much of each kind of work a Problem is (`Engine.work`); `costs.json` says
what a unit of each kind costs, and how many times slower other types than float32 are: on CPU in
units of the machine (`Engine.kinds` names the rate, `rates.rates` has its seconds), on accelerators
in seconds. `scripts/fit.py` measures and writes them; docs/planner.md has what they are worth. XLA
changes, so there is a table for each jaxlib that was measured, and the latest that is not newer
than the one in use serves.

Devices differ, too: there is a table for each kind of accelerator ("gpu:NVIDIA H100 80GB HBM3"), and
that of the kind whose name is most alike serves others. Where no measurements were fitted, the table's
version is "prior": most constants are arithmetic on what the device's maker states, and `jaxconv.plan` says so.
"""

import json
import math
from collections.abc import Mapping
from difflib import SequenceMatcher
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxlib.version import __version__ as jaxlib_version

from jaxconv.engines import ENGINES, Engine
from jaxconv.engines.base import COMPILED
from jaxconv.engines.polyphase import bounded
from jaxconv.problem import Problem
from jaxconv.rates import rates

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


class Estimate(NamedTuple):
    """Seconds of a call, and of compiling it once."""

    seconds: float
    compilation: float = 0.0


def estimated(engine: Engine, problem: Problem, platform: str, precision=None) -> Estimate:
    """The estimated times of an engine that does not refuse."""
    return estimate(constants(platform, device_kind(platform), jaxlib_version), engine, problem, platform, precision)


def estimate(table: Table, engine: Engine, problem: Problem, platform: str = "cpu", precision=None) -> Estimate:
    """By a table: the work of each kind times what a unit costs."""
    row = table.get(engine.name, engine.rates)
    if not row:  # of what nothing is known
        return Estimate(math.inf)
    work = engine.work(bounded(problem), platform, precision)
    cost = {name: row.get(name, 0.0) * count for name, count in work.items()}
    once = sum(cost.pop(name, 0.0) for name in COMPILED)
    return Estimate(sum(cost.values()) * row.get(f"times {kind(problem)}", 1.0), once)


@cache
def device_kind(platform: str) -> str:
    """What JAX calls the first device of a platform; "" where there is none, as when compiling for another machine."""
    try:
        return jax.devices(platform)[0].device_kind
    except RuntimeError:
        return ""


def is_prior(platform: str) -> bool:
    """Whether the estimates for the platform's device rest on no measurement."""
    return "prior" in tables(platform, device_kind(platform))


@cache
def constants(platform: str, device: str, version: str) -> Table:
    """engine -> kind of work -> seconds a unit here, as fitted for the latest jaxlib up to `version`."""
    table = fitted_for(platform, device, version)
    return in_seconds(table, rates().seconds) if platform == "cpu" else table


def fitted_for(platform: str, device: str, version: str) -> Table:
    """The table of the latest jaxlib up to `version`: on CPU in units of a machine."""
    by_version = tables(platform, device)
    known = sorted(by_version, key=_numbers)
    return by_version[next((v for v in reversed(known) if _numbers(v) <= _numbers(version)), known[0])]


def in_seconds(table: Table, unit: Mapping[str, float]) -> Table:
    """A table in units of a machine, by what its units take."""
    return {
        name: {kind: value * unit.get(ENGINES[name].kinds.get(kind, ""), 1.0) for kind, value in row.items()}
        for name, row in table.items()
    }


@cache
def devices(platform: str) -> Mapping[str, Mapping[str, Table]]:
    """Kind of device -> version -> table; for CPU one kind, without a name."""
    by_device = json.loads(files("jaxconv").joinpath("costs.json").read_text())
    return {name.partition(":")[2]: by for name, by in by_device.items() if name.partition(":")[0] == platform}


@cache
def tables(platform: str, device: str) -> Mapping[str, Table]:
    """Version -> table, of the kind of device whose name is most alike."""
    known = devices(platform)
    return known[max(known, key=lambda name: SequenceMatcher(None, name, device).ratio())]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]
