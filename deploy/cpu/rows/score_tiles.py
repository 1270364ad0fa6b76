"""Class scores at the image's size, tile by tile: each class a vector of pixels.

A tile of as many pixels as a vector has lanes is turned. Scores of another size are brought to the
image's by tables, and these planes are never written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.table import TableRow, pack_table, tables_of
from lut.ops import ArgMax, Masks


@dataclass(frozen=True)
class Tile:
    """`px` pixels of a row from `begin` on. classes(block, count) are the scores of the first
    `count` classes of a channel block, behind the last pixel those of that one again."""

    row: ir.Expr
    begin: ir.Expr
    px: int
    classes: Callable[[ir.Expr, int], list[ir.Expr]]


class ScoreTiles:
    """Parameters: `scores`, and where they are resampled the tables of rows and columns."""

    def __init__(self, isa: Isa, f: ir.PrimFuncBuilder, op: ArgMax | Masks) -> None:
        self.isa, self.op = isa, op
        self._scores = Map(isa, f, "scores", op.classes, op.height, op.width)
        size = op.out_height, op.out_width
        self._tables = tables_of(f, size, op.taps) if op.resampled else None

    def over(self, tasks: int, tile: Callable[[Tile], None]) -> None:
        """All tiles, ranges of rows in parallel."""
        c, width = self.isa.lanes, self.op.out_width
        with ir.parallel(0, tasks) as task:
            line = None
            if self._tables:
                line = TableRow(self._scores, self._tables[0], self._scores.blocks)
            with ir.loop(*row_range(task, tasks, self.op.out_height)) as row:
                if line is not None:
                    line.blend(0, row)

                def some(begin: ir.Expr, px: int, row: ir.Expr = row) -> None:
                    def classes(block: ir.Expr, count: int) -> list[ir.Expr]:
                        pixels = ir.Registers(c, c)
                        for p in range(c):
                            column = begin + min(p, px - 1)
                            pixels[p] = self._pixel(line, block, row, column)
                        return turned(pixels, c, count)

                    tile(Tile(row, begin, px, classes))

                ir.over_tiles(width, min(c, width), some)

    def _pixel(
        self, line: TableRow | None, block: ir.Expr, row: ir.Expr, column: ir.Expr
    ) -> ir.Expr:
        if line is None or self._tables is None:
            return self._scores.vector(block, row, column)
        acc = ir.Registers(1, self.isa.lanes)
        self._tables[1].sums(column, acc, 1, lambda _, at: line.vector(block, at), self.isa.lanes)
        return acc[0]


def pack_scores(
    op: ArgMax | Masks, rows: Array | None, columns: Array | None
) -> list[NDArray[Any]]:
    """The constants of `ScoreTiles`, of which the matcher has matrices (out, in)."""
    if rows is None or columns is None:
        return []
    return [*pack_table(rows, op.taps[0]), *pack_table(columns, op.taps[1])]


def turned(pixels: ir.Registers, size: int, count: int) -> list[ir.Expr]:
    """The first `count` columns of a square of vectors, which are its rows."""
    rows: list[ir.Expr] = [ir.bind(pixels[i]) for i in range(size)]
    steps = [1 << bit for bit in range(size.bit_length() - 1)]
    for apart in steps:
        # What later steps make of these rows differs from them in higher bits alone.
        wanted = {i % (2 * apart) for i in range(count)}
        even = [lane if not lane & apart else size + lane - apart for lane in range(size)]
        odd = [lane + apart if not lane & apart else size + lane for lane in range(size)]
        for i in range(size):
            if not i & apart:
                a, b = rows[i], rows[i + apart]
                for row, lanes in ((i, even), (i + apart, odd)):
                    if row % (2 * apart) in wanted:
                        rows[row] = ir.bind(ir.shuffle(a, b, lanes))
    return rows[:count]
