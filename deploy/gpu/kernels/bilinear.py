"""Bilinear sampling of a planar map at the pixels of another size (half-pixel centres)."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import Axis, AxisTable, axes_of
from lut.ops import Labels, Pointwise, Resize


@dataclass(frozen=True)
class Bilinear:
    """From one size to another, any ratio.

    The coordinates are tables (`deploy.bilinear`).
    """

    row: Axis
    column: Axis

    def pack(self) -> list[NDArray[Any]]:
        """Constants in call order: sources and weights of the rows, then of the columns."""
        return [table for axis in (self.row, self.column) for table in axis.table()]

    def params(self, f: ir.PrimFuncBuilder) -> "Tables":
        """The four parameters that `pack` fills."""
        return Tables(self, AxisTable(f, "row", self.row), AxisTable(f, "column", self.column))


def sampling_of(op: Resize | Labels | Pointwise) -> Bilinear:
    """That of an operation's resize, or of its low map's upsampling."""
    return Bilinear(*axes_of(op))


@dataclass(frozen=True)
class Tables:
    """The tables as parameters of a kernel under construction."""

    size: Bilinear
    rows: AxisTable
    columns: AxisTable

    def at(self, first: Any, count: int) -> "Sample":  # noqa: ANN401
        """Where `count` neighbouring output pixels of one row lie; `first` is counted row by row
        over the whole output."""
        row = _entry(self.rows, ir.bind(first // self.size.column.out))
        column = ir.bind(first % self.size.column.out)
        return Sample(row, [_entry(self.columns, ir.bind(column + i)) for i in range(count)])


def _entry(axis: AxisTable, i: Any) -> tuple[Any, ...]:  # noqa: ANN401
    index, weight = axis.index, axis.weight
    return tuple(ir.bind(value) for value in (index[i, 0], index[i, 1], weight[i, 0], weight[i, 1]))


@dataclass(frozen=True)
class Sample:
    """(first source, second source, first weight, second weight) of a row and of its pixels."""

    row: tuple[Any, ...]
    columns: list[tuple[Any, ...]]

    def value(self, source: Any, channel: Any, pixel: int) -> Any:  # noqa: ANN401
        """The map (1, C, H, W) at one of the pixels."""
        y0, y1, v0, v1 = self.row
        x0, x1, w0, w1 = self.columns[pixel]
        above = source[0, channel, y0, x0] * w0 + source[0, channel, y0, x1] * w1
        below = source[0, channel, y1, x0] * w0 + source[0, channel, y1, x1] * w1
        return above * v0 + below * v1
