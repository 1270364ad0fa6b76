"""The words that GPU kernels add to those of `deploy.ir`: blocks, threads, registers.

Maps are planar, (C, H, W): neighbouring threads take neighbouring pixels, so that a warp reads and
writes whole lines of memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm.tirx.script import builder as T

from deploy import ir
from lut.ops import Activation

WARP = 32

int32 = T.int32  # a whole number
splat, number = ir.splat, ir.const  # a value, a constant in every lane
# (condition, yes, no): `yes` is read only where the condition holds, and may lie outside a buffer
# elsewhere.
either = T.if_then_else


@contextmanager
def launch(blocks: Sequence[int], threads: Sequence[int]) -> Iterator[tuple[list[Any], list[Any]]]:
    """One kernel: the indices of the block and of the thread along x, y, z."""
    names = [f"blockIdx.{axis}" for axis in "xyz"], [f"threadIdx.{axis}" for axis in "xyz"]
    with _bound(blocks, names[0]) as block, _bound(threads, names[1]) as thread:
        yield block, thread


@contextmanager
def _bound(extents: Sequence[int], names: Sequence[str]) -> Iterator[list[Any]]:
    if not extents:
        yield []
        return
    with (
        T.thread_binding(0, extents[0], thread=names[0]) as first,
        _bound(extents[1:], names[1:]) as rest,
    ):
        yield [first, *rest]


class Locals:
    """Variables of a thread, `lanes` numbers each; every index is constant, so that they become
    registers."""

    def __init__(self, count: int, lanes: int = 1, dtype: str = "float32") -> None:
        self._lanes = lanes
        self._slots = [T.alloc_buffer((lanes,), dtype, scope="local") for _ in range(count)]

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        return ir.load(self._slots[index], 0, lanes=self._lanes)

    def __setitem__(self, index: int, value: Any) -> None:  # noqa: ANN401
        ir.store(self._slots[index], value, 0, lanes=self._lanes)

    def lane(self, index: int, lane: int) -> Any:  # noqa: ANN401
        """One number of a variable."""
        return self._slots[index][lane]

    def set_lane(self, index: int, lane: int, value: Any) -> None:  # noqa: ANN401
        """Write one number of a variable."""
        ir.store_scalar(self._slots[index], value, lane)


def load_constants(buffer: Any, *index: Any, count: int) -> list[Any]:  # noqa: ANN401
    """`count` neighbouring numbers of a packed constant, read four at a time where that divides."""
    step = next(size for size in (4, 2, 1) if count % size == 0)
    copy = T.alloc_buffer((count,), "float32", scope="local")
    for i in range(0, count, step):
        value = ir.load(buffer, *index[:-1], index[-1] + i, lanes=step)
        ir.store(copy, value, i, lanes=step)
    return [copy[i] for i in range(count)]


def shared(size: int) -> Any:  # noqa: ANN401 - a buffer
    """Memory of a block; TVM puts the barriers between its writes and its reads."""
    return T.alloc_buffer((size,), "float32", scope="shared")


def inside(index: Any, size: int) -> Any:  # noqa: ANN401
    """0 <= index < size."""
    return ir.both(index >= 0, index < size)


def act_of(value: Any, act: Activation, lanes: int = 1) -> Any:  # noqa: ANN401
    """`ir.activate`, with the sigmoid written out."""

    def sigmoid(value: Any) -> Any:  # noqa: ANN401
        value, one = ir.bind(value), number(1, lanes)
        return one / (one + T.exp(number(0, lanes) - value))

    return ir.activate(value, act, lanes, sigmoid)


@contextmanager
def guard(limit: int, covered: int, index: Any) -> Iterator[None]:  # noqa: ANN401
    """Only where index < limit; no test where the threads `covered` do not exceed the limit."""
    if covered <= limit:
        yield
        return
    with ir.when(index < limit), ir.then():
        yield
