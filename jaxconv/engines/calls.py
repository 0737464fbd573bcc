"""A convolution as oneDNN is asked for it, in integers; and the same in parts, for one thread each.

A part has some images, some rows of one, or some features; it is a question like the whole, of arrays that lie within
the whole's.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

FORWARD, DATA, WEIGHTS = range(3)
NAMES = ("forward", "backward_data", "backward_weights")
# Which of (x, w, y) of a Call are the src, the weights and the dst that the primitive is described by.
DESCRIBED = ((0, 1, 2), (2, 1, 0), (0, 2, 1))
VECTOR = 16  # numbers: parts have so many features, or a multiple
DEPTHWISE = 4  # a product of a depthwise layer takes as long as so many of others


class Operand(NamedTuple):
    """sizes, strides: in numbers. free: whether the library may have it in a format of its own."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    free: bool = False

    def cut(self, axis: int, start: int, stop: int) -> "Operand":
        """Some entries along an axis."""
        return self._replace(sizes=(*self.sizes[:axis], stop - start, *self.sizes[axis + 1 :]))

    @property
    def dense(self) -> "Operand":
        """Activations of these sizes that lie without gaps."""
        return self._replace(strides=channels_last(self.sizes))


class Call(NamedTuple):
    """One primitive: `kind` is FORWARD, DATA or WEIGHTS, of a layer with these strides, dilations and pads."""

    kind: int
    x: Operand
    w: Operand
    y: Operand
    strides: tuple[int, ...]
    dilations: tuple[int, ...]  # 1 where entries are neighbours
    low: tuple[int, ...]
    high: tuple[int, ...]

    def __str__(self) -> str:
        shapes = " and ".join(str(list(operand.sizes)) for operand in (self.x, self.w))
        return f"{NAMES[self.kind]} of {shapes}, strides {self.strides}, dilations {self.dilations}"

    @property
    def operands(self) -> tuple[Operand, Operand, Operand]:
        return self.x, self.w, self.y

    @property
    def elements(self) -> list[int]:
        """Of x, w and y."""
        return [prod(operand.sizes) for operand in self.operands]

    @property
    def groups(self) -> int:
        weights = self.layer[1]
        return weights.sizes[0] if len(weights.sizes) > len(self.strides) + 2 else 1

    @property
    def products(self) -> int:
        """Of every kernel position with every output; of depthwise layers they count more, as their loops do."""
        _, weights, dst = self.layer
        each = prod(weights.sizes) // dst.sizes[1]
        return prod(dst.sizes) * each * (DEPTHWISE if each == prod(weights.sizes[-len(self.strides) :]) else 1)

    @property
    def layer(self) -> list[Operand]:
        """src, weights and dst."""
        return [self.operands[place] for place in DESCRIBED[self.kind]]

    def of(self, layer: Sequence[Operand], **changes) -> "Call":
        """The same of another src, weights and dst."""
        x, w, y = (layer[DESCRIBED[self.kind].index(place)] for place in range(3))
        return self._replace(x=x, w=w, y=y, **changes)

    def numbers(self) -> list[int]:
        """All of it, from which `call_of` makes it again."""
        numbers = [self.kind, len(self.strides)]
        for operand in self.operands:
            numbers += [len(operand.sizes), operand.free, *operand.sizes, *operand.strides]
        return [*numbers, *self.strides, *self.dilations, *self.low, *self.high]


def call_of(numbers: Sequence[int]) -> Call:
    """The Call of its `numbers`."""
    rest = iter(numbers)

    def some(count: int) -> tuple[int, ...]:
        return tuple(next(rest) for _ in range(count))

    kind, rank = some(2)
    operands = []
    for _ in "xwy":
        length, free = some(2)
        operands.append(Operand(some(length), some(length), bool(free)))
    return Call(kind, *operands, *(some(rank) for _ in range(4)))


def channels_last(sizes: Sequence[int]) -> tuple[int, ...]:
    """The strides of an array without gaps, of (batch, features, spatial...) sizes, whose features are neighbours."""
    _, features, *extents = sizes
    return features * prod(extents), 1, *(features * prod(extents[d + 1 :]) for d in range(len(extents)))


class Part(NamedTuple):
    """A Call, and where its src, weights and dst begin in those of the whole, in numbers.

    summed: whether its result is a summand of the whole's, and not a piece.
    """

    call: Call
    starts: tuple[int, int, int] = (0, 0, 0)
    summed: bool = False


