"""One row in memory of the thread."""

from deploy import ir
from deploy.cpu.isa import Isa


class RowBuffer:
    """`columns` columns of some channel blocks, the first of them column `left` of the map; a
    `Row`."""

    def __init__(self, isa: Isa, blocks: int, columns: int, left: ir.Expr = 0) -> None:
        self.columns = columns
        self._lanes, self._left, self._element = isa.lanes, left, isa.element
        self._buffer = ir.scratch(blocks * columns * isa.lanes, isa.element.stored)

    def _at(self, block: ir.Expr, column: ir.Expr) -> ir.Expr:
        return (block * self.columns + column - self._left) * self._lanes

    def value(self, block: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """As `Row.value`."""
        return self._element.value(self._buffer, self._at(block, column) + lane)

    def operand(self, block: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """As `Row.operand`."""
        return self._element.operand(self._buffer, self._at(block, column) + lane)

    def vector(self, block: ir.Expr, column: ir.Expr) -> ir.Expr:
        """As `Row.vector`."""
        return self._element.load(self._buffer, self._at(block, column), lanes=self._lanes)

    def store(self, block: ir.Expr, column: ir.Expr, *vectors: ir.Expr) -> None:
        """As `Row.store`."""
        at = self._at(block, column)
        self._element.store_run(self._buffer, vectors, at, lanes=self._lanes)

    def ahead(self, column: ir.Expr, pixels: int) -> None:
        """Nothing to ask for: it was written just now."""
