"""Bilinear resize of a map, any ratio: a thread computes one pixel of one channel."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.gpu import ir as gpu
from deploy.gpu.kernels.bilinear import sampling_of
from lut.ops import Resize

THREADS = 128


@dataclass(frozen=True)
class ResizeSchedule:
    """Threads of a block."""

    threads: int


def default_schedule(op: Resize) -> ResizeSchedule:
    """One for all sizes."""
    del op
    return ResizeSchedule(THREADS)


def alternatives(op: Resize, best: ResizeSchedule) -> Iterator[ResizeSchedule]:
    """Other blocks."""
    del op, best
    yield from map(ResizeSchedule, (64, 256, 512))


def pack(op: Resize, schedule: ResizeSchedule) -> list[NDArray[Any]]:
    """Constants in call order: the tables."""
    del schedule
    return sampling_of(op).pack()


def emit(op: Resize, schedule: ResizeSchedule) -> Any:  # noqa: ANN401
    """PrimFunc(x, row and column tables, y)."""
    threads = schedule.threads
    plane = op.out_height * op.out_width
    blocks = -(-plane // threads)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", (1, op.channels, op.height, op.width))
        tables = sampling_of(op).params(f)
        y = f.param("y", (1, op.channels, op.out_height, op.out_width))

        def body() -> None:
            out = ir.view(y, (op.channels, plane))
            with gpu.launch((blocks, op.channels), (threads,)) as ((bx, channel), (tx,)):
                index = ir.bind(bx * threads + tx)
                with gpu.guard(plane, blocks * threads, index):
                    value = tables.at(index, 1).value(x, channel, 0)
                    ir.store_scalar(out, value, channel, index)

        return body

    return ir.prim_func("resize", signature)
