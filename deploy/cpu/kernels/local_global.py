"""The high-resolution end of the MRMS head in one kernel (paper section 3.1).

fuse = act(W2 mid_act((W1 x + b1) * gate + up(low)) + b2). The middle, 256 channels wide and the
largest tensor of the head, exists in segments of a row only, small enough for the caches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import AxisTable, axes_of
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array, pack_pointwise, pack_vector
from deploy.cpu.rows.bilinear import BlendedRow
from deploy.cpu.rows.buffer import RowBuffer
from deploy.cpu.rows.codes import Ending, code_at, codes_of
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.product import Product
from deploy.cpu.rows.stage import Row
from deploy.cpu.scales import codes, pack_product, reading, unit_of, writing
from deploy.cpu.tiles import over_row_tiles
from deploy.grid import Scales
from lut.ops import LocalGlobal

SEGMENT_BYTES = 80 << 10


@dataclass(frozen=True)
class LocalGlobalSchedule:
    """Pixels of a row at once, row ranges (parallel), tiles of the two convolutions."""

    segment: int
    row_tasks: int
    mid_tile: Tile
    out_tile: Tile


def default_schedule(op: LocalGlobal, isa: Isa, threads: int = 2) -> LocalGlobalSchedule:
    """Equal segments under 80 KB, one range of rows per thread."""
    row_bytes = isa.element.bytes * isa.lanes * isa.blocks(op.mid) * op.width
    segment = -(-op.width // -(-row_bytes // SEGMENT_BYTES))
    return LocalGlobalSchedule(
        segment,
        min(threads, op.height),
        best_tile(isa, segment, isa.blocks(op.mid)),
        best_tile(isa, segment, isa.blocks(op.cout)),
    )


def pack(
    op: LocalGlobal, isa: Isa, *, mid: tuple[Array, Array], out: tuple[Array, Array],
    scales: Scales | None = None,
) -> list[NDArray[Any]]:  # fmt: skip
    """Constants in call order: W1, b1, W2, b2, row and column tables. In int8, with `scales` of
    x[, gate], low, the middle, and y: codes of the middle, y, low[, gate], weight, bias and
    multiplier of both products, tables."""
    packed: list[NDArray[Any]] = []
    if scales is not None:
        x, *gate, low = scales.inputs
        (middle,), y = scales.hidden, scales.output
        units = unit_of(op.mid_act, middle), unit_of(op.act, y)
        # With a gate the sums have no zero point yet, which the low map then brings.
        return [
            codes(
                writing(middle), writing(y), reading(low, units[0]),
                *[reading(one) for one in gate],
            ),
            *pack_product(isa, *mid, x, scales.weights[0], units[0]),
            *pack_product(isa, *out, middle, scales.weights[1], units[1]),
            *[table for axis in axes_of(op) for table in axis.table()],
        ]  # fmt: skip
    for weight, bias in (mid, out):
        packed += [pack_pointwise(isa, weight), pack_vector(isa, bias)]
    return packed + [table for axis in axes_of(op) for table in axis.table()]


def emit(op: LocalGlobal, schedule: LocalGlobalSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x[, gate], low, constants, y)."""
    c, tasks = isa.lanes, schedule.row_tasks

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.cin, op.height, op.width)
        gate = Map(isa.of_channels, f, "gate", op.mid, 1, 1) if op.gate else None
        low = Map(isa, f, "low", op.mid, op.low_height, op.low_width)
        coded = codes_of(isa, f, 4 if op.gate else 3)
        middle = Ending(isa, op.mid_act, code_at(coded, 0))
        ending = Ending(isa, op.act, code_at(coded, 1))
        if coded is not None:
            low.reads = coded[2]
            if gate is not None:
                gate.reads = coded[3]
        mid = Product(isa, f, op.cin, op.mid, "mid_")
        out = Product(isa, f, op.mid, op.cout, "out_")
        rows, columns = AxisTable(f, "row", axes_of(op)[0]), AxisTable(f, "column", axes_of(op)[1])
        y = Map(isa, f, "y", *op.output)

        def widen(left: ir.Expr, size: int, source: Row, above: BlendedRow, wide: Row) -> None:
            def tile(first: ir.Expr, ob: int, begin: ir.Expr, px: int) -> None:
                samples: dict[int, Any] = {}

                def added(p: int, o: int) -> ir.Expr:
                    if p not in samples:
                        samples[p] = columns.at(left + begin + p, c)
                    return above.sample(first + o, samples[p])

                def finish(p: int, o: int, *vectors: ir.Expr) -> None:
                    values: list[ir.Expr] = list(vectors)
                    for number, value in enumerate(vectors):
                        if gate is not None and isa.element.integer:
                            factor = gate.vector(first + o, 0, 0)
                            values[number] = ir.fma(value, factor, added(p + number, o), c)
                        elif gate is not None:
                            value = value * gate.vector(first + o, 0, 0)
                            values[number] = value + added(p + number, o)
                        elif not isa.element.integer:
                            values[number] = value + added(p + number, o)
                    wide.store(first + o, begin + p, *middle.apply(*values))

                mid.tile(
                    px,
                    ob,
                    first,
                    x=lambda p, block, lane: source.operand(block, left + begin + p, lane),
                    start=added if gate is None and isa.element.integer else None,
                    finish=finish,
                )

            over_row_tiles(mid.blocks, size, schedule.mid_tile, tile)

        def narrow(left: ir.Expr, size: int, wide: Row, target: Row) -> None:
            def tile(first: ir.Expr, ob: int, begin: ir.Expr, px: int) -> None:
                out.tile(
                    px,
                    ob,
                    first,
                    x=lambda p, block, lane: wide.operand(block, begin + p, lane),
                    start=ending.starts(),
                    finish=lambda p, o, *v: target.store(
                        first + o, left + begin + p, *ending.apply(*v)
                    ),
                )

            over_row_tiles(out.blocks, size, schedule.out_tile, tile)

        def body() -> None:
            with ir.parallel(0, tasks) as task:
                above = BlendedRow(low, rows)
                wide = RowBuffer(isa, mid.blocks, schedule.segment)
                with ir.loop(*row_range(task, tasks, op.height)) as row:
                    above.blend(row)

                    def segment(left: ir.Expr, size: int) -> None:
                        widen(left, size, x.row(row), above, wide)
                        narrow(left, size, wide, y.row(row))

                    ir.over_tiles(op.width, schedule.segment, segment)

        return body

    return ir.prim_func("local_global", signature)
