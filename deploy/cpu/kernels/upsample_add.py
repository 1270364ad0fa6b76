"""Pointwise convolution plus a bilinear upsampling of a second, smaller map, in one kernel.

The linear cumulative fusion of MRMS (paper section 3.1): act(W x + b + up(low)).
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import AxisTable, axes_of
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels.bilinear import blend_rows, sample_row
from deploy.cpu.layout import Array, activation_shape, pack_pointwise, pack_vector
from deploy.cpu.tiles import matmul_tile
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


def pack(op: Pointwise, isa: Isa, weight: Array, bias: Array) -> list[NDArray[Any]]:
    """Constants in call order: weight, bias, row and column tables."""
    tables = [table for axis in axes_of(op) for table in axis.table()]
    return [pack_pointwise(isa, weight), pack_vector(isa, bias), *tables]


def emit(op: Pointwise, schedule: UpsampleAddSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, low, weight, bias, row and column tables, y)."""
    c, blocks = isa.lanes, isa.blocks(op.cout)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", activation_shape(isa, op.cin, op.height, op.width))
        low = f.param("low", activation_shape(isa, op.cout, op.low_height, op.low_width))
        w = f.param("weight", (blocks, op.cin, c))
        b = f.param("bias", (blocks, c))
        rows, columns = AxisTable(f, "row", axes_of(op)[0]), AxisTable(f, "column", axes_of(op)[1])
        y = f.param("y", activation_shape(isa, op.cout, op.height, op.width))

        def body() -> None:
            with ir.parallel(0, schedule.row_tasks) as task:
                blended = ir.scratch(blocks * op.low_width * c)
                first_row = task * op.height // schedule.row_tasks
                last_row = (task + 1) * op.height // schedule.row_tasks
                with ir.loop(first_row, last_row) as row:
                    blend_rows(isa, low, blocks, op.low_width, rows, row, blended)

                    def group(first: Any, ob: int) -> None:  # noqa: ANN401
                        def tile(begin: Any, px: int) -> None:  # noqa: ANN401
                            acc = ir.Registers(px * ob, c)
                            for p in range(px):
                                sample = columns.at(begin + p, c)
                                for o in range(ob):
                                    acc[p * ob + o] = ir.load(
                                        b, first + o, 0, lanes=c
                                    ) + sample_row(blended, (first + o) * op.low_width, sample, c)
                            matmul_tile(
                                isa,
                                px,
                                ob,
                                op.cin,
                                x=lambda p, block, lane: x[0, block, row, begin + p, lane],
                                w=lambda o, block, lane: ir.load(
                                    w, first + o, block * c + lane, 0, lanes=c
                                ),
                                init=None,
                                finish=lambda p, o, v: ir.store(
                                    y,
                                    ir.activate(v, op.act, c),
                                    0,
                                    first + o,
                                    row,
                                    begin + p,
                                    0,
                                    lanes=c,
                                ),
                                registers=acc,
                            )

                        ir.over_tiles(op.width, min(schedule.tile.px, op.width), tile)

                    ir.over_tiles(blocks, schedule.tile.ob, group)

        return body

    return ir.prim_func("upsample_add", signature)
