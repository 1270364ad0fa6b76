"""Which transforms a convolution is filtered by, how many products that takes, and where the tiles
of its outputs lie."""

from deploy import ir
from deploy.cpu.winograd import HalvingTransform, Transform
from deploy.cpu.winograd_whole import WholeTransform
from lut.ops import Conv

AnyTransform = Transform | HalvingTransform | WholeTransform
Transforms = tuple[AnyTransform, AnyTransform]

_WEIGHT_BYTES = 40 << 20  # transformed weights beyond are read from memory for every few tiles
_MANY_BYTES = 20 << 20  # no cache keeps more for the next tiles: only where they clearly save time
_HALVING_BYTES = 4 << 20  # the same at stride 2, where large tiles save less
_PER_BYTE = 4  # multiply-adds of a core while a byte comes from memory (3.5 on a Zen 5)
_CLEARLY = 1.25  # times as long: below, the two are as fast


def transforms(op: Conv) -> Transforms | None:
    """Of rows and columns, the largest that the map and the caches have room for, unless to read
    its weights takes longer than what it saves; in bfloat16 always the smaller: F(2, 3) makes 1.5
    times the error of the plain sum of such numbers, F(4, 3) four times (`python -m
    benchmarks.winograd --errors`); of bytes in whole numbers."""
    if op.dtype == "int8":
        return WholeTransform(), WholeTransform()
    large, small = _fitting(op, large=True), _fitting(op, large=False)
    if large is None or op.dtype != "float32":
        return small
    most = _WEIGHT_BYTES if op.stride == (1, 1) else _HALVING_BYTES
    if small is not None:
        size, saved = _weight_bytes(op, large), _time(op, small) / _time(op, large)
        if size > most or saved < (_CLEARLY if size > _MANY_BYTES else 1 / _CLEARLY):
            return small
    return large if _weight_bytes(op, large) <= most else None


def _fitting(op: Conv, *, large: bool) -> Transforms | None:
    rows, columns = _axis(op, 0, large=large), _axis(op, 1, large=large)
    if rows is None or columns is None:
        return None
    fit = rows.outputs <= _smallest(op, 0) and columns.outputs <= _smallest(op, 1)
    return (rows, columns) if fit else None


def _weight_bytes(op: Conv, by: Transforms) -> int:
    return 4 * by[0].points * by[1].points * sum(op.cin) * op.cout // op.groups


def _time(op: Conv, by: Transforms) -> int:
    """In multiply-adds: of its products, or of its weights from memory where that is longer."""
    return max(products(op, by), _PER_BYTE * _weight_bytes(op, by))


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
