"""The relation: transposes are involutions, flips keep the sums, meetings are what the words say."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxconv.problem import SPATIAL, Axis, Problem, Triple
from tests.problems import PASSES, PROBLEMS

axes = st.builds(
    Axis,
    *[st.integers(0, 6)] * 3,
    L=st.sampled_from([-3, -2, -1, 1, 2, 3]),
    S=st.sampled_from([-3, -2, -1, 1, 2, 3]),
    D=st.sampled_from([-3, -2, -1, 1, 2, 3]),
    p=st.integers(-9, 9),
)


def literal(axis: Axis) -> set[tuple[int, int, int]]:
    """The relation, as the sentence that defines it."""
    return {
        (i, k, o)
        for i, k, o in product(range(axis.I), range(axis.K), range(axis.O))
        if axis.L * i + axis.p == axis.S * o + axis.D * k
    }


@given(axes)
def test_meetings_are_the_relation(axis):
    found = list(axis.meetings())
    assert len(found) == len(set(found))
    assert set(found) == literal(axis)


@given(axes)
def test_passes_exchange_roles(axis):
    assert literal(axis.input_pass) == {(o, k, i) for i, k, o in literal(axis)}
    assert literal(axis.kernel_pass) == {(i, o, k) for i, k, o in literal(axis)}


@given(axes)
def test_passes_are_involutions(axis):
    assert axis.input_pass.input_pass == axis
    assert axis.kernel_pass.kernel_pass == axis
    # The three roles: exchanging input and output, then output and kernel, then input and output again ...
    # ... is exchanging input and kernel, up to the sign of both sides.
    left, right = axis.input_pass.kernel_pass.input_pass, axis.kernel_pass.input_pass.kernel_pass
    assert left in (right, right.negated)


@given(axes)
def test_the_input_pass_turns_the_sign_of_D(axis):
    assert axis.input_pass.D == -axis.D


@given(axes)
def test_flips(axis):
    I, K, O = axis.I, axis.K, axis.O
    assert literal(axis.input_flipped) == {(I - 1 - i, k, o) for i, k, o in literal(axis)}
    assert literal(axis.kernel_flipped) == {(i, K - 1 - k, o) for i, k, o in literal(axis)}
    assert literal(axis.output_flipped) == {(i, k, O - 1 - o) for i, k, o in literal(axis)}
    assert literal(axis.negated) == literal(axis)


@given(axes, st.sampled_from([-1, 1]))
def test_oriented(axis, sign):
    turned, flip_kernel, flip_output = axis.oriented(sign)
    assert turned.L > 0
    assert turned.S > 0
    assert turned.D * sign > 0
    assert literal(turned) == {
        (i, axis.K - 1 - k if flip_kernel else k, axis.O - 1 - o if flip_output else o) for i, k, o in literal(axis)
    }


@given(axes.filter(lambda a: a.L > 0 and a.I > 0), st.integers(0, 3), st.integers(0, 3))
def test_extended_and_reach(axis, low, high):
    assert literal(axis.extended(low, high)) >= {(i + low, k, o) for i, k, o in literal(axis)}
    reach = axis.reach
    full = literal(axis.extended(*reach))
    # Beyond the reach nothing more meets.
    more = literal(axis.extended(reach[0] + 2, reach[1] + 2))
    assert {(i + 2, k, o) for i, k, o in full} == more


@given(axes)
def test_met(axis):
    """No meeting is lost, and what is left needs no crop: on an oriented axis no padding is negative."""
    axis, _, _ = axis.oriented(+1)
    part, start, stop = axis.met
    assert 0 <= start <= stop <= axis.I
    assert {(i + start, k, o) for i, k, o in literal(part)} == literal(axis)
    if part.I and part.K and part.O:
        assert part.p >= 0
        assert part.S * (part.O - 1) + part.D * (part.K - 1) - part.p - part.L * (part.I - 1) >= 0


def test_the_reach_is_no_longer_than_needed():
    assert Axis(I=3, K=1, O=1, L=2, p=1).reach == (0, 0)  # asks for position -1/2, which there is not
    assert Axis(I=3, K=1, O=1, L=2, p=2).reach == (1, 0)
    assert Axis(I=3, K=3, O=3, p=1).reach == (1, 1)
    assert Axis(I=3, K=3, O=1).reach == (0, 0)


@pytest.mark.parametrize("name", PROBLEMS)
def test_problem_passes_are_involutions(name):
    problem = PROBLEMS[name]
    assert problem.input_pass.input_pass == problem
    assert problem.kernel_pass.kernel_pass == problem
    assert problem.exchanged.exchanged == problem
    x, w, y = problem.x_shape, problem.w_shape, problem.y_shape
    assert (problem.input_pass.x_shape, problem.input_pass.w_shape, problem.input_pass.y_shape) == (y, w, x)
    assert (problem.kernel_pass.x_shape, problem.kernel_pass.w_shape, problem.kernel_pass.y_shape) == (x, y, w)
    assert (problem.exchanged.x_shape, problem.exchanged.w_shape, problem.exchanged.y_shape) == (w, x, y)


@pytest.mark.parametrize("name", PROBLEMS)
def test_problem_passes_have_the_same_terms(name):
    """One form: the three passes sum the same triples."""
    problem = PROBLEMS[name]
    triples = set(problem.meetings())
    assert {(i, k, o) for o, k, i in problem.input_pass.meetings()} == triples
    assert {(i, k, o) for i, o, k in problem.kernel_pass.meetings()} == triples
    assert {(i, k, o) for k, i, o in problem.exchanged.meetings()} == triples


def test_problems_are_hashable_and_equal_by_value():
    assert {of(problem) for problem in PROBLEMS.values() for of in PASSES.values()}
    a, b = Problem((Axis(4, 3, 2),), n=2), Problem((Axis(4, 3, 2),), n=2)
    assert a == b
    assert hash(a) == hash(b)
    assert a != a.fold("n", 2) == Problem((Axis(4, 3, 2),), n=4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Axis(-1, 1, 1), "must not be negative"),
        (lambda: Axis(1, 1, 1, S=0), "must not be 0"),
        (lambda: Problem((Axis(1, 1, 1),), layouts=Triple("ngc", "gmc0", "ngm0")), "must be an order of the letters"),
        (lambda: Problem((Axis(1, 1, 1),) * (len(SPATIAL) + 1)), "spatial axes; at most"),
    ],
)
def test_what_no_problem_may_be(make, words):
    with pytest.raises(ValueError, match=words):
        make()
