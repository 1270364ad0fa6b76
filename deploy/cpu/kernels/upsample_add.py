"""Pointwise convolution plus a bilinear upsampling of a second, smaller map, in one kernel.

The linear cumulative fusion of MRMS (paper section 3.1): act(W x + b + up(low)).
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
from deploy.cpu.rows.codes import Ending, code_at, codes_of
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map, output_map
from deploy.cpu.rows.product import Product
from deploy.cpu.rows.stage import Row
from deploy.cpu.scales import codes, pack_product, reading, unit_of, writing
from deploy.cpu.tiles import over_row_tiles
from deploy.grid import Scales
from lut.ops import Pointwise


@dataclass(frozen=True)
class UpsampleAddSchedule:
    """Register tile and row ranges (parallel)."""

    tile: Tile
    row_tasks: int


def supports(op: Pointwise) -> bool:
    """With a map of another size, and not with a gate."""
    return not op.gate and op.add == "low"


def default_schedule(op: Pointwise, isa: Isa, threads: int = 2) -> UpsampleAddSchedule:
    """One range of rows per thread."""
    tile = best_tile(isa, op.width, isa.blocks(op.cout))
    return UpsampleAddSchedule(tile, min(threads, op.height))


def pack(
    op: Pointwise, isa: Isa, weight: Array, bias: Array, scales: Scales | None = None
) -> list[NDArray[Any]]:
    """Constants in call order: weight, bias, row and column tables. In int8, with `scales` of x,
    low and y: codes of y and low, weight, bias, multiplier, tables."""
    tables = [table for axis in axes_of(op) for table in axis.table()]
    if scales is None:
        return [pack_pointwise(isa, weight), pack_vector(isa, bias), *tables]
    (x, low), unit = scales.inputs, unit_of(op.act, scales.output, op.wide)
    return [
        codes(writing(scales.output), reading(low, unit)),
        *pack_product(isa, weight, bias, x, scales.weights[0], unit),
        *tables,
    ]


def emit(op: Pointwise, schedule: UpsampleAddSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, low, constants, y)."""
    tasks = schedule.row_tasks

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.cin, op.height, op.width)
        low = Map(isa, f, "low", op.cout, op.low_height, op.low_width)
        coded = codes_of(isa, f, 2)
        ending = Ending(isa, op.act, None if op.wide else code_at(coded, 0))
        low.reads = code_at(coded, 1)
        product = Product(isa, f, op.cin, op.cout)
        rows, columns = AxisTable(f, "row", axes_of(op)[0]), AxisTable(f, "column", axes_of(op)[1])
        y = output_map(isa, f, op)

        def one_row(above: BlendedRow, source: Row, out: Row) -> None:
            def tile(first: ir.Expr, ob: int, begin: ir.Expr, px: int) -> None:
                samples: dict[int, Any] = {}

                def added(p: int, o: int) -> ir.Expr:
                    if p not in samples:
                        samples[p] = columns.at(begin + p, isa.lanes)
                    return above.sample(first + o, samples[p])

                product.tile(
                    px,
                    ob,
                    first,
                    x=lambda p, block, lane: source.operand(block, begin + p, lane),
                    start=added,
                    finish=lambda p, o, *v: out.store(first + o, begin + p, *ending.apply(*v)),
                )

            over_row_tiles(product.blocks, op.width, schedule.tile, tile)

        def body() -> None:
            with ir.parallel(0, tasks) as task:
                above = BlendedRow(low, rows)
                with ir.loop(*row_range(task, tasks, op.height)) as row:
                    above.blend(row)
                    one_row(above, x.row(row), y.row(row))

        return body

    return ir.prim_func("upsample_add", signature)
