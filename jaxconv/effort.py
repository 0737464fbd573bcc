"""Effort: how much time to compile a faster call is worth.

XLA compiles loops for each shape, which takes an engine of many loops seconds, and one that calls a library next to
nothing. What pays depends on how often a program will be called, which its author knows and the planner does not.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from math import inf
from typing import Literal, get_args

Effort = Literal["first call", "balanced", "throughput"]
VARIABLE = "JAXCONV_EFFORT"
CALLS: dict[str, float] = {"first call": 1.0, "balanced": 1000.0, "throughput": inf}  # expected of a program

SCOPE: ContextVar[Effort | None] = ContextVar("jaxconv effort", default=None)


@contextmanager
def effort(level: Effort) -> Iterator[None]:
    """Within this scope, engines are chosen for programs that are called once, a thousand times, or forever.

    The choice of a `method` that the caller forces stays his. A function that was compiled before keeps its engines:
    enter the scope before its first call. The environment variable JAXCONV_EFFORT sets the level of a whole program.

    Parameters
    ----------
    level : 'first call' | 'balanced' | 'throughput'
        'first call' for the least time until the first result, 'balanced' (the default) for about a thousand calls,
        'throughput' for the fastest call, whatever it takes to compile.

    Raises
    ------
    ValueError
        Another level.

    >>> import jaxconv, jax.numpy as jnp
    >>> with jaxconv.effort("first call"):
    ...     y = jaxconv.convolve(jnp.ones((64, 64)), jnp.ones((5, 5)))

    Source: the planning rigours of FFTW (Frigo and Johnson, 2005), which weigh planning against running.
    """
    token = SCOPE.set(_checked("jaxconv.effort(level)", level))
    try:
        yield
    finally:
        SCOPE.reset(token)


@cache
def of_environment(level: str) -> Effort:
    """The level that the environment variable names; 'balanced', with a warning, for another word."""
    try:
        return _checked(VARIABLE, level)
    except ValueError as e:
        warnings.warn(f"{VARIABLE} is ignored. {e}", stacklevel=2)
        return "balanced"


def _checked(call: str, level) -> Effort:
    if level not in get_args(Effort):
        raise ValueError(
            f"`{call}` got {level!r}: it must be 'first call', 'balanced' or 'throughput'. Pass 'balanced', as by "
            "default."
        )
    return level
