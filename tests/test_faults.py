"""The verifier verified: single faults are planted in the package, and `jaxconv verify` must find each."""

from pathlib import Path

import pytest

from jaxconv.engines import ENGINES, onednn
from tests.faults import FAULTS, failures, planted

ROOT = Path(__file__).parent.parent


def test_there_are_many_faults_each_of_its_own():
    assert len(FAULTS) >= 60
    assert len({f.what for f in FAULTS}) == len(FAULTS)
    assert len({(f.where, f.right, f.wrong) for f in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        with planted(fault):  # the text that it changes stands where it says
            pass


@pytest.mark.sampled(6)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_is_caught(fault):
    engine = fault.what.split(",")[0]
    if engine == "native" and isinstance(no := onednn._loaded(), onednn.Missing):
        pytest.skip(str(no))
    with planted(fault):
        found = next(failures(fault), None)
    assert found is not None
    assert found.engine == engine or engine not in ENGINES


def test_a_fault_is_gone_when_it_is_taken_out():
    fault = FAULTS[0]
    with planted(fault):
        assert next(failures(fault), None) is not None
    assert next(failures(fault), None) is None


def test_an_unchanged_copy_of_a_function_is_no_fault():
    """It is the fault that is caught, not the planting."""
    fault = next(f for f in FAULTS if f.where == "padding:mode_axes")
    with planted(fault._replace(wrong=fault.right)):
        assert next(failures(fault), None) is None
