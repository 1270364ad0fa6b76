"""Labels of scores at the image's size, or brought there by tables, whose planes are never written.

A tile of as many pixels as a vector has lanes is turned, so that each class is a vector of pixels.
Equal scores give the lowest class, and the first NaN wins, as in numpy and torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.table import TableRow, pack_table, tables_of
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
    """Constants in call order: where scores are resampled the tables of rows and columns, of which
    the matcher has matrices (out, in)."""
    del isa
    if rows is None or columns is None:
        return []
    return [*pack_table(rows, op.taps[0]), *pack_table(columns, op.taps[1])]


def emit(op: ArgMax, schedule: ArgMaxSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(scores, [row and column tables,] y)."""
    c, tasks = isa.lanes, schedule.row_tasks
    element = "uint8" if op.classes <= MOST_SMALL else "uint16"

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        scores = Map(isa, f, "scores", op.classes, op.height, op.width)
        tables = tables_of(f, op.output[1:], op.taps) if op.resampled else None
        y = f.param("y", op.output, element)

        def tile(
            read: Callable[[ir.Expr, int], ir.Expr], row: ir.Expr, begin: ir.Expr, px: int
        ) -> None:
            """read(block, pixel) is the vector of a pixel."""
            best, label = ir.Registers(1, c), ir.Registers(1, c, "int32")
            pixels = ir.Registers(c, c)

            def classes(block: ir.Expr, count: int, first: bool) -> None:
                for p in range(c):
                    # Behind the row's end the last pixel again.
                    pixels[p] = read(block, min(p, px - 1))
                for lane, value in enumerate(turned(pixels, c)[:count]):
                    number = ir.splat(ir.cast(block * c + lane, "int32"), c)
                    if first and not lane:
                        best[0], label[0] = value, number
                        continue
                    value = ir.bind(value)
                    nan = ir.both(ir.is_nan(value), ir.negate(ir.is_nan(best[0])))
                    wins = ir.either(value > best[0], nan)
                    label[0] = ir.select(wins, number, label[0])
                    best[0] = ir.select(wins, value, best[0])

            full, tail = divmod(op.classes, c)
            classes(0, min(op.classes, c), True)
            if full > 1:
                with ir.loop(1, full) as block:
                    classes(block, c, False)
            if full and tail:
                classes(full, tail, False)
            line = ir.scratch(c, element)
            ir.store(line, ir.cast(label[0], element, c), 0, lanes=c)
            ir.store(y, ir.load(line, 0, lanes=px), 0, row, begin, lanes=px)

        def body() -> None:
            with ir.parallel(0, tasks) as task:
                line = TableRow(scores, tables[0], scores.blocks) if tables else None
                with ir.loop(*row_range(task, tasks, op.out_height)) as row:
                    if line is not None:
                        line.blend(0, row)

                    def some(begin: ir.Expr, px: int, row: ir.Expr = row) -> None:
                        def read(block: ir.Expr, p: int) -> ir.Expr:
                            if tables is None or line is None:
                                return scores.vector(block, row, begin + p)
                            acc = ir.Registers(1, c)
                            tables[1].sums(
                                begin + p, acc, 1, lambda _, at: line.vector(block, at), c
                            )
                            return acc[0]

                        tile(read, row, begin, px)

                    ir.over_tiles(op.out_width, min(c, op.out_width), some)

        return body

    return ir.prim_func("arg_max", signature)


def turned(pixels: ir.Registers, size: int) -> list[ir.Expr]:
    """The columns of a square of vectors, which are its rows."""
    rows: list[ir.Expr] = [ir.bind(pixels[i]) for i in range(size)]
    apart = 1
    while apart < size:
        even = [lane if not lane & apart else size + lane - apart for lane in range(size)]
        odd = [lane + apart if not lane & apart else size + lane for lane in range(size)]
        for i in range(size):
            if not i & apart:
                a, b = rows[i], rows[i + apart]
                rows[i] = ir.bind(ir.shuffle(a, b, even))
                rows[i + apart] = ir.bind(ir.shuffle(a, b, odd))
        apart *= 2
    return rows
