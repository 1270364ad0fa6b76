"""Dense 3x3 convolution of bytes by Winograd's filtering in whole numbers (`winograd_whole`): the
same sums as tap by tap, by a quarter of the products, of 16 bits.

The kernel is `conv_winograd`'s with another arithmetic. On ARM, whose products of 16 bits are a
quarter as many as those of bytes, it is `conv_int8`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu import winograd_tiles
from deploy.cpu.int16 import Int16
from deploy.cpu.isa import Isa
from deploy.cpu.kernels import conv_int8, conv_winograd
from deploy.cpu.layout import Array
from deploy.cpu.rows.band_bytes import CopiedBand
from deploy.cpu.rows.codes import Codes
from deploy.cpu.rows.epilogue import pack_steps
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.sums import Sums, unit_of_sums
from deploy.cpu.scales import codes, pack_sums, reading, writing
from deploy.cpu.winograd_whole import LARGEST, WholeTransform, restored
from deploy.grid import Scales
from lut.ops import Conv

_WHOLE = WholeTransform()
# In cycles of a core: products of bytes and of 16 bits in one, bytes that come from memory; and
# what the transforms take, in products of so many output and input channels.
_BYTES_PER_CYCLE, _SHORTS_PER_CYCLE, _FROM_MEMORY = 120, 60, 6
_INPUTS, _RESULTS = 14, 13


def supports(op: Conv) -> bool:
    """Windows of 3x3 at stride 1 that are filtered in less time than tap by tap; sums of any bytes
    and weights are found again."""
    plain = (op.kernel, op.stride, op.spread, op.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
    maps = op.dtype == "int8" and op.source == "maps" and len(op.cin) == 1 and op.groups == 1
    if not plain or not maps or min(op.output[1:]) < _WHOLE.outputs:
        return False
    (cin,) = op.cin
    if 9 * cin * 255 * 127 >= LARGEST:
        return False
    transforms = 1 + _INPUTS / op.cout + _RESULTS / cin
    filtered = products(op) / _SHORTS_PER_CYCLE * transforms
    weights = 2 * _WHOLE.points**2 * cin * op.cout
    return max(filtered, weights / _FROM_MEMORY) < op.macs / _BYTES_PER_CYCLE


def products(op: Conv) -> int:
    """Multiply-adds of its tiles; the transforms, which are sums, are not counted."""
    return winograd_tiles.products(op, (_WHOLE, _WHOLE))


def _is_direct(isa: Isa) -> bool:
    return isa.name == "neon"


def default_schedule(op: Conv, isa: Isa, threads: int = 2) -> Any:  # noqa: ANN401 - a schedule
    """As `conv_winograd`'s, for factors of 16 bits."""
    if _is_direct(isa):
        return conv_int8.default_schedule(op, isa, threads)
    return conv_winograd.default_schedule(op, replace(isa, element=Int16()), threads)


def pack(
    op: Conv, isa: Isa, weight: Array, bias: Array, steps: list[Array],
    normalisation: dict[str, Any] | None = None, *, scales: Scales,
) -> list[NDArray[Any]]:  # fmt: skip
    """Constants in call order, with `scales` of x, of the steps' maps, and of y: codes of y, x and
    the steps' maps, transformed weight (O/c, points, ceil(I/2), c * 2), bias (O/c, c), multiplier
    (O/c, c), the steps' vectors. Raises UserError where sums and biases do not fit."""
    if _is_direct(isa):
        return conv_int8.pack(op, isa, weight, bias, steps, normalisation, scales=scales)
    x, *others = scales.inputs
    unit = unit_of_sums(op, scales.output)
    weight, bias = np.asarray(weight), np.asarray(bias)
    sums = pack_sums(isa, weight.astype(np.int8), bias, x, scales.weights[0], unit)
    packed, _ = conv_winograd.pack(op, replace(isa, element=Int16()), weight, bias, [])
    return [
        codes(writing(scales.output), writing(x), *[reading(other, unit) for other in others]),
        packed,
        *sums,
        *pack_steps(isa, steps),
    ]


def emit(op: Conv, schedule: Any, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, other maps, constants, y)."""
    if _is_direct(isa):
        return conv_int8.emit(op, schedule, isa)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        return _Kernel(op, schedule, isa, f).body

    return ir.prim_func("conv", signature)


class _Kernel(conv_winograd.Kernel):
    """With factors of 16 bits; sums are found again of what the transforms left."""

    def _begin(self, f: ir.PrimFuncBuilder) -> None:
        op = self.op
        self.element = Int16()
        self.x = Map(self.isa, f, "x", op.cin[0], op.height, op.width)
        self.epilogue.operands(f)
        self.codes = Codes(f, 2 + len(self.epilogue.maps))
        self.epilogue.take(self.codes[0] if not op.wide else None, self.codes, 2)

    def _constants(self, f: ir.PrimFuncBuilder) -> None:
        shape = self.blocks, self.isa.lanes
        self.bias = f.param("bias", shape, self.element.sums)
        self.multiplier = f.param("multiplier", shape)

    def _band(self, reach: tuple[int, int]) -> CopiedBand:
        return CopiedBand(self.x, reach, self.in_blocks, self.codes[1].zero())

    def _finish(self, values: list[ir.Expr], place: tuple[ir.Expr, ir.Expr], out: ir.Expr) -> None:
        c, op = self.isa.lanes, self.op
        bias = ir.bind(ir.load(self.bias, out, 0, lanes=c))
        acc = ir.Registers(len(values), c, self.element.sums)
        for x, value in enumerate(values):
            acc[x] = restored(value, c) + bias
        sums = Sums(op, self.isa, self.epilogue, self.codes, self.multiplier, self.y)
        sums.store(acc, place, (1, len(values)), op.dilation, out, 1)
