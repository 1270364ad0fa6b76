"""A map's rows and columns by tables: each is a weighted sum of a few neighbouring ones.

A single tap has the weight 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.layout import Array
from deploy.cpu.rows.maps import Map
from lut.ops import Pair

_UNROLLED = 4  # taps; more are a loop


def pack_table(matrix: Array, taps: int) -> list[NDArray[Any]]:
    """The constants of a `Table`, of a matrix (out, in): the first (out,) of `taps` neighbouring
    sources, and their weights (out, taps)."""
    size = matrix.shape[1]
    first = np.minimum((matrix != 0).argmax(axis=1), size - taps).astype(np.int32)
    places = first[:, None] + np.arange(taps)
    return [first, np.take_along_axis(matrix, places, axis=1).astype(np.float32)]


class Table:
    """Along one axis; two parameters, `NAME_first` and `NAME_weight`."""

    def __init__(self, f: ir.PrimFuncBuilder, name: str, out: int, taps: int) -> None:
        self.taps = taps
        self._first = f.param(f"{name}_first", (out,), "int32")
        self._weight = f.param(f"{name}_weight", (out, taps))

    def first(self, at: ir.Expr) -> ir.Expr:
        """The first source of an output."""
        return ir.bind(self._first[at])

    def sums(
        self, at: ir.Expr, acc: ir.Registers, count: int, read: Callable[[int, ir.Expr], ir.Expr],
        lanes: int,
    ) -> None:  # fmt: skip
        """Into `count` registers the sums of read(number, source)."""
        first = self.first(at)
        if self.taps == 1:
            for i in range(count):
                acc[i] = read(i, first)
            return

        def tap(t: ir.Expr) -> None:
            weight = ir.bind(ir.splat(self._weight[at, t], lanes))
            for i in range(count):
                acc[i] = acc[i] + weight * read(i, first + t)

        for i in range(count):
            acc[i] = ir.const(0, lanes)
        if self.taps > _UNROLLED:
            with ir.serial(0, self.taps) as t:
                tap(t)
        else:
            for t in range(self.taps):
                tap(t)


class TableRow:
    """The row of `group` channel blocks of a map that belongs to an output row: in memory of the
    thread, unless it is one of the map's own."""

    def __init__(self, x: Map, rows: Table, group: int) -> None:
        self._x, self._rows, self._group, self._lanes = x, rows, group, x.isa.lanes
        self._line = ir.scratch(group * x.width * self._lanes) if rows.taps > 1 else None
        self._own: ir.Expr = 0
        self._block: ir.Expr = 0

    def blend(self, first: ir.Expr, row: ir.Expr) -> None:
        """Become that of an output row, of the blocks from `first` on."""
        x, c, line = self._x, self._lanes, self._line
        if line is None:
            self._own, self._block = self._rows.first(row), first
            return

        def pixels(o: ir.Expr, begin: ir.Expr, px: int) -> None:
            acc = ir.Registers(px, c)
            self._rows.sums(
                row, acc, px, lambda p, source: x.vector(first + o, source, begin + p), c
            )
            for p in range(px):
                ir.store(line, acc[p], (o * x.width + begin + p) * c, lanes=c)

        with ir.serial(0, self._group) as o:
            ir.over_tiles(x.width, min(8, x.width), lambda at, px: pixels(o, at, px))

    def vector(self, block: ir.Expr, column: ir.Expr) -> ir.Expr:
        """A channel block, counted from the first, at a column of the map."""
        if self._line is None:
            return self._x.vector(self._block + block, self._own, column)
        return ir.load(
            self._line, (block * self._x.width + column) * self._lanes, lanes=self._lanes
        )


def tables_of(f: ir.PrimFuncBuilder, out: Sequence[int], taps: Pair) -> tuple[Table, Table]:
    """Of rows and columns, in call order."""
    return Table(f, "row", out[0], taps[0]), Table(f, "column", out[1], taps[1])
