"""Which rows of a map are finite: only the others pay for tests of NaN.

Of two numbers in such a row the difference is finite too: a quarter of the largest float is the
limit.
"""

from deploy import ir
from deploy.bilinear import AxisTable
from deploy.cpu.rows.maps import Map


class FiniteRows:
    """What a thread found out about the rows of a map."""

    def __init__(self, x: Map) -> None:
        self._map = x
        self._odd = ir.scratch(x.height)  # 0, or NaN: times zero, NaN and infinity both are NaN

    def check(self, row: ir.Expr) -> None:
        """Look at a row."""
        if self._map.isa.element.integer:
            ir.store_scalar(self._odd, 0.0, row)
            return
        x, lanes, parts = self._map, self._map.isa.lanes, 4  # sums enough to hide their latency
        total = ir.Registers(parts, lanes)
        for part in range(parts):
            total[part] = ir.const(0, lanes)
        with ir.serial(0, x.blocks) as block:

            def some(begin: ir.Expr, size: int) -> None:
                for p in range(size):
                    value = x.vector(block, row, begin + p) * ir.const(4, lanes)
                    total[p] = total[p] + value * ir.const(0, lanes)

            ir.over_tiles(x.width, parts, some)
        flag = ir.scratch(lanes)
        ir.store(flag, total[0] + total[1] + (total[2] + total[3]), 0, lanes=lanes)
        with ir.serial(1, lanes) as i:
            ir.store_scalar(flag, flag[0] + flag[i], 0)
        ir.store_scalar(self._odd, flag[0], row)

    def both(self, rows: AxisTable, y: ir.Expr) -> ir.Expr:
        """Whether the two rows that output row y is blended from are finite."""
        return self._pair(ir.bind(rows.index[y, 0]), ir.bind(rows.index[y, 1]))

    def below(self, row: ir.Expr, end: ir.Expr) -> ir.Expr:
        """Whether a row and the next one, if there is one before `end`, are finite."""
        return self._pair(row, ir.bind(ir.minimum(row + 1, end - 1)))

    def _pair(self, above: ir.Expr, below: ir.Expr) -> ir.Expr:
        zero = ir.scalar(0.0)
        return ir.both(self._odd[above] == zero, self._odd[below] == zero)
