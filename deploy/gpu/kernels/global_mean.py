"""The mean of every channel: a block adds one channel up, in a tree."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.gpu import ir as gpu
from lut.ops import GlobalMean

THREADS = 256


@dataclass(frozen=True)
class GlobalMeanSchedule:
    """Threads of a block, a power of two: the leaves of the tree."""

    threads: int


def default_schedule(op: GlobalMean) -> GlobalMeanSchedule:
    """One for all sizes."""
    del op
    return GlobalMeanSchedule(THREADS)


def alternatives(op: GlobalMean, best: GlobalMeanSchedule) -> Iterator[GlobalMeanSchedule]:
    """Other blocks."""
    del op, best
    yield from map(GlobalMeanSchedule, (512, 128, 1024, 64))


def pack(op: GlobalMean, schedule: GlobalMeanSchedule) -> list[NDArray[Any]]:
    """No constants."""
    del op, schedule
    return []


def emit(op: GlobalMean, schedule: GlobalMeanSchedule) -> Any:  # noqa: ANN401
    """PrimFunc(x, y)."""
    threads = schedule.threads
    plane = op.height * op.width
    steps = -(-plane // threads)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", (1, op.channels, op.height, op.width))
        y = f.param("y", (1, op.channels, 1, 1))

        def body() -> None:
            flat = ir.view(x, (op.channels, plane))
            with gpu.launch((op.channels,), (threads,)) as ((channel,), (tx,)):
                sums, total = gpu.shared(threads), gpu.Locals(1)
                total[0] = gpu.number(0)
                with ir.serial(0, steps) as step:
                    index = ir.bind(step * threads + tx)
                    value = flat[channel, index]
                    if plane % threads:
                        value = gpu.either(index < plane, value, gpu.number(0))
                    total[0] = total[0] + value
                ir.store_scalar(sums, total[0], tx)
                half = threads // 2
                while half:
                    with ir.when(tx < half), ir.then():
                        ir.store_scalar(sums, sums[tx] + sums[tx + half], tx)
                    half //= 2
                with ir.when(tx < 1), ir.then():
                    ir.store_scalar(y, sums[0] * gpu.number(1 / plane), 0, channel, 0, 0)

        return body

    return ir.prim_func("global_mean", signature)
