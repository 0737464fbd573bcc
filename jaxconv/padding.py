"""From a user's words for the border to an Axis: modes, pads, origins, boundaries.

Everything that names where the kernel may stand, 'same', 'VALID', (1, 2), origin=1,
boundary='mirror', is turned into the integers of the relation here, once. N is the
length of the input along an axis, M that of the kernel.
"""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxconv.arguments import integers, is_integer
from jaxconv.boundary import NDIMAGE, Boundary, extended
from jaxconv.problem import Axis

MODES = ("full", "same", "valid")


def lax_axes(
    call: str,
    extents: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding,
    input_dilation: Sequence[int] | None = None,
    kernel_dilation: Sequence[int] | None = None,
) -> tuple[Axis, ...]:
    """The axes of a correlation with lax's strides, padding and dilations.

    `padding` is 'SAME', 'SAME_LOWER', 'VALID' or a (low, high) pair for each axis;
    negative pads crop. The output has O = (L*(I-1)+1 + low + high - D*(K-1)-1) // S + 1
    positions, and no fewer than 0.

    >>> lax_axes("f", [7], [3], [2], "SAME")
    (Axis(I=7, K=3, O=4, L=1, S=2, D=1, p=1),)
    """
    L, D = input_dilation or [1] * len(extents), kernel_dilation or [1] * len(extents)
    pads = _pads(call, extents, kernel, strides, padding, L, D)
    axes = []
    for i, k, s, l, d, (low, high) in zip(extents, kernel, strides, L, D, pads, strict=True):
        padded = low + _dilated(i, l) + high
        if padded < 0:
            raise ValueError(
                f"`{call}` got padding={padding!r} for an input of length {i} (dilated {_dilated(i, l)}): negative "
                "pads crop, and together they may not exceed the length. Crop less."
            )
        room = padded - _dilated(k, d)
        axes.append(Axis(I=i, K=k, O=max(0, room // s + 1), L=l, S=s, D=d, p=low))
    return tuple(axes)


def pairs(call: str, padding, count: int) -> list[tuple[int, int]]:
    """`padding` as `count` pairs of ints; otherwise an error."""
    try:
        pads = [(operator.index(low), operator.index(high)) for low, high in padding]
    except (TypeError, ValueError) as e:
        raise type(e)(
            f"`{call}` got padding={padding!r}: it must be 'SAME', 'SAME_LOWER', 'VALID' or a sequence of "
            "(low, high) pairs of integers, one for each spatial axis. Pass one of these."
        ) from e
    if len(pads) != count:
        raise ValueError(
            f"`{call}` got padding={padding!r} with {len(pads)} pairs: there are {count} spatial axes, "
            "and each needs one. Pass a (low, high) pair for each."
        )
    return pads


def _dilated(extent: int, dilation: int) -> int:
    return 0 if extent == 0 else dilation * (extent - 1) + 1


def _pads(call, extents, kernel, S, padding, L, D) -> list[tuple[int, int]]:
    if not isinstance(padding, str):
        return pairs(call, padding, len(S))
    if any(l != 1 for l in L) and padding.upper() in ("SAME", "SAME_LOWER", "VALID"):
        raise ValueError(
            f"`{call}` got padding={padding!r} with lhs_dilation={L}: 'SAME' and 'VALID' are not defined for a "
            "dilated input. Pass (low, high) pairs, or call `jaxconv.lax.conv_transpose`."
        )
    match padding.upper():
        case "VALID":
            return [(0, 0)] * len(S)
        case "SAME" | "SAME_LOWER" as form:
            pads = []
            for i, k, s, d in zip(extents, kernel, S, D, strict=True):
                total = max((-(-i // s) - 1) * s + _dilated(k, d) - i, 0)
                low = total // 2 if form == "SAME" else total - total // 2
                pads.append((low, total - low))
            return pads
    raise ValueError(
        f"`{call}` got padding={padding!r}: the names are 'SAME', 'SAME_LOWER' and 'VALID'. "
        "Pass one of them, or a (low, high) pair for each spatial axis."
    )


# SciPy's modes. With the kernel's origin o meets, in convolution, i = o - k + centre
# and in correlation i = o + k - centre:
#
#              extent of output       centre in convolution   centre in correlation
#   full       N + M - 1              0                       M - 1
#   same       N                      (M-1)//2 + origin       M//2 + origin
#   valid      |N - M| + 1            min(N, M) - 1           max(M - N, 0)
#
# p is -centre in convolution and +centre in correlation. An axis of length 0 gives
# an output of length 0 (full and valid), as in scipy.signal.fftconvolve.
def mode_axes(
    call: str, extents: Sequence[int], kernel: Sequence[int], mode: str, flip: bool, origin: int | Sequence[int] = 0
) -> tuple[Axis, ...]:
    """The axes of SciPy's `convolve` (flip) or `correlate` (no flip) in a mode.

    >>> mode_axes("f", [5], [4], "same", flip=True)
    (Axis(I=5, K=4, O=5, L=1, S=1, D=-1, p=-1),)
    """
    if mode not in MODES:
        raise ValueError(
            f"`{call}` got mode={mode!r}: acceptable mode flags are 'valid', 'same', or 'full'. Pass mode='full'."
        )
    pairs = list(zip(extents, kernel, strict=True))
    if mode == "valid" and any(n < m for n, m in pairs) and any(n > m for n, m in pairs):
        raise ValueError(
            f"`{call}` got shapes {tuple(extents)} and {tuple(kernel)}. For 'valid' mode, one must be at least as "
            "large as the other in every dimension. Use mode='same' or 'full', or crop one of them."
        )
    origins = (0,) * len(pairs)
    if origin != 0:
        origins = integers(call, "origin", (origin,) * len(pairs) if is_integer(origin) else origin, len(pairs))
    if any(origins) and mode != "same":
        raise ValueError(
            f"`{call}` got origin={origin!r} with mode={mode!r}: an origin shifts mode 'same' only. "
            "Leave it out, or pass mode='same'."
        )
    axes = []
    for (n, m), shift in zip(pairs, origins, strict=True):
        centre, extent = {
            "full": (0 if flip else m - 1, n + m - 1 if n and m else 0),
            "same": (((m - 1) // 2 if flip else m // 2) + shift, n),
            "valid": (min(n, m) - 1 if flip else max(m - n, 0), abs(n - m) + 1 if n and m else 0),
        }[mode]
        if shift and not 0 <= centre < m:
            low = -((m - 1) // 2) if flip else -(m // 2)
            raise ValueError(
                f"`{call}` got origin={origin!r} for a kernel of length {m}: the shifted centre must stay inside the "
                f"kernel. Pass {low} <= origin <= {low + m - 1}."
            )
        axes.append(Axis(I=n, K=m, O=extent, D=-1 if flip else 1, p=-centre if flip else centre))
    return tuple(axes)


# Lag l = low + o pairs in1[k + l] with in2[k]: i - low = o + k.
def lag_axes(call: str, extents: Sequence[int], kernel: Sequence[int], lags) -> tuple[Axis, ...]:
    """The axes of a correlation at some lags: an int L for -L to L, a pair (first, last), or a pair for each axis.

    >>> lag_axes("f", [5], [4], (0, 2))
    (Axis(I=5, K=4, O=3, L=1, S=1, D=1, p=0),)
    """
    if is_integer(lags):
        given = [(-lags, lags)] * len(extents)
    elif isinstance(lags, tuple) and len(lags) == 2 and all(map(is_integer, lags)):
        given = [lags] * len(extents)
    else:
        given = lags
    try:
        pairs = [(operator.index(low), operator.index(high)) for low, high in given]
    except (TypeError, ValueError) as e:
        raise type(e)(
            f"`{call}` got lags={lags!r}: it must be an integer L (for -L to L), a pair (first, last), or a pair of "
            "integers for each axis. Pass one of these."
        ) from e
    if len(pairs) != len(extents) or any(low > high for low, high in pairs):
        raise ValueError(
            f"`{call}` got lags={lags!r} for {len(extents)} axes: each axis needs one pair with first <= last. "
            "Pass a pair for each."
        )
    return tuple(
        Axis(I=n, K=m, O=high - low + 1, p=-low) for n, m, (low, high) in zip(extents, kernel, pairs, strict=True)
    )


class Modes(NamedTuple):
    """SciPy's modes, of a convolution (flip) or a correlation."""

    mode: str
    flip: bool
    origin: int | Sequence[int] = 0

    @property
    def outside(self) -> bool:
        """Whether outputs ask for what lies beyond the border."""
        return self.mode != "valid"

    def axes(self, call: str, extents: Sequence[int], kernel: Sequence[int]) -> tuple[Axis, ...]:
        return mode_axes(call, extents, kernel, self.mode, self.flip, self.origin)


class Lags(NamedTuple):
    """A correlation at some lags."""

    lags: Any
    flip = False
    outside = True

    def axes(self, call: str, extents: Sequence[int], kernel: Sequence[int]) -> tuple[Axis, ...]:
        return lag_axes(call, extents, kernel, self.lags)


class Centred(NamedTuple):
    """As many outputs as inputs, the kernel's `centres` over them: i = o + k - centre, or o - k + centre (flip)."""

    centres: tuple[int, ...]
    flip: bool
    outside = True

    def axes(self, call: str, extents: Sequence[int], kernel: Sequence[int]) -> tuple[Axis, ...]:
        sign = -1 if self.flip else 1
        sizes = zip(extents, kernel, self.centres, strict=True)
        return tuple(Axis(n, m, n, D=sign, p=sign * centre) for n, m, centre in sizes)


class Resampled(NamedTuple):
    """A convolution between zeros put in and samples left out along one axis: up*i = down*o - k + centre."""

    up: int
    down: int
    centre: int
    outputs: int
    flip = True
    outside = True

    def axes(self, call: str, extents: Sequence[int], kernel: Sequence[int]) -> tuple[Axis, ...]:
        ((n,), (m,)) = extents, kernel
        return (Axis(n, m, self.outputs, L=self.up, S=self.down, D=-1, p=-self.centre),)


Relation = Modes | Lags | Centred | Resampled  # how two plain arrays meet: `flip` says that it is a convolution


def extend(call: str, x, axes: Sequence[Axis | None], boundary: Any, outside: bool = True, value: Any = None):
    """(x, axes) with x extended beyond its border as far as the outputs ask for.

    The dimensions of `x` are the axes, those without a relation (None) are left alone; `boundary` is one name of
    `scipy.ndimage`'s, or one for each axis, or a row of the table. `value` stands outside under 'constant'; None is
    zero. For zeros, or where `outside` is false, nothing needs to be done: positions outside the input are not in the
    relation, and count as zero.
    """
    given = boundary if isinstance(boundary, tuple) else (boundary,) * len(axes)
    looked_up = [b if isinstance(b, Boundary) else NDIMAGE.get(b if isinstance(b, str) else "") for b in given]
    rows = [row for row in looked_up if row]
    if len(rows) < len(looked_up):
        raise ValueError(
            f"`{call}` got boundary={boundary!r}: the boundaries are {', '.join(map(repr, NDIMAGE))}. "
            "Pass one; SciPy's 'symm' is 'reflect', its 'fill' is 'constant'."
        )
    if len(rows) != len(axes):
        raise ValueError(
            f"`{call}` got boundary={boundary!r} of length {len(rows)}: there are {len(axes)} axes. "
            "Pass one name, or one for each axis."
        )
    if not outside or not x.size:
        return x, tuple(axes)
    longer = list(axes)
    for d, (axis, row) in enumerate(zip(axes, rows, strict=True)):
        if axis is None or not any(axis.reach) or (row.name == "constant" and value is None):
            continue
        low, high = axis.reach
        fill = 0 if value is None else value
        x, longer[d] = extended(x, d, low, high, row, fill), axis.extended(low, high)
    return x, tuple(longer)
