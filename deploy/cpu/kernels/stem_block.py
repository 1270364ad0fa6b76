"""The stem and the block behind it in one kernel: 3x3 conv at stride 2 -> depthwise -> 1x1.

Every MobileNetV2 starts so. The stem's output, the largest map of the network, exists in a ring of
rows only: the kernel is an inverted residual whose hidden rows come from the image instead of an
expansion. Neighbouring ranges of rows both compute the (kernel - 1) rows of the halo.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels import inverted_residual, stem
from deploy.cpu.layout import Array
from deploy.cpu.rows.block import Block
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.ring import Band
from deploy.cpu.tiles import best_depthwise_px
from deploy.cpu.window import window_of
from deploy.grid import Scales
from lut.ops import StemBlock


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
        best_depthwise_px(isa, op.kernel, width),
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
    scales: Scales | None = None,
) -> list[NDArray[Any]]:
    """Constants in call order from (weight, bias) pairs in torch's shapes; the normalisation as in
    `stem.pack`. In int8 `scales` are of the normalised image, the stem's and the depthwise window's
    results, and the output."""
    of_stem = of_block = None
    if scales is not None:
        made, mid = scales.hidden
        of_stem = Scales(scales.inputs, scales.weights[:1], made)
        of_block = Scales((made,), scales.weights[1:], scales.output, (mid,))
    return [
        *stem.pack(op.stem, isa, *first, scale=scale, mean=mean, std=std, scales=of_stem),
        *inverted_residual.pack(
            op.block, isa, expand=None, depthwise=depthwise, project=project, scales=of_block
        ),
    ]


def block_of(
    op: StemBlock, schedule: StemBlockSchedule, isa: Isa, f: ir.PrimFuncBuilder, strip: int
) -> Block:
    """The stages, without what takes the rows; `strip` output columns at once."""
    rows = stem.stem_rows(isa, f, op.stem, schedule.stem_tile)
    coded = inverted_residual.coded_of(op.block, isa, f)
    tail = inverted_residual.tail_of(
        op.block, isa, f, schedule.depthwise_px, schedule.project_tile, coded
    )
    band, hidden = Band(window_of(op.block), strip), isa.blocks(op.hidden)
    return Block(isa, band, rows, tail.depthwise, tail.project, op.hidden, hidden, tail.ring)


def emit(op: StemBlock, schedule: StemBlockSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(image, the stem's constants, the block's, y)."""

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        block = block_of(op, schedule, isa, f, window_of(op.block).out_width)
        y = Map(isa, f, "y", *op.output)
        return lambda: block.in_ranges(schedule.row_tasks, y)

    return ir.prim_func("stem_block", signature)
