"""Between the planar layout (1, C, H, W) and the blocked one (1, C/c, H, W, c), and in the latter
between the types that maps are made of."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import activation_shape
from deploy.cpu.rows.codes import Codes, codes_of
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from deploy.cpu.scales import codes, reading
from deploy.grid import Grid
from lut.ops import Convert


@dataclass(frozen=True)
class ConvertSchedule:
    """Row ranges (parallel)."""

    row_tasks: int


def default_schedule(op: Convert, isa: Isa, threads: int = 2) -> ConvertSchedule:
    """One range of rows per thread."""
    del isa
    return ConvertSchedule(min(threads, op.height))


def pack(op: Convert, isa: Isa, grid: Grid | None = None) -> list[NDArray[Any]]:
    """Constants in call order: in int8 the code of the map, for reading or for writing."""
    del isa
    if grid is None:
        return []
    scale = grid
    reads = op.direction in ("unpack", "widen")
    # What is written is divided by the scale, as ONNX does, where other kernels multiply.
    return [codes(reading(scale) if reads else (scale.scale, scale.zero))]


def _coded(op: Convert, coded: Codes | None, value: ir.Expr, lanes: int) -> ir.Expr:
    """Numbers of quanta, or quanta of numbers."""
    if coded is None:
        return value
    if op.direction in ("unpack", "widen"):
        return coded[0].apply(value, lanes)
    return value / coded[0].factor(lanes) + coded[0].shift(lanes)


def emit(op: Convert, schedule: ConvertSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x[, codes], y); channels beyond the real ones become zero in the blocked layout."""
    if op.direction in ("widen", "narrow"):
        return _emit_retyped(op, schedule, isa)
    planar_shape = (1, op.channels, op.height, op.width)
    blocked_shape = activation_shape(isa, op.channels, op.height, op.width)
    packing, element = op.direction == "pack", isa.element

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        stored = element.stored
        x = f.param("x", planar_shape) if packing else f.param("x", blocked_shape, stored)
        coded = codes_of(isa, f, 1)
        y = f.param("y", blocked_shape, stored) if packing else f.param("y", planar_shape)

        def pack_row(block: ir.Expr, row: ir.Expr, real: int) -> None:
            with ir.serial(0, op.width) as column:
                for lane in range(isa.lanes):
                    channel = block * isa.lanes + lane
                    value = x[0, channel, row, column] if lane < real else ir.const(0)
                    value = _coded(op, coded, value, 1)
                    element.store(y, value, 0, block, row, column, lane, lanes=1)

        def unpack_row(block: ir.Expr, row: ir.Expr, real: int) -> None:
            for lane in range(real):
                with ir.serial(0, op.width) as column:
                    value = element.value(x, 0, block, row, column, lane)
                    value = _coded(op, coded, value, 1)
                    ir.store_scalar(y, value, 0, block * isa.lanes + lane, row, column)

        def body() -> None:
            one_row = pack_row if packing else unpack_row
            full, tail = divmod(op.channels, isa.lanes)
            with ir.parallel(0, schedule.row_tasks) as task:
                first = task * op.height // schedule.row_tasks
                last = (task + 1) * op.height // schedule.row_tasks
                with ir.loop(first, last) as row:
                    if full:
                        with ir.serial(0, full) as block:
                            one_row(block, row, isa.lanes)
                    if tail:
                        one_row(full, row, tail)

        return body

    return ir.prim_func(op.direction, signature)


def _emit_retyped(op: Convert, schedule: ConvertSchedule, isa: Isa) -> Any:  # noqa: ANN401
    wide = isa.wide
    before, after = (isa, wide) if op.direction == "widen" else (wide, isa)
    tail = op.channels % isa.lanes

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = Map(before, f, "x", *op.output)
        coded = codes_of(isa, f, 1)
        y = Map(after, f, "y", *op.output)

        def body() -> None:
            with (
                ir.parallel(0, schedule.row_tasks) as task,
                ir.loop(*row_range(task, schedule.row_tasks, op.height)) as row,
                ir.serial(0, x.blocks) as block,
                ir.serial(0, op.width) as column,
            ):
                value = x.vector(block, row, column)
                if tail:  # what a product of pairs reads beside the last channel is a zero
                    real = ir.first_lanes(tail, isa.lanes)
                    last = ir.splat(block == x.blocks - 1, isa.lanes)
                    padding = ir.both(last, ir.negate(real))
                    value = ir.select(padding, ir.const(0, isa.lanes), value)
                value = _coded(op, coded, value, isa.lanes)
                y.store(block, row, column, value)

        return body

    return ir.prim_func(op.direction, signature)
