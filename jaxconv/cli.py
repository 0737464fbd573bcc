"""The command `jaxconv`: plan and tune, for a user's contractions; calibrate and verify, for a device."""

import importlib
import importlib.util
import inspect
import os
import sys
import warnings
from json import dumps as to_json
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxconv.files import write
from jaxconv.plan import plan as plan_of
from jaxconv.problem import Problem
from jaxconv.processor import processor
from jaxconv.rates import calibrate as calibrated
from jaxconv.rates import path as rates_path
from jaxconv.rates import shipped
from jaxconv.tune import tune as tune_of
from jaxconv.versions import __version__

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Target = Annotated[
    str,
    typer.Argument(
        help="module:name or file.py:name of a function without arguments, a jaxconv Problem, "
        "a tuple (function, *arguments), or a list of these"
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"jaxconv {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
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


@app.command()
def calibrate(progress: Annotated[bool, typer.Option(help="show a progress bar")] = True) -> None:
    """Measure this machine for the planner, which takes some seconds; nothing else should run meanwhile."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        found, usual = calibrated(progress), shipped(processor())
    for remark in remarks:
        print(remark.message, file=sys.stderr)
    if remarks:
        raise typer.Exit(1)
    for name, seconds in found.seconds.items():
        print(f"{name:12}{seconds:10.3g} s a unit, {seconds / usual.seconds[name]:6.2f} times the shipped")
    print(f"kept in {rates_path()}")


@app.command()
def verify(
    theme: Annotated[list[str] | None, typer.Option(help="a theme of identities; repeatable")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="an engine, or auto; repeatable")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="a dtype; repeatable")] = None,
    device: Annotated[str | None, typer.Option(help="a platform of JAX's, such as cpu, gpu or gpu:1")] = None,
    seeds: Annotated[int, typer.Option(help="random cases, each of the next shapes; 1000 is a soak", min=1)] = 1,
    json: Annotated[Path | None, typer.Option(help="write the report as JSON")] = None,
    html: Annotated[Path | None, typer.Option(help="write the report as an HTML page; wants jaxconv\\[report]")] = None,
    progress: Annotated[bool, typer.Option(help="show a progress bar")] = True,
) -> None:
    """Verify the identities of convolution and correlation on this device; exit with 1 if any fails."""
    # Here, so that `jaxconv plan` needs none of it.
    from rich.console import Console

    from jaxconv.identities import verify as verified

    for option, path in (("--json", json), ("--html", html)):  # known before the minutes of work
        if path and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            raise typer.BadParameter(f"{option} {path}: its folder must exist, to be written to. Make it first.")
        if path and path.is_dir():
            raise typer.BadParameter(f"{option} {path}: it is a folder. Name a file in it.")
    if json and html and json.resolve() == html.resolve():
        raise typer.BadParameter(f"--json and --html are both {json}: one would overwrite the other. Name two files.")
    if html:
        try:
            from jaxconv.identities.page import page
        except ImportError as e:
            raise typer.BadParameter(f"--html: {e}. `pip install 'jaxconv[report]'` brings what it wants.") from e
    try:
        report = verified(theme, engine, dtype, device, seeds, progress)
    except ValueError as e:
        raise typer.BadParameter(str(e)) from e
    report.print(Console(width=None if sys.stdout.isatty() else 150))
    if json:
        write(json, to_json(report.as_json(), indent=1, ensure_ascii=False))
    if html:
        write(html, page(report))  # pyright: ignore[reportPossiblyUnboundVariable]
    raise typer.Exit(0 if report.holds else 1)


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
