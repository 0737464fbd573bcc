"""Rates: the seconds that a machine takes for a unit of work, as shipped for its class or as measured here.

The planner's constants (costs.json) say how many products of a large matrix, numbers moved or trips of a loop a piece
of work is worth; a rate says what one of these takes on a machine. So constants that were fitted on one processor
serve another, whose loops or memory are slower beside its matrix products. Rates are shipped for classes of
processors, by their vector instructions; `jaxconv.calibrate` measures those of the machine that it runs on, and keeps
them in a file.
"""

import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxlib.version import __version__ as jaxlib_version

from jaxconv.engines import ENGINES
from jaxconv.engines.base import RATES
from jaxconv.files import write
from jaxconv.processor import Processor, processor

FORMAT = 1
ROUNDS, CALLS = 24, 4  # rounds of measuring; calls in each
KERNELS, TRIPS, COPIES = 8, 1000, 20  # in one program
FAR, UNSTEADY = 50.0, 2.0  # times what is shipped, or what was measured before: no clock to be trusted

# Seconds for a unit, of two cores. "avx512": measured by `jaxconv calibrate` on an AMD EPYC (family 26), jax 0.10.2,
# 2026-12-01. "avx2": a processor without AVX-512, from the times of a layer (products; 8 images of 56^2, 64 features
# each, 3x3: 27 ms on one core), a filter of 7x7 (loops), a transform of 1024^2 (steps; 3.3 ms on one core) and a
# compilation; what was not timed there is taken as twice as slow.
SHIPPED: Mapping[str, Mapping[str, float]] = {
    "avx512": {
        "product": 4.6e-12, "loop": 1.8e-11, "cached": 2.4e-10, "streamed": 7.2e-10, "step": 5.3e-11, "trip": 3.3e-7,
        "call": 4.9e-6, "compilation": 0.0073,
    },
    "avx2": {
        "product": 1.4e-11, "loop": 3.9e-11, "cached": 4.8e-10, "streamed": 1.4e-9, "step": 7.8e-11, "trip": 6.6e-7,
        "call": 1e-5, "compilation": 0.0146,
    },
}  # fmt: skip
CORES = 2  # that those are of
BY_CORES = MappingProxyType({"product": 64, "loop": 64, "step": 64, "streamed": 4})  # that share the work, at most


class Rates(NamedTuple):
    """seconds: for a unit of each. source: where they come from, in words."""

    seconds: Mapping[str, float]
    source: str


def shipped(machine: Processor) -> Rates:
    """Those of the processor's class; what many cores share is divided by their number."""
    seconds = {
        name: rate * CORES / min(machine.cores, BY_CORES[name]) if name in BY_CORES else rate
        for name, rate in SHIPPED[machine.kind].items()
    }
    of = "with" if machine.kind == "avx512" else "without"
    return Rates(seconds, f"as shipped for processors {of} AVX-512, {machine.cores} cores (see `jaxconv calibrate`)")


@cache
def rates() -> Rates:
    """Those that were measured on this machine; where there are none, or for other versions, the shipped ones."""
    try:
        found = _read(path())
    except FileNotFoundError:
        return shipped(processor())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        _warn(f"{path()} is ignored: {e}. Remove it, or measure anew with `jaxconv calibrate`.")
        return shipped(processor())
    return found


def path() -> Path:
    """The file of this user for what `key` says."""
    from platformdirs import user_data_path  # here: importing jaxconv brings nothing beside JAX

    name = hashlib.sha256(json.dumps(key()).encode()).hexdigest()[:16]
    return user_data_path("jaxconv", appauthor=False) / f"rates-{name}.json"


def key() -> dict[str, str]:
    """What rates belong to: the processor and what XLA may use of it, jaxlib, the engines that are weighed by them."""
    isa = re.search(r"xla_cpu_max_isa=(\w+)", os.environ.get("XLA_FLAGS", ""))
    return {
        "processor": str(processor()),
        "instructions": isa[1] if isa else "all",
        "jaxlib": jaxlib_version,
        "engines": " ".join(ENGINES),
    }


def _read(file: Path) -> Rates:
    made = json.loads(file.read_text())
    if made["format"] != FORMAT:
        raise ValueError("it is of another version of jaxconv")
    if other := [f"{name} {made['key'].get(name)!r}, here {value!r}" for name, value in key().items()
                 if made["key"].get(name) != value]:  # fmt: skip
        raise ValueError(f"it was measured elsewhere ({'; '.join(other)})")
    return Rates(_plausible(made["seconds"]), f"as measured on {made['date']}")


def _plausible(seconds: Mapping[str, float]) -> Mapping[str, float]:
    expected = shipped(processor()).seconds
    if set(seconds) != set(expected):
        raise ValueError(f"it has the rates {', '.join(seconds)}, not {', '.join(expected)}")
    for name, rate in seconds.items():
        if not (isinstance(rate, float) and expected[name] / FAR < rate < expected[name] * FAR):
            raise ValueError(f"{rate!r} s for a unit of {name!r} are far from {expected[name]:.3g}, as shipped")
    return seconds


