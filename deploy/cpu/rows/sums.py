"""What becomes of a convolution's whole sums: quanta of what it writes, or real numbers ahead of
what follows (`deploy.cpu.scales` says how)."""

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.codes import Codes
from deploy.cpu.rows.epilogue import Epilogue, Place
from deploy.cpu.rows.maps import Map
from deploy.cpu.scales import REAL
from deploy.grid import Grid
from lut.ops import Conv

_ADDS = ("add", "add_channel")  # steps that sums of quanta are taken in


def folded(op: Conv) -> bool:
    """Whether sums become quanta of the output at once: nothing follows, or one map is added."""
    if op.wide:
        return False
    return not op.then or (len(op.then) == 1 and op.then[0] in _ADDS)


def unit_of_sums(op: Conv, output: Grid) -> Grid:
    """What the multiplier brings sums to."""
    return output if folded(op) else REAL


class Sums:
    """Takes register tiles of sums; `codes` are those of y, x and the epilogue's maps, `multiplier`
    is (O/c, c)."""

    def __init__(
        self, op: Conv, isa: Isa, epilogue: Epilogue, codes: Codes, multiplier: ir.Buffer, y: Map
    ) -> None:
        self._op, self._isa, self._epilogue = op, isa, epilogue
        self._codes, self._multiplier, self._y = codes, multiplier, y

    def store(
        self, acc: ir.Registers, corner: Place, size: tuple[int, int], step: tuple[int, int],
        out: ir.Expr, ob: int,
    ) -> None:  # fmt: skip
        """Make numbers of sums and store them: `size` rows and columns, `step` apart."""
        (high, wide), c = size, self._isa.lanes
        if not folded(self._op):
            self._store_steps(acc, corner, size, step, out, ob)
            return
        run = self._isa.element.run if step[1] == 1 else 1
        for o in range(ob):
            multiplier = ir.bind(ir.load(self._multiplier, out + o, 0, lanes=c))
            for y in range(high):
                row = corner[0] + y * step[0]
                for begin in range(0, wide, run):
                    values = [
                        self._number(
                            acc[(y * wide + x) * ob + o], multiplier, out + o, row,
                            corner[1] + x * step[1],
                        )
                        for x in range(begin, min(begin + run, wide))
                    ]  # fmt: skip
                    self._y.row(row).store(out + o, corner[1] + begin * step[1], *values)

    def _number(
        self, total: ir.Expr, multiplier: ir.Expr, block: ir.Expr, row: ir.Expr, column: ir.Expr
    ) -> ir.Expr:
        """The quanta of one pixel."""
        c = self._isa.lanes
        added = self._codes[0].shift(c)
        if self._op.then:
            added = self._epilogue.operand(0, block, row, column)
        return ir.fma(ir.cast(total, "float32", c), multiplier, added, c)

    def _store_steps(
        self, acc: ir.Registers, corner: Place, size: tuple[int, int], step: tuple[int, int],
        out: ir.Expr, ob: int,
    ) -> None:  # fmt: skip
        """The same where steps follow, which are of real numbers."""
        c, count = self._isa.lanes, size[0] * size[1] * ob
        real = ir.Registers(count, c)
        for o in range(ob):
            multiplier = ir.bind(ir.load(self._multiplier, out + o, 0, lanes=c))
            for at in range(o, count, ob):
                value = ir.cast(acc[at], "float32", c)
                real[at] = ir.fma(value, multiplier, ir.const(0, c), c)
        self._epilogue.store(self._y, real, corner, size, step, out, ob)
