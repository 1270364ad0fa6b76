"""Between the quanta of 8-bit maps and numbers: constants of a kernel."""

from collections.abc import Callable
from dataclasses import dataclass

from deploy import ir
from deploy.cpu.isa import Isa
from lut.ops import Activation


@dataclass(frozen=True)
class Code:
    """A factor and a shift of a map, of row `row` of the parameter."""

    buffer: ir.Buffer
    row: int

    def factor(self, lanes: int) -> ir.Expr:
        """In every lane."""
        return ir.splat(self.buffer[self.row, 0], lanes)

    def shift(self, lanes: int) -> ir.Expr:
        """In every lane; of a map that is written, its zero point."""
        return ir.splat(self.buffer[self.row, 1], lanes)

    def apply(self, value: ir.Expr, lanes: int) -> ir.Expr:
        """value * factor + shift."""
        return ir.fma(value, self.factor(lanes), self.shift(lanes), lanes)

    def zero(self) -> ir.Expr:
        """The zero point of a map that is written, as a byte."""
        return ir.cast(ir.cast(self.buffer[self.row, 1], "int32"), "uint8")


class Codes:
    """Parameter `codes` (n, 2), as `deploy.cpu.scales.codes` makes it."""

    def __init__(self, f: ir.PrimFuncBuilder, count: int) -> None:
        self._buffer = f.param("codes", (count, 2))

    def __getitem__(self, row: int) -> Code:
        return Code(self._buffer, row)


def codes_of(isa: Isa, f: ir.PrimFuncBuilder, count: int) -> Codes | None:
    """The parameter, where maps have codes."""
    return Codes(f, count) if isa.element.integer else None


def code_at(codes: Codes | None, row: int) -> Code | None:
    """One of them, where there are any."""
    return None if codes is None else codes[row]


@dataclass(frozen=True)
class Ending:
    """What becomes of a result before it is stored: the activation, and quanta in the code of where
    it goes, which only integer elements have.

    Where no function lies between, sums become quanta at once: the zero point is added to them as
    `start` says.
    """

    isa: Isa
    act: Activation
    code: Code | None = None

    @property
    def start(self) -> ir.Expr | None:
        """What is to be added to a product; None for nothing."""
        if self.code is None or self.act != "none":
            return None
        return self.code.shift(self.isa.lanes)

    def starts(self) -> Callable[[ir.Expr, ir.Expr], ir.Expr] | None:
        """`start` for every pixel and output block."""
        start = self.start
        return None if start is None else lambda p, o: start

    def apply(self, *vectors: ir.Expr) -> list[ir.Expr]:
        """Vectors as they are stored."""
        lanes = self.isa.lanes
        done = [ir.activate(vector, self.act, lanes) for vector in vectors]
        if self.code is None or self.act == "none":
            return done
        return [self.code.apply(value, lanes) for value in done]
