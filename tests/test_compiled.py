"""What XLA compiles for a GPU, read from its text; and that it is as it must be, where the compiler is at hand."""

import importlib
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxconv.planner import Options
from jaxconv.primitive import contract

ROOT = Path(__file__).parent.parent
TEXT = """HloModule jit_f, is_scheduled=true

%fused (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  ROOT %n = f32[8,4]{1,0} negate(%p)
}

%body (s: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %s = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %a = f32[8,4]{1,0} get-tuple-element(%s), index=1
  %b = f32[8,4]{1,0} fusion(%a), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[8,4]{1,0}) tuple(%i, %b)
}

%condition (s.1: (s32[], f32[8,4])) -> pred[] {
  %s.1 = (s32[], f32[8,4]{1,0}) parameter(0)
  ROOT %c = pred[] constant(true)
}

ENTRY %main (x: bf16[2,6,6,4], w: bf16[4,3,3,4], a.1: f32[8,4]) -> f32[8,4] {
  %x = bf16[2,6,6,4]{3,2,1,0} parameter(0)
  %w = bf16[4,3,3,4]{3,2,1,0} parameter(1)
  %a.1 = f32[8,4]{1,0} parameter(2)
  %conv = (bf16[2,4,4,4]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w), window={size=3x3 stride=2x2}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput", backend_config={"n":"("}
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,4]{1,0}) tuple(%zero, %a.1)
  %loop = (s32[], f32[8,4]{1,0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %result = f32[8,4]{1,0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


@pytest.fixture
def compiled(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("compiled")


def test_launches_trips_bytes_and_convolutions_are_counted(compiled):
    found = compiled.count(compiled.Program(seconds=1.0, temporaries=0.0), TEXT)
    assert (found.kernels, found.trips) == (1 + 5, 5)
    assert found.convolutions == [("input", "size=3x3 stride=2x2", 2 * 6 * 6 * 4)]
    assert found.traffic == 2 * (2 * 6 * 6 * 4 + 4 * 3 * 3 * 4 + 2 * 4 * 4 * 4) + 5 * 2 * 4 * 8 * 4


def test_faults_are_told(compiled):
    """A window of the whole image, inserted zeros, memory that lax does not need, a second pass."""
    [problem] = [p for p in compiled.ROWS if compiled.name_of(p) == "2-D 124, k 3, depthwise 256: kernel gradient"]
    layer = problem.kernel_pass

    def told(problem, engine, **wrong):
        program = compiled.Program(seconds=1.0, temporaries=0.0, kernels=2.0)
        for name, value in wrong.items():
            setattr(program, name, value)
        return " ".join(compiled.faults(problem, engine, program, compiled.Program(0.1, 0.0)))

    size = float(layer.outputs * layer.g)
    assert told(problem, "direct", convolutions=[("filter", "size=3x3 pad=1_1x1_1", size)]) == ""
    assert "a window of size=124x124" in told(problem, "direct", convolutions=[("forward", "size=124x124", size)])
    assert "zeros inserted" in told(layer, "direct", convolutions=[("forward", "size=3x3", 4 * size)])
    assert "lax has 0.00" in told(layer, "direct", temporaries=8 * size)
    assert told(layer, "shifts") == ""
    assert "one pass over memory" in told(layer, "shifts", kernels=3.0)
    assert "11 s to compile" in told(layer, "gemm", seconds=11.0)


@pytest.mark.parametrize(
    "row",
    ["2-D 4, k 3, n 64, 16 to 32", "1-D 1000, k 31", "2-D 16, k 3, 64 groups, 16 to 32", "3-D 16, k 3, transposed"],
)
def test_a_pass_by_lax_is_the_same(compiled, row):
    """In every pass; of small integers, so that the sums are exact."""
    problems = [p for p in compiled.ROWS if compiled.name_of(p).startswith(row)]
    assert problems
    for problem in problems:
        rng = np.random.default_rng(0)
        x, w = (rng.integers(-2, 3, shape).astype(np.float32) for shape in (problem.x_shape, problem.w_shape))
        np.testing.assert_array_equal(
            jax.jit(compiled.by_lax(problem))(x, w), contract(problem, x, w, Options("direct"))
        )


@pytest.mark.nightly
def test_what_must_hold_for_an_h100():
    """Compiles every row, pass and engine, in an environment that the script makes for itself."""
    done = subprocess.run(
        ["./scripts/compiled", "--check", "--dtype", "float32"], cwd=ROOT, capture_output=True, text=True
    )
    if "Python" in done.stderr and "was found" in done.stderr:
        pytest.skip("jax 0.11.2 wants Python 3.12")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
