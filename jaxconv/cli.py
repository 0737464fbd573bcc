"""The command `jaxconv`: plan and tune, for the contractions of a user's program."""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxconv.plan import plan as plan_of
from jaxconv.problem import Problem
from jaxconv.tune import tune as tune_of

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Target = Annotated[
    str,
    typer.Argument(
        help="module:name or file.py:name of a function without arguments, a jaxconv Problem, "
        "a tuple (function, *arguments), or a list of these"
    ),
]


@app.callback()
def main() -> None:
    """Convolution and correlation as differentiable linear operators in JAX."""


@app.command()
def plan(target: Target) -> None:
    """Print what each contraction would run, and why not another engine."""
    for f, *args in _calls(target):
        print(plan_of(f, *args))


@app.command()
def tune(
    target: Target,
    out: Annotated[Path, typer.Option(help="the file of wisdom to write or to add to")],
    progress: Annotated[bool, typer.Option(help="show a progress bar")] = True,
) -> None:
    """Measure the engines for each contraction, and keep the times for `jaxconv.wisdom` or JAXCONV_WISDOM."""
    try:
        for f, *args in _calls(target):
            wisdom = tune_of(f, *args, path=out, progress=progress)
            for problem, platform in dict.fromkeys((p.problem, p.platform) for p in plan_of(f, *args)):
                if times := wisdom.measured(problem, platform):
                    best = min(times, key=times.__getitem__)
                    print(f"{best:9}{1e3 * times[best]:10.4g} ms   {problem}")
    except ValueError as e:
        raise typer.BadParameter(str(e)) from e


def _calls(target: str) -> list[tuple[Any, ...]]:
    """(function or Problem, *arguments) for each thing that the target names."""
    place, _, name = target.rpartition(":")
    if not place:
        raise typer.BadParameter(f"{target!r} has no ':'. Give module:name or file.py:name.", param_hint="TARGET")
    try:
        found = getattr(_module(place), name)
    except (ImportError, AttributeError, OSError) as e:
        raise typer.BadParameter(f"{target!r} cannot be loaded: {e}.", param_hint="TARGET") from e
    listed = found if isinstance(found, list) else [found]
    calls = [tuple(one) if isinstance(one, tuple) else (one,) for one in listed]
    if not calls or not all(call and (callable(call[0]) or isinstance(call[0], Problem)) for call in calls):
        raise typer.BadParameter(
            f"{target!r} is {type(found).__name__}: it must be a function, a Problem, a tuple (function, *arguments), "
            "or a list of these.",
            param_hint="TARGET",
        )
    for f, *args in calls:
        try:
            _ = isinstance(f, Problem) or inspect.signature(f).bind(*args)
        except TypeError as e:
            raise typer.BadParameter(
                f"{target!r} cannot be called with {len(args)} arguments: {e}. Give a tuple (function, *arguments).",
                param_hint="TARGET",
            ) from e
    return calls


def _module(place: str):
    if not place.endswith(".py"):
        sys.path.insert(0, "")
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python file {place}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
