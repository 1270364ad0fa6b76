"""Which transforms a convolution is filtered by, how many products that takes, and where the tiles
of its outputs lie."""

from deploy import ir
from deploy.cpu.winograd import HalvingTransform, Transform
from lut.ops import Conv

AnyTransform = Transform | HalvingTransform
Transforms = tuple[AnyTransform, AnyTransform]

_WEIGHT_BYTES = 20 << 20  # transformed weights beyond are read from memory for every few tiles
_HALVING_BYTES = 4 << 20  # the same at stride 2, where large tiles save less


def transforms(op: Conv) -> Transforms | None:
    """Of rows and columns, the largest that the map and the caches have room for, and whose
    products bfloat16 is fit for: F(2, 3) makes 1.5 times the error of the plain sum of such
    numbers, F(4, 3) four times (`python -m benchmarks.winograd --errors`)."""
    for large in (True, False) if op.dtype == "float32" else (False,):
        rows, columns = _axis(op, 0, large=large), _axis(op, 1, large=large)
        if rows is None or columns is None:
            continue
        if rows.outputs <= _smallest(op, 0) and columns.outputs <= _smallest(op, 1):
            weights = 4 * rows.points * columns.points * sum(op.cin) * op.cout // op.groups
            most = _WEIGHT_BYTES if op.stride == (1, 1) else _HALVING_BYTES
            if not large or weights <= most:
                return rows, columns
    return None


def _axis(op: Conv, axis: int, *, large: bool) -> AnyTransform | None:
    taps = op.kernel[axis]
    if op.stride[axis] == 2:
        return HalvingTransform(4 if large else 2, taps)
    if taps == 1:
        return Transform(1, 1)
    outputs = (6 if large else 4) + 1 - taps
    return Transform(outputs, taps) if outputs > 1 else None


def _smallest(op: Conv, axis: int) -> int:
    """Outputs along an axis of the smallest map of every d-th row."""
    return op.output[1 + axis] // op.dilation[axis]


def products(op: Conv, by: Transforms) -> int:
    """Multiply-adds of its tiles; the transforms, which are sums, are not counted."""
    count = sum(op.cin) // op.groups * op.cout
    for axis, transform in enumerate(by):
        size, dilation = op.output[1 + axis], op.dilation[axis]
        # Of every d-th row, from each first one.
        lines = [-(-(size - first) // dilation) for first in range(dilation)]
        count *= transform.points * sum(-(-n // transform.outputs) for n in lines)
    return count


class TileAxis:
    """Along one axis the tiles of a task, on the map of every d-th row or column from `remainder`
    on; outputs are counted from the task's first."""

    def __init__(
        self, op: Conv, axis: int, outputs: int, remainder: ir.Expr, first: ir.Expr
    ) -> None:
        self._dilation, self._outputs, self._stride = op.dilation[axis], outputs, op.stride[axis]
        self._remainder, self._tile = ir.bind(remainder), ir.bind(first)
        size = op.output[1 + axis] - self._remainder + self._dilation - 1
        # The last tile overlaps the one before it.
        self._last = ir.bind(size // self._dilation - outputs)
        self._corner = ir.bind(ir.minimum(self._tile * outputs, self._last))
        self._pad = op.pad[axis]

    def begin(self, tile: ir.Expr) -> ir.Expr:
        """The first output of a tile."""
        here = ir.minimum((self._tile + tile) * self._outputs, self._last)
        return ir.bind(here - self._corner)

    def input(self, tile: ir.Expr) -> ir.Expr:
        """The first input of a tile, counted from the task's first."""
        return self.begin(tile) * self._stride

    @property
    def first_input(self) -> ir.Expr:
        """The row or column of the whole input that the task begins with."""
        return ir.bind(self.output(0) * self._stride - self._pad)

    def output(self, number: ir.Expr) -> ir.Expr:
        """The row or column of the whole map that an output is."""
        return self._remainder + (self._corner + number) * self._dilation


Axes = tuple[TileAxis, TileAxis]
