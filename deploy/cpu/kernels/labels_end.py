"""The last step of a segmentation network in one kernel: class scores at the stride of the
features -> labels at the size of the image.

The upsampled planes, one per class, are never written; each vector of pixels keeps the best score
and its class. Equal scores give the lowest class, and the first NaN wins, as in numpy and torch;
only rows with a NaN or an infinity pay for that test. Cells of the scores in which one class wins
at all corners, most of a picture of objects, are filled without a look at the classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import AxisTable, axes_of
from deploy.cpu.isa import Isa
from deploy.cpu.rows.bilinear import BlendedRow
from deploy.cpu.rows.cells import Cells
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.finite import FiniteRows
from deploy.cpu.rows.intervals import Intervals, best_lanes, pack_intervals
from deploy.cpu.rows.labels import LabelRow
from deploy.cpu.rows.maps import Map
from lut.ops import Labels

CELL_PIXELS = 8  # a corner's winner costs about as much as the labels of two pixels


@dataclass(frozen=True)
class LabelsSchedule:
    """Pixels per vector, row ranges (parallel), and whether cells of one class are filled."""

    lanes: int
    row_tasks: int
    fill_cells: bool


def default_schedule(op: Labels, isa: Isa, threads: int = 2) -> LabelsSchedule:
    """One row range per thread; cells are filled where they have enough pixels to pay for finding
    the winners at the corners."""
    per_cell = -(-op.out_width // op.width) * (op.out_height // op.height)
    fill = op.width > 1 and per_cell >= CELL_PIXELS
    lanes = best_lanes(isa, axes_of(op)[1])
    return LabelsSchedule(lanes, min(threads, op.out_height), fill)


def pack(op: Labels, isa: Isa) -> list[NDArray[Any]]:
    """Constants in call order: row index and weight, intervals, fraction of every column."""
    rows, columns = axes_of(op)
    return [*rows.table(), *pack_intervals(isa, columns)]


def emit(op: Labels, schedule: LabelsSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(scores, row index, row weight, intervals, fraction, y)."""
    tasks = schedule.row_tasks

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        scores = Map(isa, f, "scores", op.classes, op.height, op.width)
        rows = AxisTable(f, "row", axes_of(op)[0])
        intervals = Intervals(isa, f, axes_of(op)[1], schedule.lanes)
        y = f.param("y", (1, op.out_height, op.out_width), "uint8")

        def body() -> None:
            with ir.parallel(0, tasks) as task:
                blended = BlendedRow(scores, rows)
                labels = LabelRow(intervals, blended, op.classes)
                first, last = map(ir.bind, row_range(task, tasks, op.out_height))
                finite = FiniteRows(scores)
                cells = Cells(scores, op.classes) if schedule.fill_cells else None
                top, bottom = ir.bind(rows.index[first, 0]), ir.bind(rows.index[last - 1, 1] + 1)
                with ir.loop(top, bottom) as row:
                    finite.check(row)
                    if cells is not None:
                        cells.find(row)
                if cells is not None:
                    cells.join(top, bottom)
                with ir.loop(first, last) as row:
                    blended.blend(row)
                    above = ir.bind(rows.index[row, 0])
                    with ir.when(finite.both(rows, row)):
                        with ir.then():
                            if cells is not None:
                                labels.fill(lambda column: cells.label(above, column))
                            else:
                                labels.compare(nan_safe=False)
                        with ir.otherwise():
                            labels.compare(nan_safe=True)
                    labels.copy(y, row)

        return body

    return ir.prim_func(op.kind, signature)
