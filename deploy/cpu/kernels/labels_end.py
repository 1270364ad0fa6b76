"""The last step of a segmentation network in one kernel: class scores at the stride of the
features -> labels at the size of the image.

The upsampled planes, one per class, are never written; each vector of pixels keeps the best score
and its class. Equal scores give the lowest class, and the first NaN wins, as in numpy and torch;
only rows with a NaN or an infinity pay for that test. Cells of the scores in which one class wins
at all corners, most of a picture of objects, are filled without a look at the classes; of others
several rows are compared at once.
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
from deploy.cpu.rows.label_cells import Bands, LabelBand, best_cell_tile, pack_bands
from deploy.cpu.rows.labels import LabelRow
from deploy.cpu.rows.maps import Map
from lut.ops import Labels

# Comparisons of a cell, pixels times classes, from which on it is worth to find the winners at the
# corners: of 2 classes made twice as large it costs what it saves.
CELL_SCORES = 16


@dataclass(frozen=True)
class LabelsSchedule:
    """Pixels per vector where rows are taken one by one, row ranges (parallel), and whether labels
    are found cell by cell, those of one class filled."""

    lanes: int
    row_tasks: int
    by_cells: bool


def default_schedule(op: Labels, isa: Isa, threads: int = 2) -> LabelsSchedule:
    """One row range per thread; cell by cell where a cell has several pixels, and scores enough to
    pay for finding the winners at the corners."""
    per_cell = -(-op.out_width // op.width) * (op.out_height // op.height)
    fill = op.width > 1 and per_cell > 1 and per_cell * op.classes >= CELL_SCORES
    lanes = best_lanes(isa, axes_of(op)[1])
    return LabelsSchedule(lanes, min(threads, op.out_height), fill)


def pack(op: Labels, isa: Isa) -> list[NDArray[Any]]:
    """Constants in call order: row index and weight, intervals, fraction of every column,
    where the rows of every source row begin, fraction of every row."""
    rows, columns = axes_of(op)
    bands = pack_bands(rows, best_cell_tile(isa, rows, columns))
    return [*rows.table(), *pack_intervals(isa, columns), *bands]


def emit(op: Labels, schedule: LabelsSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(scores, row index, row weight, intervals, fraction, row starts, row share, y)."""
    tasks = schedule.row_tasks

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        scores = Map(isa, f, "scores", op.classes, op.height, op.width)
        rows = AxisTable(f, "row", axes_of(op)[0])
        intervals = Intervals(isa, f, axes_of(op)[1], schedule.lanes)
        bands = Bands(f, axes_of(op)[0], best_cell_tile(isa, *axes_of(op)))
        y = f.param("y", (1, op.out_height, op.out_width), "uint8")

        def body() -> None:
            with ir.parallel(0, tasks) as task:
                blended = BlendedRow(scores, rows)
                labels = LabelRow(intervals, blended, op.classes)
                first, last = map(ir.bind, row_range(task, tasks, op.out_height))
                finite = FiniteRows(scores)
                top, bottom = ir.bind(rows.index[first, 0]), ir.bind(rows.index[last - 1, 1] + 1)
                with ir.loop(top, bottom) as row:
                    finite.check(row)

                def one_row(row: ir.Expr, *, nan_safe: bool) -> None:
                    blended.blend(row)
                    labels.compare(nan_safe=nan_safe)
                    labels.copy(y, row)

                if not schedule.by_cells:
                    with ir.loop(first, last) as row, ir.when(finite.both(rows, row)):
                        with ir.then():
                            one_row(row, nan_safe=False)
                        with ir.otherwise():
                            one_row(row, nan_safe=True)
                    return
                cells = Cells(scores, op.classes)
                with ir.loop(top, bottom) as row:
                    cells.find(row)
                cells.join(top, bottom)
                band = LabelBand(scores, intervals, bands, cells)
                with ir.loop(top, bottom) as above:
                    begin = ir.bind(ir.maximum(first, bands.starts[above]))
                    end = ir.bind(ir.minimum(last, bands.starts[above + 1]))
                    with ir.when(finite.below(above, bottom)):
                        with ir.then():
                            band.over_rows(above, begin, end, y)
                        with ir.otherwise(), ir.loop(begin, end) as row:
                            one_row(row, nan_safe=True)

        return body

    return ir.prim_func(op.kind, signature)
