"""A convolution as one or more plain ones, and its channels as groups of whole vectors.

A transposed convolution is, for each remainder of the output's rows and columns by the stride, a
plain convolution with a part of the window: no zeros between the elements are ever made.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.cpu.elements import FLOAT32, Element
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array
from lut.ops import Conv


@dataclass(frozen=True)
class Axis:
    """Along one axis, for each of some remainders r: output `offsets[r] + t * step` for t below
    `sizes[r]` is the sum over k below `kernel` of tap `firsts[r] + k * every` times input
    t * stride - pads[r] + k * dilation."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    firsts: tuple[int, ...]
    pads: tuple[int, ...]
    step: int
    kernel: int
    every: int
    stride: int
    dilation: int

    @property
    def size(self) -> int:
        """Outputs of the longest remainder."""
        return max(self.sizes)

    def reach(self, outputs: int) -> int:
        """Inputs that so many neighbouring outputs read, from the first to the last."""
        return (outputs - 1) * self.stride + max(self.kernel - 1, 0) * self.dilation + 1

    def inside(self, size: int) -> bool:
        """Whether no tap of any output lies outside an input of this size."""
        return all(
            pad <= 0 and self.reach(outputs) - pad <= size
            for pad, outputs in zip(self.pads, self.sizes, strict=True)
        )

    def taps(self, remainder: int) -> list[int]:
        """Of the window."""
        return [self.firsts[remainder] + k * self.every for k in range(self.kernel)]


@dataclass(frozen=True)
class Phase:
    """Plain convolutions of windows of one size: rows and columns of each pair of remainders."""

    rows: Axis
    columns: Axis

    @property
    def taps(self) -> int:
        """Of the window of one."""
        return self.rows.kernel * self.columns.kernel

    @property
    def count(self) -> int:
        """Pairs of remainders."""
        return len(self.rows.offsets) * len(self.columns.offsets)


def phases_of(op: Conv) -> list[Phase]:
    """The plain convolutions that an operation is; one unless it is transposed."""
    rows, columns = (_axes(op, axis) for axis in (0, 1))
    return [Phase(row, column) for row in rows for column in columns]


def _axes(op: Conv, axis: int) -> list[Axis]:
    spread, size, kernel = op.spread[axis], op.output[1 + axis], op.kernel[axis]
    dilation, stride, pad = op.dilation[axis], op.stride[axis], op.pad[axis]
    if spread == 1:
        return [Axis((0,), (size,), (0,), (pad,), 1, kernel, 1, stride, dilation)]
    assert stride == 1
    every = spread // math.gcd(dilation, spread)
    found: dict[int, list[tuple[int, int, int, int]]] = {}  # by the number of taps
    for offset in range(min(spread, size)):
        # Taps that do not fall on a zero: offset + k * dilation = pad, modulo the spread.
        taps = [k for k in range(kernel) if (offset + k * dilation - pad) % spread == 0]
        first = taps[0] if taps else 0
        before = -((offset + first * dilation - pad) // spread) if taps else 0
        outputs = -(-(size - offset) // spread)
        found.setdefault(len(taps), []).append((offset, outputs, first, before))
    axes = []
    for taps_each, remainders in found.items():
        offsets, sizes, firsts, pads = zip(*remainders, strict=True)
        apart = every * dilation // spread
        axes.append(Axis(offsets, sizes, firsts, pads, spread, taps_each, every, 1, apart))
    return axes


@dataclass(frozen=True)
class Grouping:
    """How the channels of a convolution in groups lie in vectors.

    Neighbouring groups are taken together until their inputs and outputs fill whole vectors: a
    dense convolution of `cin` -> `cout` channels, zero outside the blocks on its diagonal, for each
    of `groups`.
    """

    isa: Isa
    op: Conv

    @cached_property
    def groups(self) -> int:
        """1 where the channels do not fill vectors."""
        groups, lanes = self.op.groups, self.isa.lanes
        if groups == 1 or len(self.op.cin) > 1:
            return 1
        for count in range(groups, 0, -1):
            sides = sum(self.op.cin), self.op.cout
            if groups % count == 0 and all(side % (count * lanes) == 0 for side in sides):
                return count
        return 1

    @property
    def blocks(self) -> int:
        """Output blocks of one."""
        return self.isa.blocks(self.op.cout // self.groups)

    @property
    def cin(self) -> tuple[int, ...]:
        """Input channels of one, by map."""
        return (self.op.cin[0] // self.groups,) if self.groups > 1 else self.op.cin

    def steps(self, element: Element) -> tuple[int, ...]:
        """Groups of input channels that are summed at once, by map."""
        return tuple(-(-c // element.group) for c in self.cin)

    def dense(self, weight: Array) -> Array:
        """(O, I / op.groups, h, w) -> (O, I / groups, h, w)."""
        together = self.op.groups // self.groups
        if together == 1:
            return weight
        out, inner, *window = weight.shape
        per = out // self.op.groups
        dense = np.zeros((self.groups, together, per, together, inner, *window), np.float32)
        parts = weight.reshape(self.groups, together, per, inner, *window)
        for i in range(together):
            dense[:, i, :, i] = parts[:, i]
        return dense.reshape(out, together * inner, *window)


def products_of(isa: Isa, op: Conv) -> Element:
    """The element of its products: of an image's few channels they are summed in float32."""
    return isa.element if op.source == "maps" else FLOAT32


def pack_dense(
    isa: Isa, weight: Array, cin: tuple[int, ...], phases: list[Phase], element: Element = FLOAT32
) -> NDArray[Any]:
    """(O, I, h, w) -> (O/c, K, c * g): for each phase and map, block of input channels, tap and
    group of g lanes (`Element.pack_weights`); the last block of a map has only its real lanes."""
    out, c = weight.shape[0], isa.lanes
    padded = np.zeros((isa.blocks(out) * c, *weight.shape[1:]), np.float32)
    padded[:out] = weight
    parts = []
    for phase in phases:
        if not phase.taps:
            continue
        for i, j in np.ndindex(len(phase.rows.offsets), len(phase.columns.offsets)):
            window = padded[:, :, phase.rows.taps(i)][:, :, :, phase.columns.taps(j)]
            first = 0
            for channels in cin:
                for begin in range(first, first + channels, c):
                    block = window[:, begin : min(begin + c, first + channels)]
                    # (O, lanes, h, w) -> (O/c, h, w, lanes, c)
                    lanes = block.reshape(-1, c, *block.shape[1:]).transpose(0, 3, 4, 2, 1)
                    packed = element.pack_weights(lanes)
                    parts.append(packed.reshape(len(packed), -1, packed.shape[-1]))
                first += channels
    return np.ascontiguousarray(np.concatenate(parts, axis=1))
