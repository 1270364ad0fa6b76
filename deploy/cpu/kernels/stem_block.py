"""The stem and the block behind it in one kernel: 3x3 conv at stride 2 -> depthwise -> 1x1.

Every MobileNetV2 starts so. The stem's output, the largest map of the network, exists in a ring of
rows only: the kernel is an inverted residual whose hidden rows come from the image instead of an
expansion. Neighbouring ranges of rows both compute the (kernel - 1) rows of the halo.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels import inverted_residual, stem
from deploy.cpu.kernels.depthwise_tile import best_px, window_of
from deploy.cpu.kernels.inverted_residual import InvertedResidualSchedule
from deploy.cpu.kernels.inverted_residual_emitter import Emitter
from deploy.cpu.kernels.stem import StemRows
from deploy.cpu.layout import Array
from lut.ops import CHANNELS, StemBlock


@dataclass(frozen=True)
class StemBlockSchedule:
    """Tiles of the three convolutions and row ranges (parallel)."""

    stem_tile: Tile
    depthwise_px: int
    project_tile: Tile
    row_tasks: int


def supports(op: StemBlock) -> bool:
    """At a stride above 2 the ring would not hold the last column of the stem."""
    return op.stride <= 2


def default_schedule(op: StemBlock, isa: Isa, threads: int = 2) -> StemBlockSchedule:
    """The stem's tile by its own rule; one range of rows per thread."""
    width = window_of(op.block).out_width
    return StemBlockSchedule(
        stem.default_schedule(op.stem, isa, threads).tile,
        best_px(isa, op.kernel, width),
        best_tile(isa, width, isa.blocks(op.cout)),
        min(threads, window_of(op.block).out_height),
    )


def pack(
    op: StemBlock,
    isa: Isa,
    *,
    first: tuple[Array, Array],
    depthwise: tuple[Array, Array],
    project: tuple[Array, Array],
    scale: float = 1 / 255,
    mean: Sequence[float] | NDArray[np.float64] = (0.0, 0.0, 0.0),
    std: Sequence[float] | NDArray[np.float64] = (1.0, 1.0, 1.0),
) -> list[NDArray[Any]]:
    """Constants in call order from (weight, bias) pairs in torch's shapes; the normalisation as in
    `stem.pack`."""
    return [
        *stem.pack(op.stem, isa, *first, scale=scale, mean=mean, std=std),
        *inverted_residual.pack(op.block, isa, expand=None, depthwise=depthwise, project=project),
    ]


def emit(op: StemBlock, schedule: StemBlockSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(image, stem weight, bias[, normalisation], depthwise weight, bias, project weight,
    bias, y)."""
    return ir.prim_func("stem_block", lambda f: StemBlockEmitter(op, schedule, isa, f).body)


class StemBlockEmitter(Emitter):
    """The inverted residual's loops, with rows of the stem for the expansion."""

    def __init__(
        self,
        op: StemBlock,
        schedule: StemBlockSchedule,
        isa: Isa,
        f: ir.PrimFuncBuilder,
        strip: int | None = None,
    ) -> None:
        self.stem, self.stem_tile = op.stem, schedule.stem_tile
        whole = InvertedResidualSchedule(
            "rows",
            chunk=isa.blocks(op.hidden),
            strip=strip or window_of(op.block).out_width,
            tasks=schedule.row_tasks,
            expand_tile=schedule.stem_tile,
            depthwise_px=schedule.depthwise_px,
            project_tile=schedule.project_tile,
        )
        # The stem stands where an expansion would.
        block = replace(op.block, cin=CHANNELS, expand=True)
        super().__init__(block, whole, isa, f)

    def _source_parameters(self, f: ir.PrimFuncBuilder) -> None:
        self.rows = StemRows(self.stem, self.stem_tile, self.isa, f)

    def _start(self, first: ir.Expr, left: ir.Expr) -> None:
        self.image_ring = self.rows.start(first)

    def _fill_row(
        self,
        ring: ir.Buffer,
        start: ir.Expr,
        blocks: int,
        source: ir.Expr,
        slot: ir.Expr,
        left: ir.Expr,
    ) -> None:
        origin = left * self.op.stride - self.window.pad  # the stem's column of ring column 0

        def keep(block: ir.Expr, column: ir.Expr, value: ir.Expr) -> None:
            ir.store(ring, value, self._at(slot, block, column - origin), lanes=self.c)

        narrow = self.schedule.strip < self.window.out_width
        inside = min(self.op.width, self.ring_width - self.window.pad)
        span = (origin, self.ring_width, inside) if narrow else None
        self.rows.next_row(self.image_ring, source, keep, span)
