"""Wisdom: measured times of Problems, kept in a file.

A choice that rests on measurements is better than one that rests on estimates. `jaxconv.tune`
measures the engines and writes what it found; within `jaxconv.wisdom(path)`, or with the path in
the environment variable JAXCONV_WISDOM, the planner reads it. What was measured with other
engines, another jaxlib or on another device says nothing here: such a file is refused whole.
"""

import contextlib
import contextvars
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
from jaxlib.version import __version__ as jaxlib_version

from jaxconv import files
from jaxconv.engines import ENGINES
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.processor import processor

VARIABLE = "JAXCONV_WISDOM"
FORMAT = 1


@dataclass(frozen=True)
class Wisdom:
    """Measured seconds by problem, platform and engine. Hashable: a program is compiled for the wisdom it had."""

    text: str  # canonical JSON of the entries

    def measured(self, problem: Problem, platform: str) -> Mapping[str, float]:
        """engine -> seconds, empty where nothing was measured."""
        return _entries(self.text).get(f"{platform} {_key(problem)}", {})

    @property
    def problems(self) -> list[tuple[str, Problem]]:
        """What was measured: (platform, problem)."""
        return [(platform, _problem(key)) for platform, key in (entry.split(" ", 1) for entry in _entries(self.text))]

    def joined(self, platform: str, problem: Problem, seconds: Mapping[str, float]) -> "Wisdom":
        """This wisdom and one more measurement, which replaces an older one."""
        return Wisdom(_canonical({**_entries(self.text), f"{platform} {_key(problem)}": dict(seconds)}))


NONE = Wisdom("{}")


@cache
def _entries(text: str) -> dict[str, dict[str, float]]:
    return json.loads(text)


def _canonical(entries: Mapping) -> str:
    return json.dumps(entries, sort_keys=True, separators=(",", ":"))


def _key(problem: Problem) -> str:
    axes = [[axis.I, axis.K, axis.O, axis.L, axis.S, axis.D, axis.p] for axis in problem.axes]
    return json.dumps([axes, problem.n, problem.g, problem.c, problem.m, problem.layouts, problem.dtypes])


def _problem(key: str) -> Problem:
    axes, n, g, c, m, layouts, dtypes = json.loads(key)
    return Problem(tuple(Axis(*axis) for axis in axes), n, g, c, m, Triple(*layouts), Triple(*dtypes))


def signature() -> dict[str, str]:
    """What measurements belong to: the engines (by their source), jaxlib and the device."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("engines/*.py")):
        sources.update(path.read_bytes())
    return {
        "engines": f"{' '.join(ENGINES)} {sources.hexdigest()[:16]}",
        "jaxlib": jaxlib_version,
        "device": _device(),
    }


def _device() -> str:
    device = jax.devices()[0]
    return f"{device.device_kind}" if device.platform != "cpu" else str(processor())  # XLA calls every processor "cpu"


def read(path: str | os.PathLike) -> Wisdom:
    """The wisdom of a file; a ValueError with the reason if it is none, or not for this machine."""
    file = Path(path)
    anew = "Remove it, or name another, and measure anew with `jaxconv.tune`."
    if not file.exists():
        raise ValueError(
            f"wisdom {str(path)!r}: there is no such file. Make it with `jaxconv.tune(f, *args, path=...)` or "
            f"`jaxconv tune TARGET --out {path}`."
        )
    try:
        found = json.loads(file.read_text())
        made, entries = dict(found["signature"]), found["entries"]
        if found["format"] != FORMAT:
            raise ValueError("its format is of another version of jaxconv")
        for entry, times in entries.items():
            _problem(entry.split(" ", 1)[1])
            if not all(isinstance(t, float) and t > 0 for t in times.values()) or set(times) - set(ENGINES):
                raise ValueError("a time is no positive number, or belongs to no engine")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        raise ValueError(f"wisdom {str(path)!r}: the file holds none ({e}). {anew}") from e
    here = signature()
    other = [f"{name} {made.get(name)!r}, here {value!r}" for name, value in here.items() if made.get(name) != value]
    if other:
        raise ValueError(f"wisdom {str(path)!r}: it was measured elsewhere ({'; '.join(other)}). {anew}")
    return Wisdom(_canonical(entries))


def write(path: str | os.PathLike, wisdom: Wisdom) -> None:
    """Write the file whole, or leave the old one as it is."""
    content: dict[str, Any] = {"format": FORMAT, "signature": signature(), "entries": _entries(wisdom.text)}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(content, indent=1))


SCOPE: contextvars.ContextVar[Wisdom | None] = contextvars.ContextVar("jaxconv wisdom", default=None)


@contextlib.contextmanager
def wisdom(path: str | os.PathLike) -> Iterator[Wisdom]:
    """Within this scope, measured times choose the engines.

    The choice of a `method` that the caller forces stays his. A function that was compiled
    before keeps its engines: enter the scope before its first call. The environment variable
    JAXCONV_WISDOM names a file for the whole program; one that is refused is then warned of
    once, and ignored.

    Parameters
    ----------
    path : a file that `jaxconv.tune` wrote

    Raises
    ------
    ValueError
        There is no such file, it holds no wisdom, or it was measured with other engines, another
        jaxlib or on another device.

    >>> import jaxconv, jax.numpy as jnp, tempfile, os
    >>> x, h = jnp.ones(500), jnp.ones(9)
    >>> path = os.path.join(tempfile.mkdtemp(), "wisdom.json")
    >>> found = jaxconv.tune(jaxconv.convolve, x, h, path=path, progress=False)
    >>> with jaxconv.wisdom(path):
    ...     y = jaxconv.convolve(x, h)

    Source: wisdom is FFTW's (Frigo and Johnson, 2005).
    """
    token = SCOPE.set(read(path))
    try:
        yield SCOPE.get() or NONE
    finally:
        SCOPE.reset(token)


@cache
def of_environment(path: str) -> Wisdom | None:
    """The wisdom that the environment variable names; None, with a warning, where there is none."""
    try:
        return read(path)
    except ValueError as e:
        warnings.warn(f"{VARIABLE} is ignored. {e}", stacklevel=2)
        return None
