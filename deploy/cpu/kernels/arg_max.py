"""Labels of scores at the image's size, or brought there by tables.

Equal scores give the lowest class, and the first NaN wins, as in numpy and torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array
from deploy.cpu.rows.score_tiles import ScoreTiles, Tile, pack_scores
from lut.ops import ArgMax

MOST_SMALL = 255  # classes whose labels are bytes


@dataclass(frozen=True)
class ArgMaxSchedule:
    """Ranges of rows (parallel)."""

    row_tasks: int


def default_schedule(op: ArgMax, isa: Isa, threads: int = 2) -> ArgMaxSchedule:
    """One range per thread."""
    del isa
    return ArgMaxSchedule(min(threads, op.out_height))


def pack(
    op: ArgMax, isa: Isa, rows: Array | None = None, columns: Array | None = None
) -> list[NDArray[Any]]:
    """Constants in call order: where scores are resampled the tables of rows and columns."""
    del isa
    return list(pack_scores(op, rows, columns))


def emit(op: ArgMax, schedule: ArgMaxSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(scores, [row and column tables,] y)."""
    c = isa.lanes
    element = "uint8" if op.classes <= MOST_SMALL else "uint16"

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        tiles = ScoreTiles(isa, f, op)
        y = f.param("y", op.output, element)

        def tile(of: Tile) -> None:
            best, label = ir.Registers(1, c), ir.Registers(1, c, "int32")

            def classes(block: ir.Expr, count: int, first: int) -> None:
                for lane, score in enumerate(of.classes(block, count)):
                    value = ir.bind(score)
                    number = ir.splat(ir.cast(block * c + lane, "int32"), c)
                    if lane < first:
                        best[0], label[0] = value, number
                        continue
                    nan = ir.both(ir.is_nan(value), ir.negate(ir.is_nan(best[0])))
                    wins = ir.either(value > best[0], nan)
                    label[0] = ir.select(wins, number, label[0])
                    best[0] = ir.select(wins, value, best[0])

            full, tail = divmod(op.classes, c)
            classes(0, min(op.classes, c), 1)
            if full > 1:
                with ir.loop(1, full) as block:
                    classes(block, c, 0)
            if full and tail:
                classes(full, tail, 0)
            line = ir.scratch(c, element)
            ir.store(line, ir.cast(label[0], element, c), 0, lanes=c)
            ir.store(y, ir.load(line, 0, lanes=of.px), 0, of.row, of.begin, lanes=of.px)

        return lambda: tiles.over(schedule.row_tasks, tile)

    return ir.prim_func("arg_max", signature)
