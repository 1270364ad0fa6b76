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

    def store(self, buffer: ir.Buffer, vector: ir.Expr, *index: ir.Expr, lanes: int) -> None:
        """As `Element.store`: floats are rounded to the nearest, halves to even, and what a byte
        does not hold to what is nearest; bytes are stored as they are."""
        ir.store(buffer, self.narrow(vector, lanes), *index, lanes=lanes)

    def narrow(self, vector: ir.Expr, lanes: int) -> ir.Expr:
        """A vector of floats as bytes, which it may be already."""
        if _are_bytes(vector):
            return vector
        name, text = _narrow(lanes)
        dtype = f"uint8x{lanes}" if lanes > 1 else "uint8"
        return ir.call_llvm(name, text, dtype, vector)

    def store_run(
        self, buffer: ir.Buffer, vectors: Sequence[ir.Expr], *index: ir.Expr, lanes: int
    ) -> None:
        """Write vectors one behind the other; the last index is that of the first element."""
        *outer, first = index
        if _are_bytes(vectors[0]):  # perhaps of several pixels
            (vector,) = vectors
            ir.store(buffer, vector, *outer, first, lanes=_lanes_of(vector))
            return
        if len(vectors) == self.run and lanes in _PACKS and self.unit in ("vnni", "madd"):
            name, text = _narrow_four(lanes)
            whole = ir.call_llvm(name, text, f"uint8x{self.run * lanes}", *vectors)
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

    def beside(self, blocks: int) -> int:
        """As `Element.beside`: weights and operands of 16 bits are two registers each."""
        return 2 * blocks + 3 if self.unit == "madd" else blocks + 1

    def mix(self, a: ir.Expr, w0: ir.Expr, b: ir.Expr, w1: ir.Expr, lanes: int) -> ir.Expr:
        """As `Element.mix`: rounded after the first product and after the sum."""
        return ir.fma(b, w1, a * w0, lanes)

    def pack(self, values: NDArray[Any]) -> NDArray[Any]:
        """Weights as they are stored."""
        return np.ascontiguousarray(values.astype(np.int8))


def _are_bytes(vector: ir.Expr) -> bool:
    return ir.dtype_of(vector).startswith("uint8")


def _lanes_of(vector: ir.Expr) -> int:
    return int(ir.dtype_of(vector).partition("x")[2] or 1)


def _vector(lanes: int, kind: str) -> str:
    return kind if lanes == 1 else f"<{lanes} x {kind}>"


def _to_float(values: ir.Expr, lanes: int) -> ir.Expr:
    return ir.cast(ir.cast(values, "int32", lanes), "float32", lanes)


def _rounding(lanes: int, name: str, value: str) -> tuple[str, str]:
    """What to declare, and the line, that make whole numbers of floats, halves to even."""
    f, i = _vector(lanes, "float"), _vector(lanes, "i32")
    if lanes == _AVX512:
        call = "@llvm.x86.avx512.mask.cvtps2dq.512"
        return (
            f"declare {i} {call}({f}, {i}, i16, i32)\n",
            f"  %{name} = call {i} {call}({f} %{value}, {i} undef, i16 -1, i32 4)\n",
        )
    kind = f"v{lanes}f32" if lanes > 1 else "f32"
    return (
        f"declare {f} @llvm.rint.{kind}({f})\n",
        f"  %{name}f = call {f} @llvm.rint.{kind}({f} %{value})\n"
        f"  %{name} = fptosi {f} %{name}f to {i}\n",
    )


def _narrow(lanes: int) -> tuple[str, str]:
    """Name and text of a function floats -> bytes."""
    name, kind = f"hmseg_narrow_{lanes}", f"v{lanes}i32" if lanes > 1 else "i32"
    f, i, b = (_vector(lanes, kind) for kind in ("float", "i32", "i8"))
    zero = "zeroinitializer" if lanes > 1 else "0"
    top = "splat (i32 255)" if lanes > 1 else "255"
    declared, line = _rounding(lanes, "w", "x")
    return name, (
        f"{declared}declare {i} @llvm.smax.{kind}({i}, {i})\n"
        f"declare {i} @llvm.smin.{kind}({i}, {i})\n"
        f"define linkonce_odr {b} @{name}({f} %x) alwaysinline {{\n{line}"
        f"  %a = call {i} @llvm.smax.{kind}({i} %w, {i} {zero})\n"
        f"  %c = call {i} @llvm.smin.{kind}({i} %a, {i} {top})\n"
        f"  %b = trunc {i} %c to {b}\n  ret {b} %b\n}}\n"
    )


_AVX2, _AVX512 = 8, 16  # lanes
_PACKS = {
    _AVX2: ("@llvm.x86.avx2.packssdw", "@llvm.x86.avx2.packuswb"),
    _AVX512: ("@llvm.x86.avx512.packssdw.512", "@llvm.x86.avx512.packuswb.512"),
}


def _narrow_four(lanes: int) -> tuple[str, str]:
    """The same of four vectors, which come one behind the other: packs, which saturate, within 128
    bits each, then a permutation of 32 bits."""
    name, parts = f"hmseg_narrow_four_{lanes}", lanes // 4
    f, i, h, b = (
        _vector(n, kind)
        for n, kind in ((lanes, "float"), (lanes, "i32"), (2 * lanes, "i16"), (4 * lanes, "i8"))
    )
    to_words, to_bytes = _PACKS[lanes]
    rounded = [_rounding(lanes, *names) for names in ("ap", "bq", "cr", "ds")]
    order = ", ".join(f"i32 {part * 4 + pixel}" for pixel in range(4) for part in range(parts))
    return name, (
        f"{rounded[0][0]}declare {h} {to_words}({i}, {i})\ndeclare {b} {to_bytes}({h}, {h})\n"
        f"define linkonce_odr {b} @{name}({f} %p, {f} %q, {f} %r, {f} %s) alwaysinline {{\n"
        f"{''.join(line for _, line in rounded)}"
        f"  %ab = call {h} {to_words}({i} %a, {i} %b)\n"
        f"  %cd = call {h} {to_words}({i} %c, {i} %d)\n"
        f"  %m = call {b} {to_bytes}({h} %ab, {h} %cd)\n"
        f"  %n = bitcast {b} %m to {i}\n"
        f"  %o = shufflevector {i} %n, {i} poison, <{lanes} x i32> <{order}>\n"
        f"  %t = bitcast {i} %o to {b}\n  ret {b} %t\n}}\n"
    )


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
