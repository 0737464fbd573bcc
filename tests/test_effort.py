"""Effort: what compiling costs is weighed against what a call saves, as often as it is expected."""

import math

import jax
import jax.numpy as jnp
import pytest

import jaxconv
from jaxconv.effort import CALLS, VARIABLE, of_environment
from jaxconv.planner import Candidate, Options, candidates, choose, options_of
from jaxconv.problem import Axis, Problem
from tests.problems import PASSES, PROBLEMS

LAYER = Problem((Axis(58, 3, 56), Axis(58, 3, 56)), n=2, c=32, m=32)


@pytest.mark.parametrize("effort", CALLS)
def test_the_choice_has_the_least_cost(effort):
    for problem in (of(p) for p in PROBLEMS.values() for of in PASSES.values()):
        if problem.is_empty:
            continue
        admitted = [c for c in candidates(problem, Options(effort=effort), "cpu") if c.refusal is None]
        costs = [c.seconds + c.compilation / CALLS[effort] for c in admitted]
        assert costs == sorted(costs)
        assert choose(problem, Options(effort=effort), "cpu") is admitted[0].engine


def test_the_fewer_calls_the_less_is_compiled():
    """Over calls that are expected, the compilation of the choice never falls, and its seconds never rise."""
    for problem in (LAYER, LAYER.kernel_pass, LAYER.input_pass):
        first, balanced, throughput = (
            candidates(problem, Options(effort=effort), "cpu")[0] for effort in ("first call", "balanced", "throughput")
        )
        assert first.compilation <= balanced.compilation <= throughput.compilation
        assert first.seconds >= balanced.seconds >= throughput.seconds
        assert throughput.cost(math.inf) == throughput.seconds


def test_a_candidate_costs_what_was_measured_rather_than_what_was_estimated():
    engine = choose(LAYER, Options(), "cpu")
    assert Candidate(engine, None, 2.0, None, 6.0).cost(3.0) == 4.0
    assert Candidate(engine, None, 2.0, 1.0, 6.0).cost(3.0) == 1.0


def test_a_scope_says_it_to_every_call_within():
    def effort_of(f) -> str:
        return jaxconv.plan(f, jnp.ones(20), jnp.ones(3))[0].options.effort

    assert effort_of(jaxconv.convolve) == "balanced"
    with jaxconv.effort("throughput"):
        assert effort_of(jaxconv.convolve) == "throughput"
        with jaxconv.effort("first call"):
            assert effort_of(jax.grad(lambda x, h: jaxconv.correlate(x, h).sum())) == "first call"
            assert jnp.array_equal(jaxconv.convolve(jnp.ones(5), jnp.ones(2), "valid"), 2 * jnp.ones(4))
        assert effort_of(jaxconv.convolve) == "throughput"
    assert options_of("test").effort == "balanced"


def test_the_environment_says_it_to_a_whole_program(monkeypatch):
    monkeypatch.setenv(VARIABLE, "first call")
    assert options_of("test").effort == "first call"
    with jaxconv.effort("throughput"):
        assert options_of("test").effort == "throughput"
    monkeypatch.setenv(VARIABLE, "")
    assert options_of("test").effort == "balanced"
    monkeypatch.setenv(VARIABLE, "much")
    of_environment.cache_clear()
    with pytest.warns(UserWarning, match=r"JAXCONV_EFFORT is ignored.*got 'much'.*Pass 'balanced'"):
        assert options_of("test").effort == "balanced"
    assert options_of("test").effort == "balanced"  # and no second warning


@pytest.mark.parametrize("level", ["fast", 3, None, ["first call"]])
def test_another_level_is_refused(level):
    with pytest.raises(ValueError, match=r"`jaxconv.effort\(level\)` got .*: it must be 'first call', .* Pass"):
        jaxconv.effort(level).__enter__()
