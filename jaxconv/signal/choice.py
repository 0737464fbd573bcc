"""Which method a convolution would take."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxconv.arguments import as_array
from jaxconv.plan import plan
from jaxconv.signal.convolution import convolve
from jaxconv.tune import tune


def choose_conv_method(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", measure: bool = False
) -> str | tuple[str, dict[str, float]]:
    """The method that is expected, or measured, to be fastest for `convolve(in1, in2, mode)`.

        method = argmin over the engines that do not refuse of their seconds

    >>> choose_conv_method(jnp.ones(100), jnp.ones(3))
    'shifts'

    Parameters
    ----------
    in1, in2 : arrays, of which only shapes and dtypes count
    mode : 'full' | 'same' | 'valid'
    measure : bool
        Whether to run the engines, as `jaxconv.tune` does.

    Returns
    -------
    method : str
        What to pass as `method=`.
    times : dict from method to seconds
        With `measure` only.

    Raises
    ------
    ValueError, TypeError
        As `convolve`.

    Static under `jax.jit`: everything; of in1 and in2 only shapes and dtypes are looked at.

    Differs from SciPy: the methods are jaxconv's engines, among which 'direct' and 'fft' are two; `method="auto"`
    makes the same choice, so there is no need to call this first.

    Source: scipy.signal.choose_conv_method.
    """
    call = "jaxconv.signal.choose_conv_method"
    shapes = [
        jax.ShapeDtypeStruct(np.shape(a), jnp.result_type(a))
        for a in (as_array(call, "in1", in1), as_array(call, "in2", in2))
    ]

    def convolution(in1, in2):
        return convolve(in1, in2, mode)

    (found,) = plan(convolution, *shapes)
    best = found.engines["forward"]
    assert best is not None, "no method is forced"
    if not measure or found.problem.is_empty:
        return (best, {}) if measure else best
    times = tune(found.problem, progress=False).measured(found.problem, found.platform)
    return min(times, key=lambda name: times[name]), dict(times)
