"""Convolutions of each channel by itself that make several of it, on blocked activations.

Output channel o reads input channel o // times. A task has some rows of one block of output
channels. It copies the rows of the input that these read, each channel as often as it is read and
with zeros around them, so that its loops know of no borders.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.kernels import conv_depthwise
from deploy.cpu.layout import Array
from deploy.cpu.rows.epilogue import Epilogue
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.slide import WIDE, slides_of
from deploy.cpu.tiles import accumulate_row, best_depthwise_px
from lut.ops import Conv


@dataclass(frozen=True)
class ConvMultipliedSchedule:
    """Pixels per register tile, and output rows of a task."""

    px: int
    rows: int


def supports(op: Conv) -> bool:
    """Two or more output channels of each input channel, without zeros between its elements."""
    multiplied = op.cin == (op.groups,) and op.cout > op.groups > 1
    return multiplied and op.spread == (1, 1) and op.source == "maps" and op.kernel[1] <= WIDE


def default_schedule(op: Conv, isa: Isa, threads: int = 2) -> ConvMultipliedSchedule:
    """Rows that stay in half of L1, and tasks enough for all threads."""
    rows, columns = slides_of(op)
    line = 4 * isa.lanes * _reach(columns.out, columns.kernel, columns.stride, columns.dilation)

    def size(count: int) -> int:
        return line * _reach(count, rows.kernel, rows.stride, rows.dilation)

    count = rows.out
    while count > 1 and (
        size(count) > isa.l1_bytes // 2 or isa.blocks(op.cout) * -(-rows.out // count) % threads
    ):
        count -= 1
    return ConvMultipliedSchedule(best_depthwise_px(isa, op.kernel[1], columns.out), count)


def _reach(outputs: int, kernel: int, stride: int, dilation: int) -> int:
    return (outputs - 1) * stride + (kernel - 1) * dilation + 1


def pack(op: Conv, isa: Isa, weight: Array, bias: Array, steps: list[Array],
         normalisation: None = None) -> list[NDArray[Any]]:  # fmt: skip
    """As `conv_depthwise`'s."""
    return conv_depthwise.pack(op, isa, weight, bias, steps, normalisation)


def emit(op: Conv, schedule: ConvMultipliedSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, other maps, weight, bias, vectors, y)."""
    blocks, c = isa.blocks(op.cout), isa.lanes
    times = op.cout // op.groups
    rows, columns = slides_of(op)
    count = min(schedule.rows, rows.out)
    bands = -(-rows.out // count)
    high = _reach(count, rows.kernel, rows.stride, rows.dilation)
    wide = _reach(columns.out, columns.kernel, columns.stride, columns.dilation)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.groups, op.height, op.width)
        epilogue = Epilogue(isa, op.then, op.output)
        epilogue.operands(f)
        weight = f.param("weight", (blocks, op.kernel[0] * op.kernel[1], c))
        bias = f.param("bias", (blocks, c))
        epilogue.constants(f)
        y = Map(isa, f, "y", *op.output)

        def fill(band: ir.Buffer, block: ir.Expr, top: ir.Expr) -> None:
            """The rows from `top` of the input on, which may lie outside it."""
            low, high_column = max(0, columns.pad), min(wide, op.width + columns.pad)
            with ir.serial(0, high) as row:
                source = ir.bind(top + row)
                here = ir.both(source >= 0, source < op.height)
                with ir.when(here):
                    with ir.then():
                        _clear(band, row, 0, low)
                        with ir.serial(0, c) as lane:
                            channel = ir.bind(
                                ir.minimum((block * c + lane) // times, op.groups - 1)
                            )
                            at, of = ir.bind(channel // c), ir.bind(channel % c)
                            with ir.loop(low, high_column) as column:
                                value = x.row(source).value(at, column - columns.pad, of)
                                ir.store_scalar(band, value, (row * wide + column) * c + lane)
                        _clear(band, row, high_column, wide)
                    with ir.otherwise():
                        _clear(band, row, 0, wide)

        def _clear(band: ir.Buffer, row: ir.Expr, first: int, last: int) -> None:
            if first < last:
                with ir.loop(first, last) as column:
                    ir.store(band, ir.const(0, c), (row * wide + column) * c, lanes=c)

        def one_row(band: ir.Buffer, block: ir.Expr, top: ir.Expr, i: ir.Expr) -> None:
            def tile(begin: ir.Expr, px: int) -> None:
                acc = ir.Registers(px, c)
                for p in range(px):
                    acc[p] = ir.load(bias, block, 0, lanes=c)
                with ir.serial(0, rows.kernel) as ky:
                    tap = ir.bind(ky * columns.kernel)
                    at = ir.bind(
                        (i * rows.stride + ky * rows.dilation) * wide + begin * columns.stride
                    )
                    accumulate_row(
                        acc, px, columns.kernel, columns.stride, columns.dilation,
                        x=lambda j: ir.load(band, (at + j) * c, lanes=c),
                        w=lambda kx: ir.load(weight, block, tap + kx, 0, lanes=c),
                        valid=lambda p, k: True,
                    )  # fmt: skip
                epilogue.store(y, acc, (top + i, begin), (1, px), (1, 1), block, 1)

            ir.over_tiles(columns.out, min(schedule.px, columns.out), tile)

        def body() -> None:
            with ir.parallel(0, blocks * bands) as index:
                block = ir.bind(index // bands)
                # The last one overlaps: the same values are written twice.
                top = ir.bind(ir.minimum(index % bands * count, rows.out - count))
                band = ir.scratch(high * wide * c)
                fill(band, block, ir.bind(rows.start(top)))
                with ir.serial(0, count) as i:
                    one_row(band, block, top, i)

        return body

    return ir.prim_func("conv_multiplied", signature)
