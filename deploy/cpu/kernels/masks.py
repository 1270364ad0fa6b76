"""Masks: where scores at the image's size, or brought there by tables, exceed a threshold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array
from deploy.cpu.rows.score_tiles import ScoreTiles, Tile, pack_scores
from lut.ops import Masks


@dataclass(frozen=True)
class MasksSchedule:
    """Ranges of rows (parallel)."""

    row_tasks: int


def default_schedule(op: Masks, isa: Isa, threads: int = 2) -> MasksSchedule:
    """One range per thread."""
    del isa
    return MasksSchedule(min(threads, op.out_height))


def pack(
    op: Masks, isa: Isa, threshold: float, rows: Array | None = None, columns: Array | None = None
) -> list[NDArray[Any]]:
    """Constants in call order: where scores are resampled the tables of rows and columns, the
    threshold (1,)."""
    del isa
    return [*pack_scores(op, rows, columns), np.array([threshold], np.float32)]


def emit(op: Masks, schedule: MasksSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(scores, [row and column tables,] threshold, y)."""
    c, size = isa.lanes, (op.out_height, op.out_width)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        tiles = ScoreTiles(isa, f, op)
        threshold = f.param("threshold", (1,))
        y = f.param("y", (1, *size) if op.one else (1, op.classes, *size), "uint8")
        planes = ir.view(y, (op.classes, *size))

        def tile(of: Tile) -> None:
            above, line = ir.bind(ir.splat(threshold[0], c)), ir.scratch(c, "uint8")
            zero, one = ir.const_int(0, c), ir.const_int(1, c)

            def classes(block: ir.Expr, count: int) -> None:
                for lane, score in enumerate(of.classes(block, count)):
                    mask = ir.cast(ir.select(score > above, one, zero), "uint8", c)
                    ir.store(line, mask, 0, lanes=c)
                    part = ir.load(line, 0, lanes=of.px)
                    ir.store(planes, part, block * c + lane, of.row, of.begin, lanes=of.px)

            full, tail = divmod(op.classes, c)
            if full:
                with ir.serial(0, full) as block:
                    classes(block, c)
            if tail:
                classes(full, tail)

        return lambda: tiles.over(schedule.row_tasks, tile)

    return ir.prim_func("masks", signature)
