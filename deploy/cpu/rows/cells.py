"""Cells of a map of scores in which one class wins everywhere.

Where one class wins at all four corners of a cell of the scores, it wins everywhere between: its
lead over any other class is bilinear too, and nowhere below its smallest corner. Only a lead that
rounding would turn into a tie is decided otherwise than pixel by pixel, for the better.
"""

import math

from deploy import ir
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.score_tiles import turned

MIXED = 255  # no label: there are 255 classes at most


class Cells:
    """What a thread found out about the cells of a map of `classes` scores, by the upper left
    corner."""

    def __init__(self, scores: Map, classes: int) -> None:
        self._scores, self.classes = scores, classes
        self._winners = ir.scratch(scores.height * scores.width, "uint8")

    def label(self, row: ir.Expr, column: ir.Expr) -> ir.Expr:
        """The class that wins in a cell, or MIXED."""
        return self._winners[row * self._scores.width + column]

    def find(self, row: ir.Expr) -> None:
        """The class with the highest score at every pixel of a row."""
        scores, c, width = self._scores, self._scores.isa.lanes, self._scores.width
        size = min(c, width)
        full, tail = divmod(self.classes, c)
        with ir.serial(0, -(-width // size)) as part:
            begin = ir.bind(ir.minimum(part * size, width - size))
            best, label = ir.Registers(1, c), ir.Registers(1, c, "int32")
            best[0], label[0] = ir.const(-math.inf, c), ir.const_int(0, c)

            def look(block: ir.Expr, count: int) -> None:
                pixels = ir.Registers(c, c)
                for p in range(c):
                    pixels[p] = scores.vector(block, row, begin + min(p, size - 1))
                for lane, value in enumerate(turned(pixels, c, count)):
                    wins = value > best[0]
                    number = ir.splat(ir.cast(block * c + lane, "int32"), c)
                    label[0] = ir.select(wins, number, label[0])
                    best[0] = ir.select(wins, value, best[0])

            if full:
                with ir.serial(0, full) as block:
                    look(block, c)
            if tail:
                look(full, tail)
            found = ir.bind(ir.cast(label[0], "uint8", c))
            found = ir.pick(found, range(size)) if size < c else found
            ir.store(self._winners, found, row * width + begin, lanes=size)

    def join(self, first: ir.Expr, last: ir.Expr) -> None:
        """From winners at the pixels of rows [first, last) to winners of whole cells, in place; the
        last row has none below it."""
        width, winners = self._scores.width, self._winners
        with ir.loop(first, last) as row, ir.serial(0, width) as column:
            right = ir.bind(ir.minimum(column + 1, width - 1))
            here = ir.bind(row * width)
            below = ir.bind(ir.minimum(row + 1, last - 1) * width)
            only = ir.bind(winners[here + column])
            same = ir.both(only == winners[here + right], only == winners[below + column])
            same = ir.both(same, only == winners[below + right])
            ir.store_scalar(winners, ir.select(same, only, ir.uint8(MIXED)), here + column)
