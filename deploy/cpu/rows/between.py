"""Vectors that one loop leaves to the next."""

from collections.abc import Iterator

from deploy import ir


class Between:
    """Vectors by number: in registers, with both loops unrolled, or in memory of the thread."""

    def __init__(
        self, count: int, lanes: int, *, in_registers: bool, dtype: str = "float32"
    ) -> None:
        self._lanes = lanes
        self._registers = ir.Registers(count, lanes, dtype) if in_registers else None
        self._buffer = None if in_registers else ir.scratch(count * lanes, dtype)

    def over(self, count: int) -> Iterator[ir.Expr]:
        """Numbers below `count`: those of registers are known when the kernel is written."""
        if self._registers is not None:
            yield from range(count)
            return
        with ir.serial(0, count) as number:
            yield number

    def __getitem__(self, number: ir.Expr) -> ir.Expr:
        if self._registers is not None:
            return self._registers[number]
        return ir.load(self._buffer, number * self._lanes, lanes=self._lanes)

    def __setitem__(self, number: ir.Expr, value: ir.Expr) -> None:
        if self._registers is not None:
            self._registers[number] = value
        else:
            ir.store(self._buffer, value, number * self._lanes, lanes=self._lanes)
