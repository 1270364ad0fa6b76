"""The few words in which every kernel is written: vectors, registers, loops over pixel tiles.

A thin layer over TVM's TIR builder (`tvm.tirx.script.builder`), so that a change there is met
here. All functions but `prim_func` are called while a PrimFunc is being built.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, assert_never

from tvm.ir import StringImm
from tvm.s_tir.stmt import SBlock, SBlockRealize
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import AttrStmt, Select, Shuffle, op
from tvm.tirx.script import builder as T

from lut.ops import Activation

EMITTED = "hmseg.emitted"  # attribute of the PrimFuncs that are built here
Expr = Any  # tvm.tirx expressions or int; TVM ships no types
Buffer = Any

serial = T.serial
parallel = T.parallel
bind = T.bind
when = T.If
then = T.Then
otherwise = T.Else
scalar = T.float32  # one float
uint8 = T.uint8  # one byte
uint32 = T.uint32  # one word
minimum, maximum = T.min, T.max  # of two indices
both, either, negate = T.And, T.Or, T.Not
select = Select  # (condition, yes, no), lane by lane
is_nan = T.isnan  # lane by lane; an intrinsic: TVM's simplifier takes !(a <= b) for b < a
sqrt = op.sqrt  # lane by lane
sigmoid = T.sigmoid  # 1 / (1 + exp(-value)), as TVM writes it for CPUs


class PrimFuncBuilder:
    """Parameters of the PrimFunc under construction, in call order."""

    def param(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Buffer:
        """Add a tensor parameter."""
        return T.arg(name, T.buffer(tuple(shape), dtype))


def prim_func(name: str, signature: Callable[[PrimFuncBuilder], Callable[[], None]]) -> Any:  # noqa: ANN401
    """Build a PrimFunc: `signature` declares the parameters and returns the body.

    The body stands in a root block that says nothing of what it reads and writes: without it
    Relax's HasReshapePattern fails on a function of one input and one output.
    """
    written: dict[str, None] = {}
    before = _WRITTEN.set(written)
    try:
        with IRBuilder() as builder:
            with T.prim_func(s_tir=True):
                T.func_name(name)
                T.func_attr({EMITTED: True})
                body = signature(PrimFuncBuilder())
                with T.sblock("root"):
                    T.reads()
                    T.writes()
                    body()
            function = builder.get()
    finally:
        _WRITTEN.reset(before)
    return _with_llvm(function, "\n".join(written)) if written else function


# What the functions of LLVM's own that the PrimFunc under construction calls are written as.
_WRITTEN: ContextVar[dict[str, None]] = ContextVar("written")


def call_llvm(name: str, text: str, dtype: str, *arguments: Expr) -> Expr:
    """Call a pure function that `text` defines in LLVM's language, to be inlined: for instructions
    on types that TVM has no words for. Texts of one PrimFunc are joined, each once, and each line
    that declares."""
    declared = [line for line in text.splitlines() if line.startswith("declare ")]
    rest = [line for line in text.splitlines() if not line.startswith("declare ")]
    _WRITTEN.get().update(dict.fromkeys([*declared, "\n".join(rest)]))
    return op.call_extern(dtype, name, *arguments)


def fma(a: Expr, b: Expr, c: Expr, lanes: int) -> Expr:
    """a * b + c of floats, rounded once on every target."""
    kind, name = (f"<{lanes} x float>", f"v{lanes}f32") if lanes > 1 else ("float", "f32")
    text = (
        f"declare {kind} @llvm.fma.{name}({kind}, {kind}, {kind})\n"
        f"define linkonce_odr {kind} @hmseg_fma_{lanes}({kind} %a, {kind} %b, {kind} %c) "
        "alwaysinline {\n"
        f"  %r = call {kind} @llvm.fma.{name}({kind} %a, {kind} %b, {kind} %c)\n"
        f"  ret {kind} %r\n}}\n"
    )
    dtype = f"float32x{lanes}" if lanes > 1 else "float32"
    return call_llvm(f"hmseg_fma_{lanes}", text, dtype, a, b, c)


def _with_llvm(function: Any, text: str) -> Any:  # noqa: ANN401 - PrimFuncs
    """The PrimFunc, which brings what it calls of LLVM's."""
    realize = function.body
    root = realize.block
    body = AttrStmt(T.int32(0), "pragma_import_llvm", StringImm(text), root.body)
    block = SBlock(
        root.iter_vars, root.reads, root.writes, root.name_hint, body, root.init,
        root.alloc_buffers, root.match_buffers, root.annotations,
    )  # fmt: skip
    return function.with_body(SBlockRealize(realize.iter_values, realize.predicate, block))


@contextmanager
def loop(first: Expr, last: Expr) -> Iterator[Expr]:
    """A serial loop from first to last - 1, bounds computed at run time.

    Written from zero with its bounds in variables: TVM 0.27's CanonicalizeLoop, which would
    do the same, forgets the extents of loops nested in the one that it shifts.
    """
    first = bind(first)
    with T.serial(0, bind(last - first)) as i:
        yield bind(first + i)


def dtype_of(value: Expr) -> str:
    """The type of an expression, such as ``float32x16``."""
    return str(value.ty.dtype if hasattr(value, "ty") else value.dtype)


def const(value: float, lanes: int = 1) -> Expr:
    """A vector of equal floats; one float for one lane."""
    return splat(T.float32(value), lanes)


def splat(value: Expr, lanes: int) -> Expr:
    """One float to every lane."""
    return value if lanes == 1 else T.broadcast(value, lanes)


