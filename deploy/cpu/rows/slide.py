"""Windows that slide over the rows of a map, each channel by itself, without a copy of padding.

Rows outside the map are left out by the bounds of a loop over the window's rows; the columns whose
taps reach outside have code of their own without those taps.
"""

from collections.abc import Callable
from dataclasses import dataclass

from deploy import ir
from deploy.cpu.window import row_bounds
from lut.ops import Conv, Pool

WIDE = 16  # taps in a row; beyond, they are a loop

# begin, pixels, and whether the tap at (pixel, number) lies inside
Tile = Callable[[ir.Expr, int, Callable[[int, int], bool]], None]


@dataclass(frozen=True)
class Slide:
    """Along one axis of `size`: output t of `out` reads from t * stride - pad on."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    pad: int

    @property
    def interior(self) -> tuple[int, int]:
        """Outputs [first, last) of which every tap lies inside."""
        first = max(0, -(-self.pad // self.stride))
        reach = (self.kernel - 1) * self.dilation - self.pad
        last = min(self.out, (self.size - 1 - reach) // self.stride + 1)
        return (first, last) if first < last else (self.out, self.out)

    def start(self, at: ir.Expr) -> ir.Expr:
        """Where the taps of an output begin."""
        return at * self.stride - self.pad

    def bounds(self, start: ir.Expr) -> tuple[ir.Expr, ir.Expr]:
        """Taps [low, high) that lie inside."""
        return row_bounds(self.kernel, self.dilation, self.size, start)

    def over_tiles(self, px: int, tile: Tile) -> None:
        """All outputs in tiles of `px` and shorter ones."""

        def edge(first: int, last: int) -> None:
            for begin in range(first, last, px):

                def valid(p: int, k: int, begin: int = begin) -> bool:
                    at: int = (begin + p) * self.stride - self.pad + k * self.dilation
                    return 0 <= at < self.size

                tile(begin, min(px, last - begin), valid)

        first, last = self.interior
        edge(0, first)
        if first < last:
            ir.over_tiles(
                last - first, px, lambda begin, size: tile(first + begin, size, _everywhere)
            )
            edge(last, self.out)


def _everywhere(p: int, k: int) -> bool:
    del p, k
    return True


def slides_of(op: Conv | Pool) -> tuple[Slide, Slide]:
    """Rows and columns."""
    rows, columns = (
        Slide(size, op.output[1 + axis], op.kernel[axis], op.stride[axis], op.dilation[axis],
              op.pad[axis])
        for axis, size in enumerate((op.height, op.width))
    )  # fmt: skip
    return rows, columns
