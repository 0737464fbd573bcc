"""tune: measure the engines on this machine, and keep the times as wisdom."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.plan import plan
from jaxconv.planner import Options, candidates
from jaxconv.primitive import contract
from jaxconv.problem import Problem
from jaxconv.wisdom import NONE, Wisdom, read, write

QUANTILE = 0.2
REPEATED = 20  # calls in one program on an accelerator
SHORTEST = 1e-9  # seconds: of what is lost in the noise
WINDOW = 0.02  # seconds that are timed at a time there, so that the way to the device and back is a small part
SLOW = 8  # an engine that takes so many times the best is not called again
ROUNDS, MOST = 3, 600  # in which the engines take turns; calls of each in all
ONCE = 0.2  # seconds: shorter first calls are told from what a program does once only by calling again
WORSE = 20  # an engine that is estimated at this many times the best estimate is not measured


def tune(
    f: Callable | Problem, *args, path: str | os.PathLike | None = None, progress: bool = True, **kwargs
) -> Wisdom:
    """Measure every engine on each contraction of the call `f(*args, **kwargs)`.

    The call is traced, not run, as by `jaxconv.plan`: gradients are calls like any other, so
    `jaxconv.tune(jax.grad(loss), parameters)` measures the passes that training needs. Each
    engine that neither refuses nor is estimated at 20 times the best runs on random operands, the
    engines in turns; its time is the 20 % quantile of its calls in about 0.1 seconds. What is measured is
    written at once, contraction by contraction.

    Parameters
    ----------
    f : a function, or a Problem
    *args, **kwargs : its arguments; arrays may be `jax.ShapeDtypeStruct`s
    path : the file to add the times to (made if there is none), for `jaxconv.wisdom`; None writes none
    progress : whether to show a progress bar

    Returns
    -------
    Wisdom
        All that the file holds now; `.measured(problem, platform)` gives seconds by engine.

    Raises
    ------
    ValueError
        The call contracts nothing; the file is no wisdom for this machine: remove it, or name another. And what the
        call raises.

    >>> import jaxconv, jax.numpy as jnp
    >>> found = jaxconv.tune(jaxconv.correlate, jnp.ones(100), jnp.ones(5), progress=False)
    >>> [(platform, problem)] = found.problems
    >>> "shifts" in found.measured(problem, platform)
    True

    Source: the measuring planner is FFTW's (Frigo and Johnson, 2005).
    """
    platform = jax.default_backend()
    wisdom = read(path) if path is not None and Path(path).exists() else NONE
    plans = plan(f, *args, platform=platform, **kwargs)
    if not plans:
        raise ValueError(
            "`jaxconv.tune(f, *args)` found no contraction in the call: there is nothing to measure. Pass a function "
            "that calls jaxconv's functions, and its arguments; `jaxconv.plan` shows what it finds."
        )
    contractions = {p.problem: p.options for p in plans if not p.problem.is_empty}
    for problem, options in _shown(contractions, progress):
        with _types(problem):
            times = measure(problem, _worth_measuring(problem, options, platform), options)
        if path is not None and Path(path).exists():
            wisdom = read(path)  # another run may have added to it
        wisdom = wisdom.joined(platform, problem, times)
        if path is not None:
            write(path, wisdom)
    return wisdom


def _types(problem: Problem):
    """The context in which the problem's dtypes exist."""
    wide = any(jnp.dtype(dtype).name in ("float64", "complex128", "int64", "uint64") for dtype in problem.dtypes)
    return jax.enable_x64(True) if wide else nullcontext()


def _worth_measuring(problem: Problem, options: Options, platform: str) -> list[str]:
    free = options._replace(forward="auto", accuracy="normwise")
    able = [c for c in candidates(problem, free, platform) if c.seconds is not None]
    best = min(c.seconds for c in able if c.seconds is not None)
    return [c.engine.name for c in able if c.seconds is not None and c.seconds <= WORSE * best]


def _shown(contractions: dict[Problem, Options], progress: bool):
    if not progress:
        return contractions.items()
    from rich.progress import track  # here: the rest of the package does without

    return track(list(contractions.items()), description="measuring engines")


