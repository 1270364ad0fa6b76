"""Bilinear resize of a map, any ratio: a thread computes one pixel of one channel."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.gpu import ir as gpu
from deploy.gpu.kernels.bilinear import Bilinear

THREADS = 128


@dataclass(frozen=True)
class ResizeSpec:
    """x (1, C, H, W) -> (1, C, out_height, out_width), half-pixel centres."""

    channels: int
    height: int
    width: int
    out_height: int
    out_width: int

    @property
    def macs(self) -> int:
        """None, by the counting rule of the networks."""
        return 0

    @property
    def sampling(self) -> Bilinear:
        """The sizes."""
        return Bilinear(self.height, self.width, self.out_height, self.out_width)


@dataclass(frozen=True)
class ResizeSchedule:
    """Threads of a block."""

    threads: int


def default_schedule(spec: ResizeSpec) -> ResizeSchedule:
    """One for all sizes."""
    del spec
    return ResizeSchedule(THREADS)


def alternatives(spec: ResizeSpec, best: ResizeSchedule) -> Iterator[ResizeSchedule]:
    """Other blocks."""
    del spec, best
    yield from map(ResizeSchedule, (64, 256, 512))


def pack(spec: ResizeSpec) -> list[NDArray[Any]]:
    """Constants in call order: the tables."""
    return spec.sampling.pack()


def emit(spec: ResizeSpec, schedule: ResizeSchedule) -> Any:  # noqa: ANN401
    """PrimFunc(x, row and column tables, y)."""
    threads = schedule.threads
    plane = spec.out_height * spec.out_width
    blocks = -(-plane // threads)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", (1, spec.channels, spec.height, spec.width))
        tables = spec.sampling.params(f)
        y = f.param("y", (1, spec.channels, spec.out_height, spec.out_width))

        def body() -> None:
            out = ir.view(y, (spec.channels, plane))
            with gpu.launch((blocks, spec.channels), (threads,)) as ((bx, channel), (tx,)):
                index = ir.bind(bx * threads + tx)
                with gpu.guard(plane, blocks * threads, index):
                    value = tables.at(index, 1).value(x, channel, 0)
                    ir.store_scalar(out, value, channel, index)

        return body

    return ir.prim_func("resize", signature)
