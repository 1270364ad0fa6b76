"""The stem, the block behind it and the inverted residual behind that, in one kernel.

The map between the two blocks has few channels, often less than a vector, and four times the pixels
of the next: here it exists as one row at a time, which the expansion reads at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels import inverted_residual, stem_block
from deploy.cpu.kernels.depthwise_tile import best_px, window_of
from deploy.cpu.kernels.inverted_residual import (
    STREAM_RING_BYTES,
    InvertedResidualSchedule,
)
from deploy.cpu.kernels.inverted_residual_emitter import Emitter
from deploy.cpu.kernels.stem_block import StemBlockEmitter, StemBlockSchedule
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
    column_bytes = 4 * isa.lanes * (
        hidden * ((second.kernel - 1) * second.dilation + 1)
        + isa.blocks(first.hidden) * ((first.kernel - 1) * first.dilation + 1) * first.stride
    )  # fmt: skip
    strip = -(-width // -(-column_bytes * second.width // STREAM_RING_BYTES))
    columns = min(second.width, (strip - 1) * second.stride + (second.kernel - 1) * second.dilation)
    return StemPairSchedule(
        stem.stem_tile,
        best_px(isa, first.kernel, columns),
        best_tile(isa, columns, isa.blocks(first.cout)),
        strip,
        min(threads, window.out_height),
        best_tile(isa, columns, hidden),
        best_px(isa, second.kernel, strip),
        best_tile(isa, strip, isa.blocks(second.cout)),
    )


def pack(
    op: StemPair, isa: Isa, *, first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[NDArray[Any]]:
    """Constants in call order: what `stem_block.pack` and `inverted_residual.pack` make of the
    parts' weights."""
    return [
        *stem_block.pack(op.first, isa, **first),
        *inverted_residual.pack(op.second, isa, **second),
    ]


def emit(op: StemPair, schedule: StemPairSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(image, the first block's constants, the second block's constants, y)."""
    return ir.prim_func("stem_pair", lambda f: _Second(op, schedule, isa, f).body)


class _First(StemBlockEmitter):
    """The first block, row by row into a buffer of one row."""

    def _output_parameter(self, f: ir.PrimFuncBuilder) -> None:
        pass

    def begin(self, top: ir.Expr, left: ir.Expr) -> None:
        """Before the first row, `top`; `left` is the first column."""
        c, schedule = self.c, self.schedule
        self.left = left
        self.ring = self._ring()
        self.hidden_row = ir.scratch(schedule.chunk * schedule.strip * c)
        self.row = ir.scratch(self.out_blocks * schedule.strip * c)
        self._clear(self.ring, left)
        self.top = self._lead(top, left, self._fill)

    def next_row(self, y: ir.Expr) -> None:
        """Row y, each after the one before."""
        schedule = self.schedule

        def keep(block: ir.Expr, column: ir.Expr, value: ir.Expr) -> None:
            at = (block * schedule.strip + column) * self.c
            ir.store(self.hidden_row, value, at, lanes=self.c)

        self._advance(self.top, y, self._fill)
        self._depthwise_row(self.ring, 0, schedule.chunk, y, keep)
        self._project_row(self.hidden_row, 0, self.op.hidden, y, self.left)

    def at(self, block: ir.Expr, column: ir.Expr) -> ir.Expr:
        """Index in the row."""
        return (block * self.schedule.strip + column - self.left) * self.c

    def _fill(self, source: ir.Expr) -> None:
        slot = ir.bind(source % self.ring_rows)
        self._fill_row(self.ring, 0, self.schedule.chunk, source, slot, self.left)

    def _keep(self, block: ir.Expr, row: ir.Expr, column: ir.Expr, value: ir.Expr) -> None:
        ir.store(self.row, value, self.at(block, column), lanes=self.c)


class _Second(Emitter):
    """The inverted residual, whose input rows the first block makes."""

    def __init__(
        self, op: StemPair, schedule: StemPairSchedule, isa: Isa, f: ir.PrimFuncBuilder
    ) -> None:
        second = op.second
        reach = (second.kernel - 1) * second.dilation + 1
        self.first_spec = op.first
        self.first_strip = min(second.width, (schedule.strip - 1) * second.stride + reach)
        self.first_schedule = StemBlockSchedule(
            schedule.stem_tile, schedule.first_depthwise_px, schedule.first_project_tile, 1
        )
        rows = InvertedResidualSchedule(
            "rows",
            chunk=isa.blocks(second.hidden),
            strip=schedule.strip,
            tasks=schedule.tasks,
            expand_tile=schedule.expand_tile,
            depthwise_px=schedule.depthwise_px,
            project_tile=schedule.project_tile,
        )
        super().__init__(second, rows, isa, f)

    def _source_parameters(self, f: ir.PrimFuncBuilder) -> None:
        schedule, strip = self.first_schedule, self.first_strip
        self.first = _First(self.first_spec, schedule, self.isa, f, strip)
        self._expand_parameters(f)

    def _start(self, first: ir.Expr, left: ir.Expr) -> None:
        origin = left * self.op.stride - self.window.pad
        most = self.op.width - self.first_strip
        self.first.begin(first, ir.bind(ir.maximum(0, ir.minimum(origin, most))))

    def _fill_row(
        self,
        ring: ir.Buffer,
        start: ir.Expr,
        blocks: int,
        source: ir.Expr,
        slot: ir.Expr,
        left: ir.Expr,
    ) -> None:
        self.first.next_row(source)
        super()._fill_row(ring, start, blocks, source, slot, left)

    def _input(self, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        return self.first.row[self.first.at(block, column) + lane]
