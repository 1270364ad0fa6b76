"""Maps of unsigned bytes, weights of signed ones, sums of 32 bits: an `Element`.

A step of a sum is of four neighbours, channels of a pixel or columns of a channel, and exact on
every instruction set. A vector that is stored is in the quanta of its map, the zero point added;
one that was loaded has not been brought to real numbers (`deploy.cpu.rows.codes`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.elements import Element
from lut.ops import DType

# What multiplies: one instruction of four unsigned by four signed bytes (`vnni`; `usdot` of ARM's),
# of signed ones (`sdot`), sums of two products of 16 bits (`madd`), or products of 16 bits.
Unit = Literal["vnni", "madd", "usdot", "sdot", "mul"]
GROUP = 4


@dataclass(frozen=True)
class Int8(Element):
    """uint8 maps and int8 weights."""

    unit: Unit
    name: ClassVar[DType] = "int8"
    stored: ClassVar[str] = "uint8"
    stored_weights: ClassVar[str] = "int8"
    sums: ClassVar[str] = "int32"
    bytes: ClassVar[int] = 1
    group: ClassVar[int] = GROUP
    run: ClassVar[int] = 4

    @property
    def offset(self) -> int:
        """What `dot` takes off every byte: products of signed bytes know no others. A bias makes up
        for it."""
        return 128 if self.unit == "sdot" else 0

    def load(self, buffer: ir.Buffer, *index: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.load`: quanta, as floats."""
        return _to_float(ir.load(buffer, *index, lanes=lanes), lanes)

    def load_strided(
        self, buffer: ir.Buffer, first: ir.Expr, stride: int, *, lanes: int
    ) -> ir.Expr:
        """As `Element.load_strided`."""
        return _to_float(ir.load_strided(buffer, first, stride, lanes=lanes), lanes)

    def store(self, buffer: ir.Buffer, vector: ir.Expr, *index: ir.Expr, lanes: int) -> None:
        """As `Element.store`: floats are rounded to the nearest, halves to even, and what a byte
        does not hold to what is nearest; bytes are stored as they are."""
        ir.store(buffer, self.narrow(vector, lanes), *index, lanes=lanes)

    def narrow(self, vector: ir.Expr, lanes: int) -> ir.Expr:
        """A vector of floats as bytes, which it may be already."""
        if str(vector.ty.dtype if hasattr(vector, "ty") else vector.dtype).startswith("uint8"):
            return vector
        if lanes == 16:
            return ir.call_llvm("hmseg_narrow_16", _NARROW_16, "uint8x16", vector)
        f, i, b = (_vector(lanes, kind) for kind in ("float", "i32", "i8"))
        mangled = f"v{lanes}i32" if lanes > 1 else "i32"
        text = _NARROW.format(
            f=f, i=i, b=b, n=lanes, m=mangled, fm=mangled.replace("i", "f"),
            zero="zeroinitializer" if lanes > 1 else "0", top=_every(lanes, 255),
        )  # fmt: skip
        dtype = f"uint8x{lanes}" if lanes > 1 else "uint8"
        return ir.call_llvm(f"hmseg_narrow_{lanes}", text, dtype, vector)

    def store_run(
        self, buffer: ir.Buffer, vectors: Sequence[ir.Expr], *index: ir.Expr, lanes: int
    ) -> None:
        """Write vectors one behind the other; the last index is that of the first element."""
        *outer, first = index
        if len(vectors) == self.run and lanes == 16:
            whole = ir.call_llvm("hmseg_narrow_64", _NARROW_64, "uint8x64", *vectors)
            ir.store(buffer, whole, *outer, first, lanes=self.run * lanes)
            return
        for number, vector in enumerate(vectors):
            self.store(buffer, vector, *outer, first + number * lanes, lanes=lanes)

    def operand(self, buffer: ir.Buffer, *index: ir.Expr) -> ir.Expr:
        """As `Element.operand`: four as the bits of an integer."""
        return ir.reinterpret(ir.load(buffer, *index, lanes=GROUP), "int32")

    def weights(self, buffer: ir.Buffer, *index: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.weights`."""
        *outer, number = index
        return ir.reinterpret(
            ir.load(buffer, *outer, number, 0, lanes=GROUP * lanes), "int32", lanes
        )

    def columns(self, buffer: ir.Buffer, first: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.columns`."""
        whole, eight = ir.load(buffer, first, lanes=GROUP * lanes), f"<{GROUP * lanes} x i8>"
        places = [f"i32 {j * lanes + lane}" for lane in range(lanes) for j in range(GROUP)]
        text = (
            f"define linkonce_odr <{lanes} x i32> @hmseg_columns_{lanes}({eight} %x) alwaysinline "
            f"{{\n  %y = shufflevector {eight} %x, {eight} poison, <{GROUP * lanes} x i32> "
            f"<{', '.join(places)}>\n  %r = bitcast {eight} %y to <{lanes} x i32>\n"
            f"  ret <{lanes} x i32> %r\n}}\n"
        )
        return ir.call_llvm(f"hmseg_columns_{lanes}", text, f"int32x{lanes}", whole)

    def dot(self, acc: ir.Expr, weights: ir.Expr, operand: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.dot`."""
        name, text = _dot(self.unit, lanes)
        return ir.call_llvm(name, text, f"int32x{lanes}", acc, weights, operand)

    def mix(self, a: ir.Expr, w0: ir.Expr, b: ir.Expr, w1: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.mix`: rounded after the first product and after the sum."""
        return ir.fma(b, w1, a * w0, lanes)

    def pack(self, values: NDArray[Any]) -> NDArray[Any]:
        """Weights as they are stored."""
        return np.ascontiguousarray(values.astype(np.int8))


def _vector(lanes: int, kind: str) -> str:
    return kind if lanes == 1 else f"<{lanes} x {kind}>"


def _every(lanes: int, value: int, kind: str = "i32") -> str:
    return str(value) if lanes == 1 else f"splat ({kind} {value})"


def _to_float(values: ir.Expr, lanes: int) -> ir.Expr:
    return ir.cast(ir.cast(values, "int32", lanes), "float32", lanes)


_NARROW = """
declare {f} @llvm.rint.{fm}({f})
declare {i} @llvm.fptosi.sat.{m}.{fm}({f})
declare {i} @llvm.smax.{m}({i}, {i})
declare {i} @llvm.smin.{m}({i}, {i})
define linkonce_odr {b} @hmseg_narrow_{n}({f} %x) alwaysinline {{
  %r = call {f} @llvm.rint.{fm}({f} %x)
  %w = fptosi {f} %r to {i}
  %a = call {i} @llvm.smax.{m}({i} %w, {i} {zero})
  %c = call {i} @llvm.smin.{m}({i} %a, {i} {top})
  %b = trunc {i} %c to {b}
  ret {b} %b
}}
"""

_NARROW_16 = """
declare <16 x i32> @llvm.x86.avx512.mask.cvtps2dq.512(<16 x float>, <16 x i32>, i16, i32)
declare <16 x i32> @llvm.smax.v16i32(<16 x i32>, <16 x i32>)
declare <16 x i32> @llvm.smin.v16i32(<16 x i32>, <16 x i32>)
define linkonce_odr <16 x i8> @hmseg_narrow_16(<16 x float> %x) alwaysinline {
  %w = call <16 x i32> @llvm.x86.avx512.mask.cvtps2dq.512(<16 x float> %x, <16 x i32> undef, i16 -1, i32 4)
  %a = call <16 x i32> @llvm.smax.v16i32(<16 x i32> %w, <16 x i32> zeroinitializer)
  %c = call <16 x i32> @llvm.smin.v16i32(<16 x i32> %a, <16 x i32> splat (i32 255))
  %b = trunc <16 x i32> %c to <16 x i8>
  ret <16 x i8> %b
}
"""

# Saturating packs work within 128 bits each; a permutation of 32 bits puts the pixels in order.
_NARROW_64 = """
declare <16 x i32> @llvm.x86.avx512.mask.cvtps2dq.512(<16 x float>, <16 x i32>, i16, i32)
declare <32 x i16> @llvm.x86.avx512.packssdw.512(<16 x i32>, <16 x i32>)
declare <64 x i8> @llvm.x86.avx512.packuswb.512(<32 x i16>, <32 x i16>)
define linkonce_odr <64 x i8> @hmseg_narrow_64(<16 x float> %p, <16 x float> %q, <16 x float> %r, <16 x float> %s) alwaysinline {
  %a = call <16 x i32> @llvm.x86.avx512.mask.cvtps2dq.512(<16 x float> %p, <16 x i32> undef, i16 -1, i32 4)
  %b = call <16 x i32> @llvm.x86.avx512.mask.cvtps2dq.512(<16 x float> %q, <16 x i32> undef, i16 -1, i32 4)
  %c = call <16 x i32> @llvm.x86.avx512.mask.cvtps2dq.512(<16 x float> %r, <16 x i32> undef, i16 -1, i32 4)
  %d = call <16 x i32> @llvm.x86.avx512.mask.cvtps2dq.512(<16 x float> %s, <16 x i32> undef, i16 -1, i32 4)
  %ab = call <32 x i16> @llvm.x86.avx512.packssdw.512(<16 x i32> %a, <16 x i32> %b)
  %cd = call <32 x i16> @llvm.x86.avx512.packssdw.512(<16 x i32> %c, <16 x i32> %d)
  %m = call <64 x i8> @llvm.x86.avx512.packuswb.512(<32 x i16> %ab, <32 x i16> %cd)
  %n = bitcast <64 x i8> %m to <16 x i32>
  %o = shufflevector <16 x i32> %n, <16 x i32> poison, <16 x i32> <i32 0, i32 4, i32 8, i32 12, i32 1, i32 5, i32 9, i32 13, i32 2, i32 6, i32 10, i32 14, i32 3, i32 7, i32 11, i32 15>
  %t = bitcast <16 x i32> %o to <64 x i8>
  ret <64 x i8> %t
}
"""


def _dot(unit: Unit, lanes: int) -> tuple[str, str]:
    """Name and text of a function (sums, weights, operands) -> sums, each operand four bytes."""
    name, n = f"hmseg_dot8_{unit}_{lanes}", lanes
    sums = f"<{n} x i32>"
    head = f"define linkonce_odr {sums} @{name}({sums} %a, {sums} %w, {sums} %x) alwaysinline {{\n"
    eight, sixteen = f"<{4 * n} x i8>", f"<{2 * n} x i16>"
    as_bytes = f"  %v = bitcast {sums} %w to {eight}\n  %y = bitcast {sums} %x to {eight}\n"
    if unit == "vnni":
        call = f"@llvm.x86.avx512.vpdpbusd.{32 * n}"
        return name, (
            f"declare {sums} {call}({sums}, {eight}, {eight})\n{head}{as_bytes}"
            f"  %r = call {sums} {call}({sums} %a, {eight} %y, {eight} %v)\n  ret {sums} %r\n}}\n"
        )
    if unit in ("usdot", "sdot"):
        call = f"@llvm.aarch64.neon.{unit}.v4i32.v16i8"
        first, second, flip = "%y", "%v", ""
        if unit == "sdot":
            first, flip = "%z", f"  %z = xor {eight} %y, splat (i8 -128)\n"
        return name, (
            f"declare {sums} {call}({sums}, {eight}, {eight})\n{head}{as_bytes}{flip}"
            f"  %r = call {sums} {call}({sums} %a, {eight} {first}, {eight} {second})\n"
            f"  ret {sums} %r\n}}\n"
        )
    if unit == "madd":
        call = {8: "@llvm.x86.avx2.pmadd.wd", 16: "@llvm.x86.avx512.pmaddw.d.512"}[n]
        return name, (
            f"declare {sums} {call}({sixteen}, {sixteen})\n{head}"
            f"  %w2 = bitcast {sums} %w to {sixteen}\n  %x2 = bitcast {sums} %x to {sixteen}\n"
            f"  %xe = and {sixteen} %x2, splat (i16 255)\n"
            f"  %xo = lshr {sixteen} %x2, splat (i16 8)\n"
            f"  %ws = shl {sixteen} %w2, splat (i16 8)\n"
            f"  %we = ashr {sixteen} %ws, splat (i16 8)\n"
            f"  %wo = ashr {sixteen} %w2, splat (i16 8)\n"
            f"  %e = call {sums} {call}({sixteen} %xe, {sixteen} %we)\n"
            f"  %o = call {sums} {call}({sixteen} %xo, {sixteen} %wo)\n"
            f"  %s = add {sums} %a, %e\n  %r = add {sums} %s, %o\n  ret {sums} %r\n}}\n"
        )
    # A product of an unsigned and a signed byte fits 16 bits.
    wide = f"<{4 * n} x i16>"
    parts = "".join(
        f"  %s{j} = shufflevector {wide} %p, {wide} poison, <{n} x i32> "
        f"<{', '.join(f'i32 {4 * lane + j}' for lane in range(n))}>\n"
        f"  %t{j} = sext <{n} x i16> %s{j} to {sums}\n"
        for j in range(4)
    )
    return name, (
        f"{head}{as_bytes}  %v2 = sext {eight} %v to {wide}\n  %y2 = zext {eight} %y to {wide}\n"
        f"  %p = mul {wide} %v2, %y2\n{parts}"
        f"  %b = add {sums} %t0, %t1\n  %c = add {sums} %t2, %t3\n"
        f"  %d = add {sums} %b, %c\n  %r = add {sums} %a, %d\n  ret {sums} %r\n}}\n"
    )