def calibrate(progress: bool = True) -> Rates:
    """Measure the rates of this machine, and keep them for the planner: some seconds, in which nothing else should run.

        rate = least time of a small program / units of work in it

    They are kept in a file of the user's data folder (`jaxconv.rates.path()`), by processor, jaxlib and engines.
    Processes that have already planned keep the rates of before: start a new one.

    Parameters
    ----------
    progress : show a progress bar

    Returns
    -------
    The rates in use: `seconds` by name, and their `source` in words.

    Where the times do not repeat, or the file cannot be written, a warning says so, and the rates are those of before.

        jaxconv calibrate           # the same from the command line

    >>> import jaxconv.rates
    >>> sorted(jaxconv.rates.rates().seconds)  # what is in use now
    ['cached', 'call', 'compilation', 'loop', 'product', 'step', 'streamed', 'trip']

    Source: the model of a machine by a few rates; Williams, Waterman and Patterson, Roofline (2009).
    """
    before = rates()
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        seconds = _plausible(measured(time.perf_counter, progress))
        content = {"format": FORMAT, "key": key(), "date": time.strftime("%Y-%m-%d"), "seconds": seconds}
        write(path(), json.dumps(content, indent=1) + "\n")
    except ValueError as e:
        _warn(f"jaxconv.calibrate kept nothing: {e}. The rates of before stay. Try again on a quiet machine.")
        return before
    except OSError as e:
        _warn(f"jaxconv.calibrate kept nothing: {e}. The rates of before stay. Make {path().parent} writable.")
        return before
    rates.cache_clear()
    return rates()


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def measured(clock: Callable[[], float], progress: bool = False) -> dict[str, float]:
    """Seconds for a unit of each, by programs that take turns; a ValueError if a time is none or does not repeat."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # whatever else there is
        return _measured(clock, progress)


def _measured(clock: Callable[[], float], progress: bool) -> dict[str, float]:
    programs = {
        name: (jax.jit(f).lower(*args).compile(), args, units) for name, (f, args, units) in _programs().items()
    }
    times: dict[str, list[float]] = {name: [] for name in ("compilation", *programs)}
    for turn in _shown(range(ROUNDS), progress):
        start = clock()
        jax.jit(partial(_kernels, salt=time.time_ns() + turn)).lower(_numbers(64)).compile()  # which no cache has kept
        times["compilation"].append((clock() - start) / KERNELS)
        for name, (run, args, units) in programs.items():
            for _ in range(CALLS):
                start = clock()
                jax.block_until_ready(run(*args))
                times[name].append((clock() - start) / units)
    for name, found in times.items():
        early, late = min(found[: len(found) // 2]), min(found[len(found) // 2 :])
        if not (min(early, late) > 0 and max(early, late) < UNSTEADY * min(early, late)):
            raise ValueError(f"the clock gave {early:.3g} and then {late:.3g} s for a unit of {name!r}")
    return {name: min(times[name]) for name in RATES}


def _shown(rounds: range, progress: bool) -> Iterable[int]:
    if not progress:
        return rounds
    from rich.progress import track  # here: the rest of the package does without

    return track(rounds, description="measuring rates")


def _programs() -> Mapping[str, tuple[Callable[..., Array], tuple[Array, ...], float]]:
    """name -> (function, its arguments, how many units of work it is), for each rate but that of compiling."""
    image, blocks = _numbers(512, 512), _numbers(1, 66, 66, 16)
    return {
        "product": (jnp.dot, (_numbers(512, 512), _numbers(512, 512)), 512.0**3),
        "loop": (_stencil, (image, _numbers(25)), 25.0 * 508 * 508),
        "cached": (_windows, (blocks,), 9.0 * 64 * 64 * 16 * COPIES),
        "streamed": (lambda x: 2 * x, (_numbers(1 << 24),), float(1 << 24)),
        "step": (lambda x: jnp.fft.irfft(jnp.fft.rfft(x)), (_numbers(64, 4096),), 2.0 * 64 * 4096 * 12),
        "trip": (_trips, (_numbers(2, 8, 8) / 8,), float(TRIPS)),
        "call": (lambda x: 2 * x, (_numbers(16),), 1.0),
    }


def _numbers(*shape: int) -> Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def _stencil(x: Array, w: Array) -> Array:
    """The terms of a kernel of 5x5, in one loop."""
    return sum(x[i // 5 : i // 5 + 508, i % 5 : i % 5 + 508] * w[i] for i in range(1, 25)) + x[:508, :508] * w[0]


def _windows(x: Array) -> Array:
    """The patches of a kernel of 3x3 side by side, again and again: once a program's memory is there, it stays."""

    def trip(_, y: Array) -> Array:
        moved = x + 1e-30 * y[0, 0, 0, 0]  # so that none is made before the loop
        return jnp.concatenate([moved[:, i : i + 64, j : j + 64] for i in range(3) for j in range(3)], -1)

    return lax.fori_loop(0, COPIES, trip, jnp.zeros((1, 64, 64, 144)))


def _trips(x: Array) -> Array:
    """A loop of many trips, each of two small programs."""
    return lax.fori_loop(0, TRIPS, lambda i, y: jnp.dot(y, x[i % 2]) + 1, x[0])


def _kernels(x: Array, salt: int) -> list[Array]:
    """So many loops, each of its own length and with a constant of its own."""
    return [x[i:] * np.float32(salt % 16_777_213 + i) for i in range(KERNELS)]
