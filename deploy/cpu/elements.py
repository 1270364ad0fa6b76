"""How the numbers of a map lie in memory, and how products of them are summed up.

Kernels compute in vectors of float32. An element says how such a vector is loaded from a map and
stored into one, and what one step of a sum of products is: of one input channel (float32) or of two
neighbours at once (bfloat16).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from lut.ops import DType


@dataclass(frozen=True)
class Element:
    """float32 itself, and what the others replace.

    `stored` is the type of maps in memory, `stored_weights` that of weights, `sums` that of a sum
    of products, `bytes` what an element of a map takes, `group` how many input channels one step of
    a sum takes, `run` how many neighbouring pixels are best stored at once.
    """

    name: ClassVar[DType] = "float32"
    stored: ClassVar[str] = "float32"
    stored_weights: ClassVar[str] = "float32"
    sums: ClassVar[str] = "float32"
    bytes: ClassVar[int] = 4
    group: ClassVar[int] = 1
    run: ClassVar[int] = 1

    @property
    def integer(self) -> bool:
        """Whether sums are whole numbers, which a multiplier brings to a unit."""
        return self.sums == "int32"

    @property
    def offset(self) -> int:
        """What `dot` takes off every number of a map."""
        return 0

    def load(self, buffer: ir.Buffer, *index: ir.Expr, lanes: int) -> ir.Expr:
        """`lanes` neighbours as a vector of float32; the last index is that of the first one."""
        return ir.load(buffer, *index, lanes=lanes)

    def store(self, buffer: ir.Buffer, vector: ir.Expr, *index: ir.Expr, lanes: int) -> None:
        """The inverse of `load`."""
        ir.store(buffer, vector, *index, lanes=lanes)

    def store_run(
        self, buffer: ir.Buffer, vectors: Sequence[ir.Expr], *index: ir.Expr, lanes: int
    ) -> None:
        """Write vectors of `lanes` one behind the other; the last index is that of the first
        element."""
        *outer, first = index
        for number, vector in enumerate(vectors):
            self.store(buffer, vector, *outer, first + number * lanes, lanes=lanes)

    def value(self, buffer: ir.Buffer, *index: ir.Expr) -> ir.Expr:
        """One element as a float."""
        return self.load(buffer, *index, lanes=1)

    def operand(self, buffer: ir.Buffer, *index: ir.Expr) -> ir.Expr:
        """What `dot` takes of a pixel: `group` neighbouring channels, the last index that of the
        first one, a multiple of it."""
        return self.value(buffer, *index)

    def weights(self, buffer: ir.Buffer, *index: ir.Expr, lanes: int) -> ir.Expr:
        """What `dot` takes of the constants that `pack_weights` made; the last index counts vectors
        of `lanes` groups."""
        *outer, number = index
        return ir.load(buffer, *outer, number, 0, lanes=lanes)

    def columns(self, buffer: ir.Buffer, first: ir.Expr, lanes: int) -> ir.Expr:
        """What `dot` takes of `group` neighbouring pixels of a channel block, the first of which
        begins at `first` of a flat buffer: in every lane a channel's."""
        assert self.group == 1
        return self.load(buffer, first, lanes=lanes)

    def dot(self, acc: ir.Expr, weights: ir.Expr, operand: ir.Expr, lanes: int) -> ir.Expr:
        """acc + the products of one group, in every lane with weights of its own. `operand` is a
        register of `spread`."""
        del lanes
        return acc + weights * operand

    def spread(self, operand: ir.Expr, lanes: int) -> ir.Expr:
        """An operand in every lane."""
        return ir.splat(operand, lanes)

    def beside(self, blocks: int) -> int:
        """Registers that a product of so many output blocks takes beside its sums."""
        return blocks + 1

    def mix(self, a: ir.Expr, w0: ir.Expr, b: ir.Expr, w1: ir.Expr, lanes: int) -> ir.Expr:
        """a * w0 + b * w1 of vectors."""
        del lanes
        return a * w0 + b * w1

    def pack(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """An array of floats as it is stored."""
        return np.asarray(values, np.float32)

    def pack_weights(self, weights: NDArray[np.float32]) -> NDArray[Any]:
        """(..., I, c) -> (..., ceil(I / group), c * group): a group's weights of one lane lie
        together; a last group that is not full ends in zeros."""
        *outer, inner, lanes = weights.shape
        groups = -(-inner // self.group)
        padded = np.zeros((*outer, groups * self.group, lanes), np.float32)
        padded[..., :inner, :] = weights
        grouped = padded.reshape(*outer, groups, self.group, lanes)
        together = np.swapaxes(grouped, -1, -2).reshape(*outer, groups, lanes * self.group)
        return np.ascontiguousarray(self.pack(together))


@dataclass(frozen=True)
class ByteWeights(Element):
    """float32 with weights of signed bytes: whole numbers, so that sums are
    still to be multiplied by a scale."""

    stored_weights: ClassVar[str] = "int8"

    def weights(self, buffer: ir.Buffer, *index: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.weights`."""
        return ir.cast(super().weights(buffer, *index, lanes=lanes), "float32", lanes)

    def pack_weights(self, weights: NDArray[np.float32]) -> NDArray[Any]:
        """As `Element.pack_weights`."""
        return super().pack_weights(weights).astype(np.int8)


@dataclass(frozen=True)
class Bfloat16(Element):
    """The upper half of a float32; products of two channels are summed by one instruction.

    `intrinsic` is LLVM's name of it, of whole registers.
    """

    intrinsic: str
    name: ClassVar[DType] = "bfloat16"
    stored: ClassVar[str] = "uint16"
    stored_weights: ClassVar[str] = "uint16"
    bytes: ClassVar[int] = 2
    group: ClassVar[int] = 2

    def load(self, buffer: ir.Buffer, *index: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.load`."""
        return _widened(ir.load(buffer, *index, lanes=lanes), lanes)

    def store(self, buffer: ir.Buffer, vector: ir.Expr, *index: ir.Expr, lanes: int) -> None:
        """As `Element.store`: the nearest, halves to even; NaN stays NaN."""
        # Through LLVM's own bfloat, which TVM has no words for, as bits.
        of = f"<{lanes} x "
        text = (
            f"define linkonce_odr {of}i16> @hmseg_narrow_{lanes}({of}float> %x) alwaysinline {{\n"
            f"  %y = fptrunc {of}float> %x to {of}bfloat>\n"
            f"  %z = bitcast {of}bfloat> %y to {of}i16>\n"
            f"  ret {of}i16> %z\n}}\n"
        )
        narrow = ir.call_llvm(f"hmseg_narrow_{lanes}", text, f"uint16x{lanes}", vector)
        ir.store(buffer, narrow, *index, lanes=lanes)

    def operand(self, buffer: ir.Buffer, *index: ir.Expr) -> ir.Expr:
        """As `Element.operand`: two as the bits of an integer."""
        return ir.reinterpret(ir.load(buffer, *index, lanes=2), "int32")

    def weights(self, buffer: ir.Buffer, *index: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.weights`."""
        *outer, number = index
        both = ir.load(buffer, *outer, number, 0, lanes=2 * lanes)
        return ir.reinterpret(both, "int32", lanes)

    def dot(self, acc: ir.Expr, weights: ir.Expr, operand: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.dot`."""
        sums, pairs, bits = f"<{lanes} x float>", f"<{2 * lanes} x bfloat>", f"<{lanes} x i32>"
        text = (
            f"declare {sums} @{self.intrinsic}({sums}, {pairs}, {pairs})\n"
            f"define linkonce_odr {sums} @hmseg_dot_{lanes}({sums} %a, {bits} %w, {bits} %x) "
            "alwaysinline {\n"
            f"  %v = bitcast {bits} %w to {pairs}\n"
            f"  %y = bitcast {bits} %x to {pairs}\n"
            f"  %r = call {sums} @{self.intrinsic}({sums} %a, {pairs} %v, {pairs} %y)\n"
            f"  ret {sums} %r\n}}\n"
        )
        name = f"hmseg_dot_{lanes}"
        return ir.call_llvm(name, text, f"float32x{lanes}", acc, weights, operand)

    def pack(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """As `Element.pack`: the nearest, halves to even."""
        return to_bfloat16(values)


def _widened(bits: ir.Expr, lanes: int) -> ir.Expr:
    wide = ir.cast(bits, "uint32", lanes)
    return ir.reinterpret(wide << ir.splat(ir.uint32(16), lanes), "float32", lanes)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16, halves to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), (bits >> 16 | 0x40).astype(np.uint16), rounded)


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The floats of such bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


FLOAT32 = Element()
