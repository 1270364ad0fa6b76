"""Bilinear resize of a map, any ratio: a thread computes one pixel of one channel."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy.gpu import ir as gpu
from deploy.gpu.kernels.bilinear import Bilinear
from deploy.kernels import ir

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


def pack(spec: ResizeSpec) -> list[NDArray[Any]]:
    """Constants in call order: the tables."""
    return spec.sampling.pack()


def emit(spec: ResizeSpec) -> Any:  # noqa: ANN401
    """PrimFunc(x, row and column tables, y)."""
    plane = spec.out_height * spec.out_width
    blocks = -(-plane // THREADS)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", (1, spec.channels, spec.height, spec.width))
        tables = spec.sampling.params(f)
        y = f.param("y", (1, spec.channels, spec.out_height, spec.out_width))

        def body() -> None:
            out = ir.view(y, (spec.channels, plane))
            with gpu.launch((blocks, spec.channels), (THREADS,)) as ((bx, channel), (tx,)):
                index = ir.bind(bx * THREADS + tx)
                with gpu.guard(plane, blocks * THREADS, index):
                    value = tables.at(index, 1).value(x, channel, 0)
                    ir.store_scalar(out, value, channel, index)

        return body

    return ir.prim_func("resize", signature)