def measure(
    problem: Problem,
    engines: Iterable[str],
    options: Options = Options(),  # noqa: B008
    seconds: float = 0.1,
) -> dict[str, float]:
    """Seconds that each engine takes for a Problem on random operands: the 20 % quantile of its calls.

    About `seconds` are spent on each, in rounds in which the engines take turns, so that a busy moment of the
    machine is none of one engine's own. One that is far behind the best is called no more.
    """
    x, w = _random(problem.x_shape, problem.dtypes.x), _random(problem.w_shape, problem.dtypes.w)
    times: dict[str, list[float]] = {}
    calls: dict[str, Callable[[], float]] = {}

    def behind(name: str) -> bool:  # (a short call tells nothing before it has been made often)
        return min(times[name]) > max(seconds / ROUNDS, SLOW * min(map(min, times.values())))

    for name in engines:
        free = options._replace(forward=name, accuracy="normwise")
        once = stopwatch(partial(contract, problem, options=free), x, w)
        times[name] = [once()]
        if times[name][0] < ONCE or not behind(name):
            calls[name] = once
            times[name] = [once()]
    for _ in range(ROUNDS):
        for name, once in calls.items():
            if behind(name) or (len(times[name]) > 1 and sum(times[name]) > seconds):
                continue
            if min(times[name]) < seconds / ROUNDS:
                once()  # after another engine, its data and code are in no cache
            end = time.perf_counter() + seconds / ROUNDS
            times[name].append(once())
            while time.perf_counter() < end and len(times[name]) < MOST:
                times[name].append(once())
    return {name: max(SHORTEST, sorted(samples)[int(QUANTILE * (len(samples) - 1))]) for name, samples in times.items()}


def stopwatch(f: Callable, x: jax.Array, w: jax.Array, repeated: int | None = None) -> Callable[[], float]:
    """A function that runs f(x, w), compiled, and returns the seconds that it took.

    On an accelerator a call takes some time to be sent and to come back. There f runs `repeated` times (20; on CPU
    once) in a loop of one program, each time after the time before, and a loop without f is subtracted. What is lost in
    the noise may come out as nothing, or less.
    """
    if repeated is None:
        repeated = 1 if jax.default_backend() == "cpu" else REPEATED
    if repeated == 1:
        return partial(_seconds, jax.jit(f).lower(x, w).compile(), x, w)

    y = jnp.zeros_like(jax.eval_shape(f, x, w))
    programs = [_looped.lower(one, repeated, x, w, y).compile() for one in (f, None)]

    @cache
    def calls() -> int:  # that fill the window; counted when the first time is taken, since other programs compile now
        _seconds(programs[0], x, w, y)
        return max(1, min(50, int(WINDOW / _seconds(programs[0], x, w, y))))

    def once() -> float:
        count = calls()
        whole, empty = (_seconds(program, x, w, y, calls=count) for program in programs)
        return (whole - empty) / repeated

    return once


@partial(jax.jit, static_argnums=(0, 1))
def _looped(f: Callable | None, repeated: int, x: jax.Array, w: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
    """y = f(x, w), so many times; without f only what a trip needs besides.

    Each trip adds to one number of x and of w what is next to nothing, and comes from the y before: so none begins
    early, none is left away, and nothing is done for all of them before the loop.
    """

    def moved(a: jax.Array, by: jax.Array) -> jax.Array:
        least = by & 1 if jnp.issubdtype(by.dtype, jnp.integer) else by * 1e-30
        return a.at[(0,) * a.ndim].add(least.real.astype(a.dtype))

    def trip(_, state):
        x, w, y = state
        first = y.ravel()[0]
        x, w = moved(x, first), moved(w, first)
        return x, w, f(x, w) if f else y

    x, w, y = jax.lax.fori_loop(0, repeated, trip, (x, w, y))
    return y, x.ravel()[0], w.ravel()[0]


def _seconds(call: Callable, *args: jax.Array, calls: int = 1) -> float:
    """Of one call, of so many that are sent one after the other without waiting."""
    start = time.perf_counter()
    jax.block_until_ready([call(*args) for _ in range(calls)][-1])
    return (time.perf_counter() - start) / calls


def _random(shape: tuple[int, ...], dtype: str) -> jax.Array:
    rng = np.random.default_rng(0)
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.asarray(rng.integers(0, 8, shape), dtype)
    values = rng.standard_normal(shape, np.float32)
    return jnp.asarray(values + 1j * values if jnp.issubdtype(dtype, jnp.complexfloating) else values, dtype)
