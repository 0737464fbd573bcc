"""The relation and the form: what a convolution computes, as integers.

Along each spatial axis an input position i, a kernel position k and an output
position o meet when

    L*i + p = S*o + D*k        0 <= i < I,  0 <= k < K,  0 <= o < O

with input dilation L, stride S, kernel dilation D and low padding p. D > 0 is
correlation, D < 0 is convolution: that sign is the whole difference. Over the
relation stands one trilinear form, with batch n, group g, input feature c and
output feature m,

    T(x, w, y) = sum of x[n,g,c,i] * w[g,m,c,k] * y[n,g,m,o]

over all n g c m and all (i, k, o) that meet. Leaving out one of the three arrays
gives the three passes: the layer (without y), its gradient in the input (without
x) and its gradient in the kernel (without w). The roles are symmetric, so each
pass is itself a layer: `Problem.input_pass` and `Problem.kernel_pass` rename the
letters and solve the relation anew. Both are involutions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import NamedTuple

import jax.numpy as jnp

SPATIAL = "0123456789abdefhijklopqrstuvz"  # the letter of each spatial axis


@dataclass(frozen=True)
class Axis:
    """One spatial axis: i, k and o meet when L*i + p == S*o + D*k.

    I, K, O are the extents of input, kernel and output. All three are stored,
    since a stride makes any one of them ambiguous. L, S and D are signed and not 0.

    >>> same = Axis(I=5, K=3, O=5, p=1)      # correlation, one zero on either side
    >>> same.input_pass                      # its gradient: a convolution, D < 0
    Axis(I=5, K=3, O=5, L=1, S=1, D=-1, p=-1)
    >>> list(Axis(I=2, K=2, O=1).meetings())
    [(0, 0, 0), (1, 1, 0)]
    """

    I: int
    K: int
    O: int
    L: int = 1
    S: int = 1
    D: int = 1
    p: int = 0

    def __post_init__(self):
        if min(self.I, self.K, self.O) < 0:
            raise ValueError(f"`{self}`: the extents I, K, O must not be negative.")
        if 0 in (self.L, self.S, self.D):
            raise ValueError(f"`{self}`: the coefficients L, S, D must not be 0.")

    # The relation solved for i:  S*o - p = L*i - D*k.  Output and input change
    # places, so do S and L; D and p change sign. Done twice, all return.
    @property
    def input_pass(self) -> "Axis":
        """The axis on which output and input have changed places."""
        return Axis(self.O, self.K, self.I, self.S, self.L, -self.D, -self.p)

    # The relation read with o as kernel position:  L*i + p = D*k + S*o.
    @property
    def kernel_pass(self) -> "Axis":
        """The axis on which output and kernel have changed places."""
        return Axis(self.I, self.O, self.K, self.L, self.D, self.S, self.p)

    # The relation solved for the kernel's term:  D*k - p = -S*o + L*i.
    @property
    def exchanged(self) -> "Axis":
        """The axis on which input and kernel have changed places."""
        return Axis(self.K, self.I, self.O, self.D, -self.S, self.L, -self.p)

    # Flips: substitute i -> I-1-i, k -> K-1-k or o -> O-1-o in the relation.
    @property
    def input_flipped(self) -> "Axis":
        return replace(self, L=-self.L, p=self.p + self.L * (self.I - 1))

    @property
    def kernel_flipped(self) -> "Axis":
        return replace(self, D=-self.D, p=self.p - self.D * (self.K - 1))

    @property
    def output_flipped(self) -> "Axis":
        return replace(self, S=-self.S, p=self.p - self.S * (self.O - 1))

    @property
    def negated(self) -> "Axis":
        """The same relation, both sides times -1."""
        return replace(self, L=-self.L, S=-self.S, D=-self.D, p=-self.p)

    def oriented(self, kernel_sign: int) -> "tuple[Axis, bool, bool]":
        """(axis, flip_kernel, flip_output): the same sums with L, S > 0 and D of the given sign."""
        axis = self.negated if self.L < 0 else self
        flip_output = axis.S < 0
        axis = axis.output_flipped if flip_output else axis
        flip_kernel = axis.D * kernel_sign < 0
        return (axis.kernel_flipped if flip_kernel else axis), flip_kernel, flip_output

    def extended(self, low: int, high: int) -> "Axis":
        """The axis for an input that has `low` and `high` more positions at its ends."""
        return replace(self, I=low + self.I + high, p=self.p - self.L * low)

    @property
    def reach(self) -> tuple[int, int]:
        """(low, high): how many positions outside the input the outputs ask for."""
        low, high = self._overhang
        return max(0, low), max(0, high)

    @property
    def met(self) -> "tuple[Axis, int, int]":
        """(axis, start, stop): from where to where the outputs ask for the input, and the axis for that part alone."""
        low, high = (min(self.I, max(0, -end)) for end in self._overhang)
        return self.extended(-low, -high), low, self.I - high

    @property
    def _overhang(self) -> tuple[int, int]:
        """How far the outputs ask beyond each end of the input; below 0, how much there they never ask for."""
        if not (self.K and self.O):
            return 0, 0
        ends = [s + d - self.p for s in (0, self.S * (self.O - 1)) for d in (0, self.D * (self.K - 1))]
        low, high = -(-min(ends) // self.L), max(ends) // self.L  # ceil and floor, for L > 0
        return -low, high - (self.I - 1)

    def meetings(self) -> Iterator[tuple[int, int, int]]:
        """Every (i, k, o) of the relation, by o, then k."""
        for o, k in product(range(self.O), range(self.K)):
            i, rest = divmod(self.S * o + self.D * k - self.p, self.L)
            if rest == 0 and 0 <= i < self.I:
                yield i, k, o

    @property
    def meeting_count(self) -> float:
        """About how many meetings there are: each pair of positions fixes the third."""
        return min(self.K * self.O / abs(self.L), self.I * self.K / abs(self.S), self.I * self.O / abs(self.D))


class Triple(NamedTuple):
    """One entry for each array of the form."""

    x: str
    w: str
    y: str


CANONICAL = Triple("", "", "")  # stands for the order n g c, g m c, n g m, then the spatial axes
FLOAT32 = Triple("float32", "float32", "float32")


def _renamed(layout: str, a: str, b: str) -> str:
    return layout.translate(str.maketrans(a + b, b + a))


@dataclass(frozen=True)
class Problem:
    """What is computed: y[n,g,m,o] = sum of x[n,g,c,i] * w[g,m,c,k] over the relation.

    `axes` holds the relation, n g c m are sizes. `layouts` names the order of each
    array's axes by letter (spatial axes are 0, 1, ...), `dtypes` their types. There
    are no arrays and no choices in a Problem, and it is hashable.

    >>> layer = Problem((Axis(8, 3, 6),), n=2, c=3, m=4)
    >>> layer.x_shape, layer.w_shape, layer.y_shape
    ((2, 1, 3, 8), (1, 4, 3, 3), (2, 1, 4, 6))
    >>> layer.input_pass.input_pass == layer == layer.kernel_pass.kernel_pass
    True
    """

    axes: tuple[Axis, ...]
    n: int = 1
    g: int = 1
    c: int = 1
    m: int = 1
    layouts: Triple = CANONICAL
    dtypes: Triple = FLOAT32

    def __post_init__(self):
        spatial = SPATIAL[: len(self.axes)]
        if len(self.axes) > len(SPATIAL):
            raise ValueError(
                f"`Problem` has {len(self.axes)} spatial axes; at most {len(SPATIAL)} are possible. "
                "Fold the axes that are not convolved into the batch, with `jax.vmap` or a reshape."
            )
        letters = ("ngc" + spatial, "gmc" + spatial, "ngm" + spatial)
        if self.layouts == CANONICAL:
            object.__setattr__(self, "layouts", Triple(*letters))
        for layout, wanted in zip(self.layouts, letters, strict=True):
            if sorted(layout) != sorted(wanted):
                raise ValueError(f"`Problem` layout {layout!r} must be an order of the letters {wanted!r}.")

    @property
    def is_layer(self) -> bool:
        """Whether the kernel is no longer than the output; it is, in a layer's gradient in its kernel."""
        return self.taps <= self.outputs

    def _size(self, letter: str, extents: str) -> int:
        if letter in "ngcm":
            return getattr(self, letter)
        return getattr(self.axes[SPATIAL.index(letter)], extents)

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        return tuple(self._size(letter, "I") for letter in self.layouts.x)

    @cached_property
    def w_shape(self) -> tuple[int, ...]:
        return tuple(self._size(letter, "K") for letter in self.layouts.w)

    @cached_property
    def y_shape(self) -> tuple[int, ...]:
        return tuple(self._size(letter, "O") for letter in self.layouts.y)

    @property
    def spatial(self) -> str:
        """The letters of the spatial axes."""
        return SPATIAL[: len(self.axes)]

    # Without x: y is the new input, and the contracted feature is m instead of c.
    @cached_property
    def input_pass(self) -> "Problem":
        """The Problem of the gradient in the input: contract(input_pass, dy, w) is dx."""
        (lx, lw, ly), (tx, tw, ty) = self.layouts, self.dtypes
        return Problem(
            tuple(axis.input_pass for axis in self.axes),
            n=self.n, g=self.g, c=self.m, m=self.c,
            layouts=Triple(_renamed(ly, "c", "m"), _renamed(lw, "c", "m"), _renamed(lx, "c", "m")),
            dtypes=Triple(ty, tw, tx),
        )  # fmt: skip

    # Without w: y is the new kernel, and the contracted feature is n instead of c.
    @cached_property
    def kernel_pass(self) -> "Problem":
        """The Problem of the gradient in the kernel: contract(kernel_pass, x, dy) is dw."""
        (lx, lw, ly), (tx, tw, ty) = self.layouts, self.dtypes
        return Problem(
            tuple(axis.kernel_pass for axis in self.axes),
            n=self.c, g=self.g, c=self.n, m=self.m,
            layouts=Triple(_renamed(lx, "n", "c"), _renamed(ly, "n", "c"), _renamed(lw, "n", "c")),
            dtypes=Triple(tx, ty, tw),
        )  # fmt: skip

    # T is the same whichever of x and w is called the input: n and m change places, too.
    @cached_property
    def exchanged(self) -> "Problem":
        """The Problem whose input is w and whose kernel is x: contract(exchanged, w, x) is y."""
        (lx, lw, ly), (tx, tw, ty) = self.layouts, self.dtypes
        return Problem(
            tuple(axis.exchanged for axis in self.axes),
            n=self.m, g=self.g, c=self.c, m=self.n,
            layouts=Triple(_renamed(lw, "n", "m"), _renamed(lx, "n", "m"), _renamed(ly, "n", "m")),
            dtypes=Triple(tw, tx, ty),
        )  # fmt: skip

    def fold(self, letter: str, size: int) -> "Problem":
        """The Problem with `size` copies of this one folded into a letter, copies outermost."""
        return replace(self, **{letter: size * getattr(self, letter)})

    def meetings(self) -> Iterator[tuple[tuple[int, ...], ...]]:
        """Every (i, k, o) that meets, each a tuple of positions."""
        for triples in product(*(axis.meetings() for axis in self.axes)):
            yield tuple(zip(*triples, strict=True)) if triples else ((), (), ())

    @property
    def taps(self) -> int:
        """How many kernel positions there are."""
        return prod(axis.K for axis in self.axes)

    @property
    def outputs(self) -> int:
        """How many output positions there are."""
        return prod(axis.O for axis in self.axes)

    @property
    def terms(self) -> int:
        """The most products that any one output sums."""
        return self.c * prod(min(axis.K, axis.I) for axis in self.axes)

    @property
    def products(self) -> float:
        """About how many products there are in all."""
        return self.n * self.g * self.c * self.m * prod(axis.meeting_count for axis in self.axes)

    @property
    def is_empty(self) -> bool:
        """True where no product exists, so that the result is 0 or has no elements."""
        return 0 in self.x_shape + self.w_shape + self.y_shape

    @property
    def is_exact(self) -> bool:
        """True for integers: arithmetic modulo 2**bits, without rounding."""
        return jnp.issubdtype(self.dtypes.y, jnp.integer)

    @property
    def is_complex(self) -> bool:
        return jnp.issubdtype(self.dtypes.y, jnp.complexfloating)
