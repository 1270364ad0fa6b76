"""Labels of cells of the scores, of several rows of the image at once.

Between two source rows and two source columns every class is bilinear: a straight line along the
cell's upper and lower edge, and for each row of the image one multiply-add between the two. A
vector holds some pixels of one row or more, and several vectors share the lines.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import Axis
from deploy.cpu.isa import Isa
from deploy.cpu.rows.cells import MIXED, Cells
from deploy.cpu.rows.intervals import Intervals, Pixels
from deploy.cpu.rows.maps import Map
from deploy.cpu.tiles import reduce_channels

LEAST_PIXELS = 4  # of a row in a vector: fewer bytes are not worth a store
_BESIDE = 6  # registers beside the best scores and their classes: two lines, the classes' loop


@dataclass(frozen=True)
class CellTile:
    """Pixels in registers: `vectors`, each of `rows` rows of `px` pixels."""

    px: int
    rows: int
    vectors: int

    @property
    def band(self) -> int:
        """Rows of the image at once."""
        return self.rows * self.vectors


def best_cell_tile(isa: Isa, rows: Axis, columns: Axis) -> CellTile:
    """Vectors no wider than a cell, so many that they fit the registers and share a cell's rows
    evenly."""
    width, height = (-(-axis.out // axis.size) for axis in (columns, rows))
    px = isa.lanes
    while px // 2 >= max(width, LEAST_PIXELS):
        px //= 2
    needed = -(-height * px // isa.lanes)
    passes = -(-needed // ((isa.registers - _BESIDE) // 2))
    return CellTile(px, isa.lanes // px, -(-needed // passes))


def pack_bands(rows: Axis, tile: CellTile) -> list[NDArray[np.int32] | NDArray[np.float32]]:
    """The constants of `Bands`: where each source row's output rows begin, and how far every output
    row lies below it, once for each pixel of a vector."""
    share = np.zeros((rows.out + tile.band, tile.px), np.float32)  # read in whole bands
    share[: rows.out] = rows.table()[1][:, 1:]
    return [rows.intervals(), share.reshape(-1)]


class Bands:
    """Output rows between two source rows; two parameters, `row_starts` and `row_share`."""

    def __init__(self, f: ir.PrimFuncBuilder, rows: Axis, tile: CellTile) -> None:
        self.tile = tile
        self.starts = f.param("row_starts", (rows.size + 1,), "int32")
        self.share = f.param("row_share", ((rows.out + tile.band) * tile.px,))


class LabelBand:
    """The labels of a band of rows between two finite rows of scores, in memory of the thread."""

    def __init__(self, scores: Map, columns: Intervals, bands: Bands, cells: Cells) -> None:
        self._scores, self._bands, self._cells = scores, bands, cells
        self._columns = columns.in_vectors(bands.tile.px)
        size = scores.blocks * scores.width * scores.isa.lanes
        self._upper, self._step = ir.scratch(size), ir.scratch(size)
        self._pitch = columns.columns.out + scores.isa.lanes
        self._lines = ir.scratch(bands.tile.band * self._pitch, "uint8")

    def over_rows(self, above: ir.Expr, first: ir.Expr, last: ir.Expr, y: ir.Buffer) -> None:
        """Rows [first, last) of y (1, height, width), which lie below source row `above`."""
        self._begin(above)
        band = self._bands.tile.band
        with ir.loop(0, (last - first + band - 1) // band) as part:
            top = ir.bind(first + part * band)
            self._columns.over_pixels(lambda pixels: self._cell(above, top, pixels))
            with ir.loop(0, ir.minimum(last - top, band)) as row:

                def copy(begin: ir.Expr, size: int, row: ir.Expr = row) -> None:
                    line = ir.load(self._lines, row * self._pitch + begin, lanes=size)
                    ir.store(y, line, 0, top + row, begin, lanes=size)

                ir.over_tiles(self._columns.columns.out, 64, copy)

    def _begin(self, above: ir.Expr) -> None:
        """The scores of a source row, and how far those of the next one are from them."""
        scores, lanes = self._scores, self._scores.isa.lanes
        below = ir.bind(ir.minimum(above + 1, scores.height - 1))
        with ir.serial(0, scores.blocks) as block, ir.serial(0, scores.width) as column:
            at = (block * scores.width + column) * lanes
            upper = ir.bind(scores.vector(block, above, column))
            ir.store(self._upper, upper, at, lanes=lanes)
            ir.store(self._step, scores.vector(block, below, column) - upper, at, lanes=lanes)

    def _cell(self, above: ir.Expr, top: ir.Expr, pixels: Pixels) -> None:
        only = ir.bind(self._cells.label(above, pixels.left))
        with ir.when(only != MIXED):
            with ir.then():
                filled = ir.splat(only, self._bands.tile.px)
                for row in range(self._bands.tile.band):
                    self._store(row, pixels, filled)
            with ir.otherwise():
                self._compare(top, pixels)

    def _compare(self, top: ir.Expr, pixels: Pixels) -> None:
        tile, isa, classes = self._bands.tile, self._scores.isa, self._cells.classes
        lanes, count, width = isa.lanes, tile.vectors, self._scores.width
        right, px = self._columns.fraction(pixels), tile.px
        while px < lanes:  # the same for every row of a vector
            px *= 2
            right = ir.bind(ir.shuffle(right, right, range(px)))
        left = ir.bind(ir.const(1, lanes) - right)
        best, label = ir.Registers(count, lanes), ir.Registers(count, lanes, "int32")
        for v in range(count):
            best[v], label[v] = ir.const(-math.inf, lanes), ir.const_int(0, lanes)

        def line(edge: ir.Buffer, block: ir.Expr, lane: ir.Expr) -> ir.Expr:
            a, b = (
                ir.splat(edge[(block * width + column) * lanes + lane], lanes)
                for column in (pixels.left, pixels.right)
            )
            return ir.bind(a * left + b * right)

        def look(block: ir.Expr, lane: ir.Expr) -> None:
            upper, step = line(self._upper, block, lane), line(self._step, block, lane)
            number = ir.bind(ir.splat(ir.cast(block * lanes + lane, "int32"), lanes))
            for v in range(count):
                at = (top + v * tile.rows) * tile.px
                value = ir.bind(upper + step * ir.load(self._bands.share, at, lanes=lanes))
                wins = value > best[v]
                label[v] = ir.select(wins, number, label[v])
                best[v] = ir.select(wins, value, best[v])

        reduce_channels(isa, classes, look)
        for v in range(count):
            found = ir.bind(ir.cast(label[v], "uint8", lanes))
            for row in range(tile.rows):
                part = ir.pick(found, range(row * tile.px, (row + 1) * tile.px))
                self._store(v * tile.rows + row, pixels, part if tile.rows > 1 else found)

    def _store(self, row: int, pixels: Pixels, labels: ir.Expr) -> None:
        at = row * self._pitch + pixels.begin
        ir.store(self._lines, labels, at, lanes=self._bands.tile.px)
