"""The last step of a segmentation network in one kernel: class scores at the stride of the
features -> labels or logits at the size of the image.

Labels: the upsampled planes, one per class, are never written; each vector of pixels keeps the
best score and its class. Equal scores give the lowest class, and the first NaN wins, as in numpy
and torch; only rows with a NaN or an infinity pay for that test.

A row is first blended from two rows of scores. Between two neighbouring source columns every class
then is a straight line, so the output pixels of one such interval share two broadcast scores, for
any ratio. An interval is processed in whole vectors: what sticks out is written over by the next
one, and behind the last there is room in a scratch row.

Where one class wins at all four corners of a cell of the scores, it wins everywhere between: its
lead over any other class is bilinear too, and nowhere below its smallest corner. Such cells, most
of a picture of objects, are filled without a look at the classes. Only a lead that rounding would
turn into a tie is decided otherwise than pixel by pixel, for the better.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import AxisTable, axes_of
from deploy.cpu.isa import Isa
from deploy.cpu.kernels.bilinear import blend_rows
from deploy.cpu.layout import activation_shape
from deploy.cpu.tiles import reduce_channels
from lut.ops import Labels, Logits

End = Labels | Logits

CELL_PIXELS = 8  # a corner's winner costs about as much as the labels of two pixels
MOST_TAPS = 4  # source columns of a vector of logits; the other way loads two a vector
MIXED = 255  # no label: there are 255 classes at most


@dataclass(frozen=True)
class EndSchedule:
    """Pixels per vector, row ranges (parallel), and whether cells of one class are filled."""

    lanes: int
    row_tasks: int
    fill_cells: bool


def default_schedule(op: End, isa: Isa, threads: int = 2) -> EndSchedule:
    """Half vectors where an interval has no more pixels than that; one row range per thread; cells
    are filled where they have enough pixels to pay for finding the winners at the corners."""
    half = isa.lanes // 2
    per_interval = -(-op.out_width // op.width)
    lanes = half if half >= 8 and per_interval <= half else isa.lanes
    per_cell = per_interval * (op.out_height // op.height)
    fill = isinstance(op, Labels) and op.width > 1 and per_cell >= CELL_PIXELS
    return EndSchedule(lanes, min(threads, op.out_height), fill)


def pack(op: End, isa: Isa) -> list[NDArray[Any]]:
    """Constants in call order: row index and weight, intervals, fraction of every column."""
    rows, columns = axes_of(op)
    fraction = np.zeros(op.out_width + isa.lanes, np.float32)  # read in whole vectors
    fraction[: op.out_width] = columns.table()[1][:, 1]
    packed = [*rows.table(), columns.intervals(), fraction]
    return packed + list(_taps(op, isa) or ())


def _taps(op: End, isa: Isa) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
    """For logits in whole vectors of output pixels: the first source column of each vector, and the
    weights (vectors, taps, lanes) of the columns from there on. None where a vector would see more
    than MOST_TAPS of them or the width is no whole number of vectors."""
    columns, c = axes_of(op)[1], isa.lanes
    if isinstance(op, Labels) or op.out_width % c:
        return None
    index, weight = columns.table()
    low, high = (index[:, i].reshape(-1, c) for i in range(2))
    taps = int((high.max(1) - low.min(1)).max()) + 1
    if taps > min(MOST_TAPS, op.width):
        return None
    first = np.minimum(low.min(1), op.width - taps).astype(np.int32)
    table = np.zeros((len(first), taps, c), np.float32)
    vector, lane = np.indices(low.shape)
    for source, share in ((low, weight[:, 0]), (high, weight[:, 1])):
        np.add.at(table, (vector, source - first[:, None], lane), share.reshape(-1, c))
    return first, table


def emit(op: End, schedule: EndSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(scores, row index, row weight, intervals, fraction[, starts, taps], y)."""
    c, lanes, tasks = isa.lanes, schedule.lanes, schedule.row_tasks
    blocks = isa.blocks(op.classes)
    labels = isinstance(op, Labels)
    out_plane = (op.out_height, op.out_width)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        scores = f.param("scores", activation_shape(isa, op.classes, op.height, op.width))
        rows = AxisTable(f, "row", axes_of(op)[0])
        intervals = f.param("intervals", (op.width + 1,), "int32")
        fraction = f.param("fraction", (op.out_width + isa.lanes,))
        taps = _taps(op, isa)
        if taps:
            starts = f.param("starts", taps[0].shape, "int32")
            weights = f.param("taps", taps[1].shape)
        if labels:
            y = f.param("y", (1, *out_plane), "uint8")
        else:
            y = f.param("y", (1, op.classes, *out_plane))

        def over_intervals(body: Any) -> None:  # noqa: ANN401
            """body(left source, right source, first pixel of a vector)."""
            with ir.serial(0, op.width) as j:
                right = ir.bind(ir.minimum(j + 1, op.width - 1))
                start, stop = ir.bind(intervals[j]), ir.bind(intervals[j + 1])
                with ir.loop(0, (stop - start + lanes - 1) // lanes) as part:
                    body(j, right, ir.bind(start + part * lanes))

        def value_at(blended: Any, block: Any, lane: Any, left: Any, right: Any, f1: Any) -> Any:  # noqa: ANN401
            a = ir.splat(blended[(block * op.width + left) * c + lane], lanes)
            b = ir.splat(blended[(block * op.width + right) * c + lane], lanes)
            return a * (ir.const(1, lanes) - f1) + b * f1

        def label_row(blended: Any, line: Any, nan_safe: bool, cells: Any = None) -> None:  # noqa: ANN401
            def cell(left: Any, right: Any, begin: Any) -> None:  # noqa: ANN401
                if cells is None:
                    vector(left, right, begin)
                    return
                only = ir.bind(cells(left))
                with ir.when(only != MIXED):
                    with ir.then():
                        ir.store(line, ir.splat(only, lanes), begin, lanes=lanes)
                    with ir.otherwise():
                        vector(left, right, begin)

            def vector(left: Any, right: Any, begin: Any) -> None:  # noqa: ANN401
                f1 = ir.bind(ir.load(fraction, begin, lanes=lanes))
                best, label = ir.Registers(1, lanes), ir.Registers(1, lanes, "int32")
                best[0] = value_at(blended, 0, 0, left, right, f1)
                label[0] = ir.const_int(0, lanes)

                def look(block: Any, lane: Any) -> None:  # noqa: ANN401
                    value = ir.bind(value_at(blended, block, lane, left, right, f1))
                    wins = value > best[0]
                    if nan_safe:
                        first = ir.both(ir.is_nan(value), ir.negate(ir.is_nan(best[0])))
                        wins = ir.either(wins, first)
                    number = ir.splat(ir.cast(block * c + lane, "int32"), lanes)
                    label[0] = ir.select(wins, number, label[0])
                    best[0] = ir.select(wins, value, best[0])

                reduce_channels(isa, op.classes, look)
                ir.store(line, ir.cast(label[0], "uint8", lanes), begin, lanes=lanes)

            over_intervals(cell)

        def logit_row(blended: Any, line: Any, row: Any) -> None:  # noqa: ANN401
            def one_class(block: Any, lane: Any) -> None:  # noqa: ANN401
                def vector(left: Any, right: Any, begin: Any) -> None:  # noqa: ANN401
                    f1 = ir.bind(ir.load(fraction, begin, lanes=lanes))
                    value = value_at(blended, block, lane, left, right, f1)
                    ir.store(line, value, begin, lanes=lanes)

                over_intervals(vector)
                copy_row(line, lambda i: (y, (0, block * c + lane, row, i)))

            reduce_channels(isa, op.classes, one_class)

        def logit_vectors(blended: Any, row: Any) -> None:  # noqa: ANN401
            """As logit_row, for finite scores, in whole lines: a weighted sum of few columns."""
            _, count, _ = weights.shape

            def one_class(block: Any, lane: Any) -> None:  # noqa: ANN401
                with ir.serial(0, op.out_width // c) as i:
                    at = ir.bind((block * op.width + starts[i]) * c + lane)
                    value = None
                    for tap in range(int(count)):
                        source = ir.splat(blended[at + tap * c], c)
                        term = source * ir.load(weights, i, tap, 0, lanes=c)
                        value = term if value is None else value + term
                    ir.store(y, value, 0, block * c + lane, row, i * c, lanes=c)

            reduce_channels(isa, op.classes, one_class)

        def check_row(row: Any, odd: Any) -> None:  # noqa: ANN401
            """odd[row] is 0 if the row holds neither NaN nor infinity: times zero, both are NaN."""
            parts = 4  # enough sums to hide the latency of an addition
            total = ir.Registers(parts, c)
            for part in range(parts):
                total[part] = ir.const(0, c)

            def some(begin: Any, size: int) -> None:  # noqa: ANN401
                for p in range(size):
                    value = ir.load(scores, 0, block, row, begin + p, 0, lanes=c)
                    total[p] = total[p] + value * ir.const(0, c)

            with ir.serial(0, blocks) as block:
                ir.over_tiles(op.width, parts, some)
            flag = ir.scratch(c)
            ir.store(flag, total[0] + total[1] + (total[2] + total[3]), 0, lanes=c)
            with ir.serial(1, c) as i:
                ir.store_scalar(flag, flag[0] + flag[i], 0)
            ir.store_scalar(odd, flag[0], row)

        def finite_row(row: Any, odd: Any) -> Any:  # noqa: ANN401
            above, below = ir.bind(rows.index[row, 0]), ir.bind(rows.index[row, 1])
            return ir.both(odd[above] == ir.scalar(0.0), odd[below] == ir.scalar(0.0))

        def find_winners(row: Any, cells: Any) -> None:  # noqa: ANN401
            """The class with the highest score at every source pixel of a row."""
            flat = ir.view(scores, (blocks * op.height * op.width * c,))
            size = min(isa.lanes, op.width)
            best, label = ir.Registers(1, size), ir.Registers(1, size, "int32")
            with ir.serial(0, -(-op.width // size)) as part:
                begin = ir.bind(ir.minimum(part * size, op.width - size))

                def look(block: Any, lane: Any) -> None:  # noqa: ANN401
                    at = ((block * op.height + row) * op.width + begin) * c + lane
                    value = ir.bind(ir.load_strided(flat, at, c, lanes=size))
                    wins = value > best[0]
                    number = ir.splat(ir.cast(block * c + lane, "int32"), size)
                    label[0] = ir.select(wins, number, label[0])
                    best[0] = ir.select(wins, value, best[0])

                best[0], label[0] = ir.const(-math.inf, size), ir.const_int(0, size)
                reduce_channels(isa, op.classes, look)
                at = row * op.width + begin
                ir.store(cells, ir.cast(label[0], "uint8", size), at, lanes=size)

        def join_corners(first: Any, last: Any, cells: Any) -> None:  # noqa: ANN401
            """From winners at pixels to winners of whole cells, or MIXED, in place."""
            with ir.loop(first, last) as row, ir.serial(0, op.width) as j:
                right = ir.bind(ir.minimum(j + 1, op.width - 1))
                here = ir.bind(row * op.width)
                below = ir.bind(ir.minimum(row + 1, op.height - 1) * op.width)
                only = ir.bind(cells[here + j])
                same = ir.both(only == cells[here + right], only == cells[below + j])
                same = ir.both(same, only == cells[below + right])
                ir.store_scalar(cells, ir.select(same, only, ir.uint8(MIXED)), here + j)

        def copy_row(line: Any, target: Any) -> None:  # noqa: ANN401
            def part(begin: Any, size: int) -> None:  # noqa: ANN401
                buffer, index = target(begin)
                ir.store(buffer, ir.load(line, begin, lanes=size), *index, lanes=size)

            ir.over_tiles(op.out_width, 64 if labels else isa.lanes, part)

        def label_rows(first: Any, last: Any, blended: Any, line: Any) -> None:  # noqa: ANN401
            odd = ir.scratch(op.height)
            cells = ir.scratch(op.height * op.width, "uint8") if schedule.fill_cells else None
            top = ir.bind(rows.index[first, 0])
            bottom = ir.bind(rows.index[last - 1, 1] + 1)
            with ir.loop(top, bottom) as row:
                check_row(row, odd)
                if cells is not None:
                    find_winners(row, cells)
            if cells is not None:
                join_corners(top, bottom, cells)
            with ir.loop(first, last) as row:
                blend_rows(isa, scores, blocks, op.width, rows, row, blended)
                above = ir.bind(rows.index[row, 0])
                with ir.when(finite_row(row, odd)):
                    with ir.then():
                        found = None if cells is None else lambda j: cells[above * op.width + j]
                        label_row(blended, line, nan_safe=False, cells=found)
                    with ir.otherwise():
                        label_row(blended, line, nan_safe=True)
                copy_row(line, lambda i: (y, (0, row, i)))

        def body() -> None:
            with ir.parallel(0, tasks) as task:
                blended = ir.scratch(blocks * op.width * c)
                line = ir.scratch(op.out_width + lanes, "uint8" if labels else "float32")
                first = ir.bind(task * op.out_height // tasks)
                last = ir.bind((task + 1) * op.out_height // tasks)
                if labels:
                    label_rows(first, last, blended, line)
                    return
                odd = ir.scratch(op.height)
                if taps:
                    with ir.loop(rows.index[first, 0], rows.index[last - 1, 1] + 1) as row:
                        check_row(row, odd)
                with ir.loop(first, last) as row:
                    blend_rows(isa, scores, blocks, op.width, rows, row, blended)
                    if taps:
                        with ir.branch(finite_row(row, odd)) as (finite, other):
                            with finite():
                                logit_vectors(blended, row)
                            with other():
                                logit_row(blended, line, row)
                    else:
                        logit_row(blended, line, row)

        return body

    return ir.prim_func(op.kind, signature)
