"""The meaning of a Problem: the literal sum, in NumPy.

Nothing here is fast and nothing here is shared with the engines: this is the oracle
that judges them. One loop runs over the relation, one sum over the features.
"""

import numpy as np

from jaxconv.problem import Problem


def reference(problem: Problem, x, w) -> np.ndarray:
    """y[n,g,m,o] = sum over c and all (i, k) that meet o of x[n,g,c,i] * w[g,m,c,k].

    `x` and `w` are arrays in the Problem's layouts. The sum is made in int64, float64
    or complex128, whichever holds both; so is the result, in the layout of y.

    >>> from jaxconv.problem import Axis, Problem
    >>> x, w = np.array([1, 2, 3]).reshape(1, 1, 1, 3), np.array([1, 10]).reshape(1, 1, 1, 2)
    >>> reference(Problem((Axis(I=3, K=2, O=2),)), x, w).ravel()        # correlation
    array([21, 32])
    >>> reference(Problem((Axis(I=3, K=2, O=4, D=-1),)), x, w).ravel()  # convolution
    array([ 1, 12, 23, 30])
    """
    x, w = (np.asarray(a).astype(_widest(a)) for a in (x, w))
    lx, lw, ly = problem.layouts
    x = x.transpose([lx.index(letter) for letter in "ngc" + problem.spatial])
    w = w.transpose([lw.index(letter) for letter in "gmc" + problem.spatial])
    y = np.zeros((problem.n, problem.g, problem.m, *(axis.O for axis in problem.axes)), np.result_type(x, w))
    for i, k, o in problem.meetings():
        y[:, :, :, *o] += np.einsum("ngc,gmc->ngm", x[:, :, :, *i], w[:, :, :, *k])
    return y.transpose([("ngm" + problem.spatial).index(letter) for letter in ly])


def _widest(a) -> type:
    dtype = np.asarray(a).dtype
    if dtype.kind in "biu":
        return np.int64
    return np.complex128 if dtype.kind == "c" else np.float64