def parts_of(call: Call, features: bool, count: int) -> list[Part]:
    """About so many parts, of features or else of images and rows; one, the whole, where there are no such."""
    found = list(_of_features(call, count) if features else _of_images(call, count)) if count > 1 else []
    meets = all(min(one.sizes) > 0 for part in found for one in part.call.operands)
    return found if found and meets else [Part(call)]


def _of_features(call: Call, count: int) -> Iterator[Part]:
    """Of output features, where weights are not the result; of groups, where there are some."""
    src, weights, dst = call.layer
    outputs, inputs = weights.sizes[-len(call.strides) - 2 :][:2]
    if call.groups > 1:
        unit, total = -(-VECTOR // min(outputs, inputs)), call.groups
        axes = (1, inputs), (0, 1), (1, outputs)
    else:
        of_inputs = call.kind == DATA or (call.kind == WEIGHTS and inputs > outputs)
        unit, total = VECTOR, inputs if of_inputs else outputs
        axes = ((1, 1), (1, 1), None) if of_inputs else (None, (0, 1), (1, 1))
    for start, stop in _spans(-(-total // unit), count):
        start, stop = unit * start, min(unit * stop, total)
        layer, starts = [], []
        for whole, axis in zip((src, weights, dst), axes, strict=True):
            place, each = axis or (0, 0)
            layer.append(whole.cut(place, each * start, each * stop) if axis else whole)
            starts.append(each * start * whole.strides[place])
        yield Part(call.of(layer), (starts[0], starts[1], starts[2]))


def _of_images(call: Call, count: int) -> Iterator[Part]:
    """Some images each; some rows of one, where there are fewer images."""
    src, weights, dst = call.layer
    images, summed = src.sizes[0], call.kind == WEIGHTS
    d = next((d for d in range(len(call.strides)) if max(src.sizes[2 + d], dst.sizes[2 + d]) > 1), None)
    if images >= count or d is None:
        for start, stop in _spans(images, count):
            layer = src.cut(0, start, stop), weights, dst.cut(0, start, stop)
            yield Part(call.of(layer), (start * src.strides[0], 0, start * dst.strides[0]), summed)
        return
    spans = _spans((src if call.kind == DATA else dst).sizes[2 + d], -(-count // images))
    if call.kind == DATA:  # they begin where a kernel's first entry meets them
        ends = [stop + -(stop + call.low[d]) % call.strides[d] for _, stop in spans[:-1]]
        spans = list(pairwise([0, *ends, src.sizes[2 + d]]))
    for image in range(images):
        for start, stop in spans:
            part = _rows(call, d, start, stop)
            ends = part.starts[0] + image * src.strides[0], 0, part.starts[2] + image * dst.strides[0]
            yield Part(part.call, ends, summed)


def _rows(call: Call, d: int, start: int, stop: int) -> Part:
    """Of the first image: some entries along an axis of the src, for DATA, or the dst, and those that they meet."""
    src, weights, dst = call.layer
    step, low = call.strides[d], call.low[d]
    reach = call.dilations[d] * (weights.sizes[d - len(call.strides)] - 1)
    if call.kind == DATA:
        first, last = max(0, -(-(start + low - reach) // step)), (stop - 1 + low) // step
        rows, mine = (start, stop), (first, min(dst.sizes[2 + d], last + 1))
    else:
        rows = max(0, step * start - low), min(src.sizes[2 + d], step * (stop - 1) - low + reach + 1)
        mine = start, stop
    pad = low + rows[0] - step * mine[0]
    end = max(0, step * (mine[1] - mine[0] - 1) + reach - pad - (rows[1] - rows[0] - 1))
    pads = {"low": (*call.low[:d], pad, *call.low[d + 1 :]), "high": (*call.high[:d], end, *call.high[d + 1 :])}
    layer = _slab(src, d, *rows), weights, _slab(dst, d, *mine)
    return Part(call.of(layer, **pads), (rows[0] * src.strides[2 + d], 0, mine[0] * dst.strides[2 + d]))


def _slab(operand: Operand, d: int, start: int, stop: int) -> Operand:
    """Of the first image: some entries along a spatial axis, before which there is none longer than 1."""
    return operand.cut(2 + d, start, stop).cut(0, 0, 1).dense


def _spans(total: int, count: int) -> list[tuple[int, int]]:
    """About equal parts, so many at most."""
    count = min(count, total)
    return list(pairwise(total * i // count for i in range(count + 1)))
