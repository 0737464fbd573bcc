"""Examples of docstrings run where JAX promotes neither dtypes nor ranks: who forbids both may use all there is.

What passes so passes as it is, too: the settings refuse programs, and change none.
"""

import pytest


@pytest.fixture(autouse=True)
def promotes_nothing(request):
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    import jax  # here: tests/conftest.py says first on which platform

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
