"""The last step of a network that gives logits, in one kernel: class scores at the stride of the
features -> a plane each at the size of the image.

Where few source columns lie under a whole vector of output pixels, it is the weighted sum of them;
elsewhere, and in rows with a NaN or an infinity, which a weight of zero would spread, each pixel
comes from its two neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import AxisTable, axes_of
from deploy.cpu.isa import Isa
from deploy.cpu.rows.bilinear import BlendedRow
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.finite import FiniteRows
from deploy.cpu.rows.intervals import Intervals, best_lanes, pack_intervals
from deploy.cpu.rows.logits import LogitRow, Sums, weighted_sums
from deploy.cpu.rows.maps import Map
from lut.ops import Logits


@dataclass(frozen=True)
class LogitsSchedule:
    """Pixels per vector, where they come from two neighbours, and row ranges (parallel)."""

    lanes: int
    row_tasks: int


def default_schedule(op: Logits, isa: Isa, threads: int = 2) -> LogitsSchedule:
    """One row range per thread."""
    return LogitsSchedule(best_lanes(isa, axes_of(op)[1]), min(threads, op.out_height))


def pack(op: Logits, isa: Isa) -> list[NDArray[Any]]:
    """Constants in call order: row index and weight, intervals, fraction of every column, and where
    there are sums, the first source column and the weights of each vector."""
    rows, columns = axes_of(op)
    return [*rows.table(), *pack_intervals(isa, columns), *(weighted_sums(isa, columns) or ())]


def emit(op: Logits, schedule: LogitsSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(scores, row index, row weight, intervals, fraction[, starts, taps], y)."""
    tasks = schedule.row_tasks

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        scores = Map(isa, f, "scores", op.classes, op.height, op.width)
        rows = AxisTable(f, "row", axes_of(op)[0])
        intervals = Intervals(isa, f, axes_of(op)[1], schedule.lanes)
        taps = weighted_sums(isa, axes_of(op)[1])
        sums = Sums(f, *taps) if taps else None
        y = f.param("y", (1, op.classes, op.out_height, op.out_width))

        def body() -> None:
            with ir.parallel(0, tasks) as task:
                blended = BlendedRow(scores, rows)
                logits = LogitRow(intervals, blended, y)
                first, last = map(ir.bind, row_range(task, tasks, op.out_height))
                if sums is None:
                    with ir.loop(first, last) as row:
                        blended.blend(row)
                        logits.interpolate(row)
                    return
                finite = FiniteRows(scores)
                with ir.loop(rows.index[first, 0], rows.index[last - 1, 1] + 1) as row:
                    finite.check(row)
                with ir.loop(first, last) as row:
                    blended.blend(row)
                    with ir.when(finite.both(rows, row)):
                        with ir.then():
                            logits.add_up(sums, row)
                        with ir.otherwise():
                            logits.interpolate(row)

        return body

    return ir.prim_func(op.kind, signature)
