"""What is done to each vector of a kernel's output before it is stored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu import functions
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array, pack_vector
from deploy.cpu.rows.codes import Code, Codes, codes_of
from deploy.cpu.rows.maps import Map, pixels_ahead
from lut.ops import Pair, Shape, Step

Place = tuple[ir.Expr, ir.Expr]  # row, column

# Steps that read another map, and its shape by the output's.
OPERANDS: dict[Step, Any] = {
    "add": lambda c, h, w: (c, h, w),
    "sub": lambda c, h, w: (c, h, w),
    "mul": lambda c, h, w: (c, h, w),
    "add_channel": lambda c, h, w: (c, 1, 1),
    "sub_channel": lambda c, h, w: (c, 1, 1),
    "mul_channel": lambda c, h, w: (c, 1, 1),
    "add_pixel": lambda c, h, w: (1, h, w),
    "sub_pixel": lambda c, h, w: (1, h, w),
    "mul_pixel": lambda c, h, w: (1, h, w),
}
# Vectors of a value per channel.
CONSTANTS: dict[Step, int] = {"prelu": 1, "elu": 1, "scale": 2, "clip": 2}

_FUNCTIONS: dict[Step, Any] = {
    "sigmoid": functions.sigmoid, "swish": functions.swish, "tanh": functions.tanh,
    "gelu": functions.gelu, "gelu_tanh": functions.gelu_tanh, "softplus": functions.softplus,
    "mish": functions.mish,
}  # fmt: skip
# Long formulas, which are written once in a loop: unrolled, TVM takes minutes for them.
LONG: frozenset[Step] = frozenset({*_FUNCTIONS, "elu"})


class Epilogue:
    """The steps of `then`, on an output of this shape.

    Its parameters are, in the order of the steps, the other maps (`operands`, behind the kernel's
    inputs) and vectors (`constants`, behind its weights): `NAME` (C/c, c).
    """

    def __init__(self, isa: Isa, then: tuple[Step, ...], output: Shape) -> None:
        self.isa, self.then, self.output = isa, then, output
        self.long = not LONG.isdisjoint(then)
        self._maps: list[Map] = []
        self._code: Code | None = None  # of the output
        self._vectors: list[ir.Buffer] = []

    def operands(self, f: ir.PrimFuncBuilder) -> None:
        """Declare the other maps."""
        for number, step in enumerate(self.then):
            if step in OPERANDS:
                shape = OPERANDS[step](*self.output)
                isa = self.isa.of_channels if step.endswith("_channel") else self.isa
                self._maps.append(Map(isa, f, f"{step}{number}", *shape))

    def codes(self, f: ir.PrimFuncBuilder, *inputs: Map) -> None:
        """Declare what the quanta of the output, the inputs and the other maps are, where these are
        bytes: steps are of real numbers (`deploy.cpu.scales.real_codes`)."""
        coded = codes_of(self.isa, f, 1 + len(inputs) + len(self._maps))
        if coded is not None:
            for number, of in enumerate(inputs):
                of.reads = coded[1 + number]
            self.take(coded[0], coded, 1 + len(inputs))

    def take(self, output: Code | None, codes: Codes, first: int) -> None:
        """Take the code of the output, None for floats, and from row `first` on those of the other
        maps."""
        self._code = output
        for number, of in enumerate(self._maps):
            of.reads = codes[first + number]

    @property
    def maps(self) -> Sequence[Map]:
        """The other maps."""
        return self._maps

    def operand(self, number: int, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> ir.Expr:
        """What the step that reads the `number`th other map takes of it for a vector."""
        steps = [step for step in self.then if step in OPERANDS]
        return _operand(self._maps[number], steps[number], block, row, column)

    def as_row(self) -> None:
        """Let every map be one row of all its pixels."""
        self._maps = [of if of.height * of.width == 1 else of.as_row() for of in self._maps]

    def constants(self, f: ir.PrimFuncBuilder) -> None:
        """Declare the vectors."""
        shape = self.isa.blocks(self.output[0]), self.isa.lanes
        for number, step in enumerate(self.then):
            for i in range(CONSTANTS.get(step, 0)):
                self._vectors.append(f.param(f"{step}{number}_{i}", shape))

    def store(
        self,
        y: Map,
        acc: ir.Registers,
        corner: Place,
        size: Pair,
        step: Pair,
        out: ir.Expr,
        ob: int,
    ) -> None:
        """Finish a register tile and store it: `size` rows and columns, `step` apart, from the
        output's `corner` on, of `ob` channel blocks from `out` on (pixel-major)."""
        (high, wide), lanes = size, self.isa.lanes
        if not self.long and self.isa.element.run > 1:
            self._store_runs(y, acc, corner, size, step, out, ob)
            return
        # Between the loops in memory, not in y, whose element may round.
        sums = ir.scratch(high * wide * ob * lanes) if self.long else None
        for p in range(high * wide):
            row, column = corner[0] + p // wide * step[0], corner[1] + p % wide * step[1]
            for o in range(ob):
                if self.long:
                    ir.store(sums, acc[p * ob + o], (p * ob + o) * lanes, lanes=lanes)
                else:
                    self._ask_ahead(step, out + o, row, column)
                    value = self.apply(acc[p * ob + o], out + o, row, column)
                    y.row(row).store(out + o, column, value)
        if not self.long:
            return
        with ir.serial(0, ob) as o, ir.serial(0, high) as i, ir.serial(0, wide) as j:
            row, column = ir.bind(corner[0] + i * step[0]), ir.bind(corner[1] + j * step[1])
            value = ir.load(sums, ((i * wide + j) * ob + o) * lanes, lanes=lanes)
            y.row(row).store(out + o, column, self.apply(value, out + o, row, column))

    def _ask_ahead(self, step: Pair, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> None:
        """Ask for what a later pixel reads of other maps as large as the output."""
        for of in self._maps if step == (1, 1) else ():
            if (of.height, of.width) != (1, 1) and of.blocks == self.isa.blocks(self.output[0]):
                of.prefetch(block, row, column + pixels_ahead(self.isa), 1)

    def _store_runs(
        self, y: Map, acc: ir.Registers, corner: Place, size: Pair, step: Pair, out: ir.Expr,
        ob: int,
    ) -> None:  # fmt: skip
        """The same, neighbouring pixels together."""
        high, wide = size
        run = self.isa.element.run if step[1] == 1 else 1
        for o in range(ob):
            for i in range(high):
                row = corner[0] + i * step[0]
                for begin in range(0, wide, run):
                    values = [
                        self.apply(
                            acc[(i * wide + j) * ob + o], out + o, row, corner[1] + j * step[1]
                        )
                        for j in range(begin, min(begin + run, wide))
                    ]
                    y.row(row).store(out + o, corner[1] + begin * step[1], *values)

    def apply(self, value: ir.Expr, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> ir.Expr:
        """A vector of one pixel, ready to be stored."""
        maps, vectors, lanes = iter(self._maps), iter(self._vectors), self.isa.lanes
        # Between long formulas a register, through which TVM's simplifier does not look: it would
        # take time that doubles with each.
        between = ir.Registers(1, lanes) if self.long else None
        for step in self.then:
            if step in OPERANDS:
                other = _operand(next(maps), step, block, row, column)
                value = _with_other(value, step, other)
            elif step in CONSTANTS:
                given = [
                    ir.load(next(vectors), block, 0, lanes=lanes) for _ in range(CONSTANTS[step])
                ]
                value = _with_constants(value, step, given, lanes)
            else:
                value = function(value, step, lanes)
            if between is None:
                value = ir.bind(value)
            else:
                between[0] = value
                value = between[0]
        return value if self._code is None else self._code.apply(value, lanes)


def pack_steps(isa: Isa, steps: list[Array]) -> list[NDArray[Any]]:
    """Constants of the steps in call order: vectors (C,) as (C/c, c)."""
    return [pack_vector(isa, np.asarray(vector, np.float32)) for vector in steps]


def function(value: ir.Expr, step: Step, lanes: int) -> ir.Expr:
    """A step of the value alone."""
    if step == "relu" or step == "relu6" or step == "hswish":
        return ir.activate(value, step, lanes)
    value = ir.bind(value)
    if step == "hsigmoid":  # relu6(value + 3) / 6
        shifted = ir.activate(value + ir.const(3, lanes), "relu6", lanes)
        return shifted * ir.const(1 / 6, lanes)
    found: ir.Expr = _FUNCTIONS[step](value, lanes)
    return found


def _operand(of: Map, step: Step, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> ir.Expr:
    if step.endswith("_pixel"):
        return ir.splat(of.row(row).value(0, column, 0), of.isa.lanes)
    if step.endswith("_channel"):
        return of.vector(block, 0, 0)
    return of.vector(block, row, column)


def _with_other(value: ir.Expr, step: Step, other: ir.Expr) -> ir.Expr:
    if step.startswith("add"):
        return value + other
    return value - other if step.startswith("sub") else value * other


def _with_constants(value: ir.Expr, step: Step, given: list[ir.Expr], lanes: int) -> ir.Expr:
    if step == "prelu":
        value = ir.bind(value)
        return ir.select(value < ir.const(0, lanes), value * given[0], value)
    if step == "scale":
        factor, shift = given
        return value * factor + shift
    if step == "clip":  # the upper bound last, as ONNX has it; NaN stays
        value = ir.bind(value)
        value = ir.bind(ir.select(value < given[0], given[0], value))
        return ir.select(value > given[1], given[1], value)
    if step == "elu":
        return functions.elu(value, given[0], lanes)
    raise AssertionError(step)