def _span(first: Expr, lanes: int) -> Expr:
    return first if lanes == 1 else T.ramp(first, 1, lanes)


def load(buffer: Buffer, *index: Expr, lanes: int) -> Expr:
    """`lanes` contiguous floats; the last index is that of the first one."""
    return buffer[(*index[:-1], _span(index[-1], lanes))]


def store(buffer: Buffer, value: Expr, *index: Expr, lanes: int) -> None:
    """Write `lanes` contiguous floats; the last index is that of the first one."""
    T.buffer_store(buffer, value, [*index[:-1], _span(index[-1], lanes)])


class Registers:
    """Vector variables that LLVM keeps in registers, as every index is constant.

    Each is an allocation of its own of one vector in global scope: TVM turns any other scope, and
    1 KB or more, into a heap call (LowerTVMBuiltin), which LLVM cannot promote.
    """

    def __init__(self, count: int, lanes: int, dtype: str = "float32") -> None:
        self._lanes = lanes
        self._slots = [T.alloc_buffer((lanes,), dtype) for _ in range(count)]

    def __getitem__(self, index: int) -> Expr:
        return self._slots[index][T.ramp(0, 1, self._lanes)]

    def __setitem__(self, index: int, value: Expr) -> None:
        T.buffer_store(self._slots[index], value, [T.ramp(0, 1, self._lanes)])


def scratch(size: int, dtype: str = "float32") -> Buffer:
    """Memory of the thread that asks, inside a parallel loop: below 1 KB on the stack, else
    kept by TVM's pool between calls. Nothing catches an index outside: it spoils other memory."""
    # A small one may share its place with registers that live at another time (StorageRewrite).
    return T.alloc_buffer((size,), dtype)


def activate(
    value: Expr, act: Activation, lanes: int, sigmoid: Callable[[Expr], Expr] = sigmoid
) -> Expr:
    """The activation, the same on every target but for the formula of `sigmoid`. NaN passes
    through, as in torch and numpy: comparisons with it are false."""
    if act == "none":
        return value
    if act == "sigmoid":
        return sigmoid(value)
    if act == "relu":
        return _at_least(value, 0, lanes)
    if act == "relu6":
        return _at_most(_at_least(value, 0, lanes), 6, lanes)
    if act == "hswish":  # value * relu6(value + 3) / 6
        value = bind(value)
        shifted = _at_most(_at_least(value + const(3, lanes), 0, lanes), 6, lanes)
        return value * (shifted * const(1 / 6, lanes))
    assert_never(act)


def _at_least(value: Expr, least: float, lanes: int) -> Expr:
    value = bind(value)
    return select(value < const(least, lanes), const(least, lanes), value)


def _at_most(value: Expr, most: float, lanes: int) -> Expr:
    value = bind(value)
    return select(value > const(most, lanes), const(most, lanes), value)


def over_tiles(extent: int, size: int, body: Callable[[Expr, int], None]) -> None:
    """Cover `extent` by tiles of `size` and one shorter at the end: body(start, size)."""
    full, tail = divmod(extent, size)
    if full > 1:
        with serial(0, full) as t:
            body(t * size, size)
    elif full:
        body(0, size)
    if tail:
        body(full * size, tail)


def view(buffer: Buffer, shape: Sequence[int]) -> Buffer:
    """The same memory under another shape of as many elements."""
    return T.decl_buffer(tuple(shape), buffer.dtype, data=buffer.data)


def prefetch(buffer: Buffer, *index: Expr) -> None:
    """Ask for the cache line of an element; never faults, so it may lie behind the end."""
    address = op.address_of(buffer[tuple(index)])
    T.evaluate(op.call_intrin("void", "tirx.prefetch", address, 0, 3, 1))


def shuffle(first: Expr, second: Expr, lanes: Sequence[int]) -> Expr:
    """A vector of these lanes of two, counted through both."""
    return T.Shuffle([first, second], [T.int32(lane) for lane in lanes])


def pick(vector: Expr, lanes: Sequence[int]) -> Expr:
    """A vector of these lanes of one."""
    return T.Shuffle([vector], [T.int32(lane) for lane in lanes])


def reinterpret(value: Expr, dtype: str, lanes: int = 1) -> Expr:
    """The same bits as another type of as many."""
    return op.reinterpret(dtype if lanes == 1 else f"{dtype}x{lanes}", value)


def cast(value: Expr, dtype: str, lanes: int = 1) -> Expr:
    """Element type conversion."""
    return T.cast(value, dtype if lanes == 1 else f"{dtype}x{lanes}")


def store_scalar(buffer: Buffer, value: Expr, *index: Expr) -> None:
    """Write one element."""
    if isinstance(value, float):
        value = T.float32(value)
    T.buffer_store(buffer, value, list(index))


def rotate(vector: Expr, by: int, lanes: int) -> Expr:
    """A vector's elements, each `by` places further to the front."""
    return Shuffle([vector], [(lane + by) % lanes for lane in range(lanes)])


def first_lanes(count: int, lanes: int) -> Expr:
    """True in the first lanes, as a condition of `select`."""
    return T.ramp(0, 1, lanes) < const_int(count, lanes)


def const_int(value: int, lanes: int) -> Expr:
    """A vector of equal int32; one for one lane."""
    return splat(T.int32(value), lanes)


def call_c(name: str, *arguments: Expr) -> None:
    """Call a function of the C library that returns an int, which is ignored."""
    T.evaluate(op.call_extern("int32", name, *arguments))


def address(buffer: Buffer, *index: Expr) -> Expr:
    """Pointer to an element."""
    return op.address_of(buffer[tuple(index)])
