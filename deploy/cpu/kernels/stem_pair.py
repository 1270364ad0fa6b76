"""The stem, the block behind it and the inverted residual behind that, in one kernel.

The map between the two blocks has few channels, often less than a vector, and four times the pixels
of the next: here it exists as one row at a time, which the expansion reads at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels import inverted_residual, stem_block
from deploy.cpu.kernels.inverted_residual import STREAM_RING_BYTES, InvertedResidualSchedule
from deploy.cpu.kernels.stem_block import StemBlockSchedule
from deploy.cpu.rows.block import BlockSource
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.ring import Band
from deploy.cpu.tiles import best_depthwise_px
from deploy.cpu.window import window_of
from lut.ops import StemPair


@dataclass(frozen=True)
class StemPairSchedule:
    """Tiles of the first block, then as InvertedResidualSchedule: output columns at once, row
    ranges (parallel), tiles of the second block."""

    stem_tile: Tile
    first_depthwise_px: int
    first_project_tile: Tile
    strip: int
    tasks: int
    expand_tile: Tile
    depthwise_px: int
    project_tile: Tile


def supports(op: StemPair) -> bool:
    """As the first block is."""
    return stem_block.supports(op.first)


def default_schedule(op: StemPair, isa: Isa, threads: int = 2) -> StemPairSchedule:
    """The tiles by the rules of the parts; one range of rows per thread; strips whose rings stay
    under 512 KB."""
    first, second = op.first, op.second
    stem = stem_block.default_schedule(first, isa, threads)
    hidden, window = isa.blocks(second.hidden), window_of(second)
    width = window.out_width
    size = isa.element.bytes if isa.element.integer else 4
    column_bytes = size * isa.lanes * (
        hidden * ((second.kernel - 1) * second.dilation + 1)
        + isa.blocks(first.hidden) * ((first.kernel - 1) * first.dilation + 1) * first.stride
    )  # fmt: skip
    strip = -(-width // -(-column_bytes * second.width // STREAM_RING_BYTES))
    columns = min(second.width, (strip - 1) * second.stride + (second.kernel - 1) * second.dilation)
    return StemPairSchedule(
        stem.stem_tile,
        best_depthwise_px(isa, first.kernel, columns),
        best_tile(isa, columns, isa.blocks(first.cout)),
        strip,
        min(threads, window.out_height),
        best_tile(isa, columns, hidden),
        best_depthwise_px(isa, second.kernel, strip),
        best_tile(isa, strip, isa.blocks(second.cout)),
    )


def pack(
    op: StemPair, isa: Isa, *, first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[NDArray[Any]]:
    """Constants in call order: what `stem_block.pack` and `inverted_residual.pack` make of the
    parts' weights; in int8 each with `scales` of its own, that of the map between them twice."""
    return [
        *stem_block.pack(op.first, isa, **first),
        *inverted_residual.pack(op.second, isa, **second),
    ]


def emit(op: StemPair, schedule: StemPairSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(image, the first block's constants, the second block's constants, y)."""
    second = op.second
    rows = InvertedResidualSchedule(
        "rows",
        chunk=isa.blocks(second.hidden),
        strip=schedule.strip,
        tasks=schedule.tasks,
        expand_tile=schedule.expand_tile,
        depthwise_px=schedule.depthwise_px,
        project_tile=schedule.project_tile,
    )
    tiles = StemBlockSchedule(
        schedule.stem_tile, schedule.first_depthwise_px, schedule.first_project_tile, 1
    )
    band = Band(window_of(second), schedule.strip)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        first = stem_block.block_of(op.first, tiles, isa, f, min(second.width, band.columns))
        block = inverted_residual.block_of(second, rows, band, isa, f, BlockSource(first))
        y = Map(isa, f, "y", *op.output)
        return lambda: block.in_ranges(schedule.tasks, y)

    return ir.prim_func("stem_pair", signature)
