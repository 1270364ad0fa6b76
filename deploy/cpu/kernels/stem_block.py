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
from deploy.cpu.rows.codes import Ending
from deploy.cpu.rows.depthwise import DepthwiseRows
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.product import Product
from deploy.cpu.rows.project import Project
from deploy.cpu.rows.ring import Band
from deploy.cpu.rows.stem import StemRows
from deploy.cpu.tiles import best_depthwise_px
from deploy.cpu.window import window_of
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
) -> list[NDArray[Any]]:
    """Constants in call order from (weight, bias) pairs in torch's shapes; the normalisation as in
    `stem.pack`."""
    return [
        *stem.pack(op.stem, isa, *first, scale=scale, mean=mean, std=std),
        *inverted_residual.pack(op.block, isa, expand=None, depthwise=depthwise, project=project),
    ]


def block_of(
    op: StemBlock, schedule: StemBlockSchedule, isa: Isa, f: ir.PrimFuncBuilder, strip: int
) -> Block:
    """The stages, without what takes the rows; `strip` output columns at once."""
    stem = StemRows(isa, f, op.stem, schedule.stem_tile)
    depthwise = DepthwiseRows(isa, f, op.block.depthwise, schedule.depthwise_px, "depthwise_")
    product = Product(isa, f, op.hidden, op.cout, "project_")
    project = Project(product, schedule.project_tile, Ending(isa, "none"))
    band = Band(window_of(op.block), strip)
    return Block(isa, band, stem, depthwise, project, op.hidden, isa.blocks(op.hidden))


def emit(op: StemBlock, schedule: StemBlockSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(image, stem weight, bias[, normalisation], depthwise weight, bias, project weight,
    bias, y)."""

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        block = block_of(op, schedule, isa, f, window_of(op.block).out_width)
        y = Map(isa, f, "y", *op.output)
        return lambda: block.in_ranges(schedule.row_tasks, y)

    return ir.prim_func("stem_block", signature)
