"""Programs as values: a function's jaxpr, and the same function with some of its equations replaced.

A place is the sequence of positions that leads to an equation: (3, 0) is the first equation inside the fourth. Calls
(jit, remat, cond, scan, while) are entered; what a custom derivative or a kernel holds can be read, not rewritten.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

Place = tuple[int, ...]
Program = Any  # a ClosedJaxpr or a Jaxpr: their types say little of what is inside
Equation = Any  # a JaxprEqn
Replace = Mapping[Place, Callable[[Sequence[Any]], Sequence[Any]]]

CALLS = ("jit", "pjit", "closed_call", "core_call")  # entered as if their equations stood in their place
REMATS = ("remat2", "remat", "checkpoint")
ENTERED = (*CALLS, *REMATS, "cond", "scan", "while")  # whose equations can be replaced


def inner(eqn: Equation) -> list[Program]:
    """The programs that an equation holds, in the order of `places`."""
    values = [v if isinstance(v, tuple | list) else (v,) for v in eqn.params.values()]
    return [opened(one) for value in values for one in value if isinstance(one, ClosedJaxpr | Jaxpr)]


def opened(program: Program) -> Program:
    return getattr(program, "jaxpr", program)


def constants(program: Program) -> Sequence[Any]:
    return getattr(program, "consts", ())


def equations(jaxpr: Program, place: Place = ()) -> Iterator[tuple[Place, Equation]]:
    """All equations that can be reached through calls that happen once, in the order in which they run."""
    for position, eqn in enumerate(jaxpr.eqns):
        yield (*place, position), eqn
        if eqn.primitive.name in (*CALLS, *REMATS):
            yield from equations(inner(eqn)[0], (*place, position, 0))


def everywhere(jaxpr: Program, name: str, place: Place = ()) -> Iterator[tuple[Place, Equation]]:
    """All equations of a primitive that `evaluate` can replace, also those of loops and branches."""
    for position, eqn in enumerate(jaxpr.eqns):
        if eqn.primitive.name == name:
            yield (*place, position), eqn
        elif eqn.primitive.name in ENTERED:
            for which, program in enumerate(inner(eqn)):
                yield from everywhere(program, name, (*place, position, which))


def contractions(jaxpr: Program) -> Iterator[Equation]:
    """Every contraction of a program, also of those that can be read only, in the order of execution."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "contract":
            yield eqn
        for program in inner(eqn):
            yield from contractions(program)


def evaluate(
    program: Program,
    arguments: Sequence[Any],
    replace: Replace,
    place: Place = (),
    *,
    remat: bool = True,
) -> list[Any]:
    """The program's outputs, where `replace[place](inputs)` stands for the equation of each of these places.

    remat: whether what is computed again in the backward pass stays so; without, values inside can be handed out.
    """
    jaxpr = opened(program)
    values = dict(zip(jaxpr.constvars, constants(program), strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))
    touched = {other[: len(place) + 1] for other in replace if other[: len(place)] == place}
    for position, eqn in enumerate(jaxpr.eqns):
        inputs = [v.val if isinstance(v, Literal) else values[v] for v in eqn.invars]
        here = (*place, position)
        if here in replace:
            outputs = replace[here](inputs)
        elif here in touched:
            outputs = _entered(eqn, inputs, replace, here, remat)
        else:
            parameters = eqn.primitive.get_bind_params(eqn.params)
            outputs = eqn.primitive.bind(*inputs, **parameters)
            outputs = outputs if eqn.primitive.multiple_results else [outputs]
        values |= dict(zip(eqn.outvars, outputs, strict=True))
    return [v.val if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]


def scanned(eqn: Equation) -> tuple[int, int]:
    """(constants, carries) of a scan; what is scanned over, or stacked, has an axis more outside than in the body."""
    body = opened(eqn.params["jaxpr"])
    pairs = zip(eqn.invars, body.invars, strict=True), zip(eqn.outvars, body.outvars, strict=True)
    whole, carries = (sum(a.aval.ndim == b.aval.ndim for a, b in pair) for pair in pairs)
    return whole - carries, carries


def _entered(eqn: Equation, inputs: list[Any], replace: Replace, here: Place, remat: bool) -> Sequence[Any]:
    """The outputs of a call, some of whose equations are replaced."""
    name, params = eqn.primitive.name, eqn.params

    def run(which: int, program):
        return lambda *arguments: evaluate(program, arguments, replace, (*here, which), remat=remat)

    if name in CALLS:
        return run(0, params.get("jaxpr", params.get("call_jaxpr")))(*inputs)
    if name in REMATS:
        again = run(0, params["jaxpr"])
        return (
            jax.checkpoint(again, prevent_cse=params["prevent_cse"], policy=params["policy"])(*inputs)
            if remat
            else again(*inputs)
        )
    if name == "cond":
        branches = [run(which, branch) for which, branch in enumerate(params["branches"])]
        return lax.switch(inputs[0], branches, *inputs[1:])
    if name == "scan":
        consts, carries = scanned(eqn)
        body = run(0, params["jaxpr"])

        def step(carry, x):
            outputs = body(*inputs[:consts], *carry, *x)
            return tuple(outputs[:carries]), tuple(outputs[carries:])

        start, xs = tuple(inputs[consts : consts + carries]), tuple(inputs[consts + carries :])
        options = {option: params[option] for option in ("length", "reverse", "unroll")}
        carry, ys = lax.scan(step, start, xs, **options)
        return [*carry, *ys]
    if name == "while":
        ahead, beside = params["cond_nconsts"], params["body_nconsts"]
        places = {id(program): which for which, program in enumerate(inner(eqn))}
        test = run(places[id(opened(params["cond_jaxpr"]))], params["cond_jaxpr"])
        body = run(places[id(opened(params["body_jaxpr"]))], params["body_jaxpr"])
        start = tuple(inputs[ahead + beside :])
        return lax.while_loop(
            lambda carry: test(*inputs[:ahead], *carry)[0],
            lambda carry: tuple(body(*inputs[ahead : ahead + beside], *carry)),
            start,
        )
    raise NotImplementedError(name)
