"""Products of whole numbers of 16 bits, summed in 32: what Winograd's filtering makes of bytes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.elements import Element
from lut.ops import DType

_PRODUCTS = {8: "@llvm.x86.avx2.pmadd.wd", 16: "@llvm.x86.avx512.pmaddw.d.512"}


@dataclass(frozen=True)
class Int16(Element):
    """Of both factors; no map is stored so. Sums are taken modulo 2^32."""

    name: ClassVar[DType] = "int8"  # of the maps that factors are made of
    stored: ClassVar[str] = "int16"
    stored_weights: ClassVar[str] = "int16"
    sums: ClassVar[str] = "int32"
    bytes: ClassVar[int] = 2
    group: ClassVar[int] = 2

    def operand(self, buffer: ir.Buffer, *index: ir.Expr) -> ir.Expr:
        """As `Element.operand`: two as the bits of an integer."""
        return ir.reinterpret(ir.load(buffer, *index, lanes=2), "int32")

    def weights(self, buffer: ir.Buffer, *index: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.weights`."""
        *outer, number = index
        return ir.reinterpret(ir.load(buffer, *outer, number, 0, lanes=2 * lanes), "int32", lanes)

    def dot(self, acc: ir.Expr, weights: ir.Expr, operand: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.dot`. Where a CPU has one instruction for product and sum, LLVM finds it."""
        sums, pairs, call = f"<{lanes} x i32>", f"<{2 * lanes} x i16>", _PRODUCTS[lanes]
        name = f"hmseg_dot16_{lanes}"
        text = (
            f"declare {sums} {call}({pairs}, {pairs})\n"
            f"define linkonce_odr {sums} @{name}({sums} %a, {sums} %w, {sums} %x) alwaysinline {{\n"
            f"  %v = bitcast {sums} %w to {pairs}\n  %y = bitcast {sums} %x to {pairs}\n"
            f"  %p = call {sums} {call}({pairs} %v, {pairs} %y)\n"
            f"  %r = add {sums} %a, %p\n  ret {sums} %r\n}}\n"
        )
        return ir.call_llvm(name, text, f"int32x{lanes}", acc, weights, operand)

    def pack(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """As `Element.pack`: they are whole."""
        return np.ascontiguousarray(values.astype(np.int16))
