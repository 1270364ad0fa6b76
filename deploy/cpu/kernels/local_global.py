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
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.product import Product
from deploy.cpu.rows.stage import Row
from deploy.cpu.tiles import over_row_tiles
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
    row_bytes = 4 * isa.lanes * isa.blocks(op.mid) * op.width
    segment = -(-op.width // -(-row_bytes // SEGMENT_BYTES))
    return LocalGlobalSchedule(
        segment,
        min(threads, op.height),
        best_tile(isa, segment, isa.blocks(op.mid)),
        best_tile(isa, segment, isa.blocks(op.cout)),
    )


def pack(
    op: LocalGlobal, isa: Isa, *, mid: tuple[Array, Array], out: tuple[Array, Array]
) -> list[NDArray[Any]]:
    """Constants in call order: W1, b1, W2, b2, row and column tables."""
    packed: list[NDArray[Any]] = []
    for weight, bias in (mid, out):
        packed += [pack_pointwise(isa, weight), pack_vector(isa, bias)]
    return packed + [table for axis in axes_of(op) for table in axis.table()]


def emit(op: LocalGlobal, schedule: LocalGlobalSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x[, gate], low, W1, b1, W2, b2, row and column tables, y)."""
    c, tasks = isa.lanes, schedule.row_tasks

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.cin, op.height, op.width)
        gate = Map(isa, f, "gate", op.mid, 1, 1) if op.gate else None
        low = Map(isa, f, "low", op.mid, op.low_height, op.low_width)
        mid = Product(isa, f, op.cin, op.mid, "mid_")
        out = Product(isa, f, op.mid, op.cout, "out_")
        rows, columns = AxisTable(f, "row", axes_of(op)[0]), AxisTable(f, "column", axes_of(op)[1])
        y = Map(isa, f, "y", *op.output)

        def widen(left: ir.Expr, size: int, source: Row, above: BlendedRow, wide: Row) -> None:
            def tile(first: ir.Expr, ob: int, begin: ir.Expr, px: int) -> None:
                samples: dict[int, Any] = {}

                def finish(p: int, o: int, value: ir.Expr) -> None:
                    if p not in samples:
                        samples[p] = columns.at(left + begin + p, c)
                    if gate is not None:
                        value = value * gate.vector(first + o, 0, 0)
                    value = value + above.sample(first + o, samples[p])
                    wide.store(first + o, begin + p, ir.activate(value, op.mid_act, c))

                mid.tile(
                    px,
                    ob,
                    first,
                    x=lambda p, block, lane: source.operand(block, left + begin + p, lane),
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
                    finish=lambda p, o, v: target.store(
                        first + o, left + begin + p, ir.activate(v, op.act, c)
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
