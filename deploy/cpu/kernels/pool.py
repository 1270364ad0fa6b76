"""Max and average pools of any window, on blocked activations, without padding copy."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.epilogue import Epilogue, pack_steps
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.slide import WIDE, Slide, slides_of
from deploy.cpu.scales import real_codes
from deploy.grid import Scales
from lut.ops import Pool

_UNROLLED = 128  # taps of a register tile


@dataclass(frozen=True)
class PoolSchedule:
    """Pixels per register tile, and row ranges per channel block (parallel)."""

    px: int
    row_tasks: int


def default_schedule(op: Pool, isa: Isa, threads: int = 2) -> PoolSchedule:
    """Whole channel blocks in parallel where there are enough of them to share evenly."""
    blocks, (_, columns) = isa.blocks(op.channels), slides_of(op)
    row_tasks = 1 if blocks % threads == 0 or blocks >= 8 * threads else threads
    first, last = columns.interior
    most = min(isa.registers - 4, max(1, _UNROLLED // columns.kernel), last - first or columns.out)
    px = 1 if columns.kernel > WIDE else max(1, most)
    return PoolSchedule(-(-columns.out // -(-columns.out // px)), min(row_tasks, op.output[1]))


def counts_of(op: Pool) -> list[Array]:
    """By how much the sums of rows and of columns are to be multiplied."""
    shares = []
    for slide in slides_of(op):
        first = np.arange(slide.out) * slide.stride - slide.pad
        places = first[:, None] + np.arange(slide.kernel) * slide.dilation
        inside = (places >= 0) & (places < slide.size) | (op.reduce == "mean_padded")
        shares.append((1 / np.maximum(inside.sum(axis=1), 1)).astype(np.float32))
    return shares


def pack(
    op: Pool, isa: Isa, steps: list[Array], scales: Scales | None = None
) -> list[NDArray[Any]]:
    """Constants in call order: in int8 the codes of y, x and the steps' maps, of means the shares
    of rows and columns, the steps' vectors."""
    coded: list[NDArray[Any]] = [] if scales is None else [real_codes(scales)]
    shares = counts_of(op) if op.reduce != "max" else []
    return [*coded, *shares, *pack_steps(isa, steps)]


def emit(op: Pool, schedule: PoolSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, other maps, constants, y)."""
    blocks, tasks, lanes = isa.blocks(op.channels), schedule.row_tasks, isa.lanes
    rows, columns = slides_of(op)
    # The largest number has the largest byte.
    in_bytes = isa.element.integer and op.reduce == "max"
    start = -math.inf if op.reduce == "max" else 0.0

    def put(acc: ir.Registers, p: int, value: ir.Expr) -> None:
        if op.reduce == "max":
            value = ir.bind(value)
            acc[p] = ir.select(value > acc[p], value, acc[p])
        else:
            acc[p] = acc[p] + value

    def read(x: Map, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> ir.Expr:
        return x.stored(block, row, column) if in_bytes else x.vector(block, row, column)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        epilogue = Epilogue(isa, op.then, op.output)
        epilogue.operands(f)
        epilogue.codes(f, x)
        shares = []
        if op.reduce != "max":
            shares = [f.param(f"share{axis}", (s.out,)) for axis, s in enumerate((rows, columns))]
        epilogue.constants(f)
        y = Map(isa, f, "y", *op.output)

        def one_row(block: ir.Expr, row: ir.Expr) -> None:
            top = ir.bind(rows.start(row))
            low, high = rows.bounds(top)

            def tile(begin: ir.Expr, px: int, valid: Callable[[int, int], bool]) -> None:
                acc = ir.Registers(px, lanes, isa.element.stored if in_bytes else "float32")
                for p in range(px):
                    acc[p] = ir.splat(ir.uint8(0), lanes) if in_bytes else ir.const(start, lanes)
                with ir.loop(low, high) as ky:
                    at = ir.bind(top + ky * rows.dilation)
                    if columns.kernel > WIDE:
                        left = ir.bind(columns.start(begin))
                        with ir.loop(*columns.bounds(left)) as kx:
                            put(acc, 0, read(x, block, at, left + kx * columns.dilation))
                    else:
                        for j, pixels in _readers(columns, px, valid):
                            value = ir.bind(read(x, block, at, columns.start(begin) + j))
                            for p in pixels:
                                put(acc, p, value)
                for p in range(px if shares else 0):
                    share = ir.bind(shares[0][row] * shares[1][begin + p])
                    acc[p] = acc[p] * ir.splat(share, lanes)
                if in_bytes:
                    acc = _numbers(x, acc, px)
                epilogue.store(y, acc, (row, begin), (1, px), (1, 1), block, 1)

            if columns.kernel > WIDE:
                with ir.serial(0, columns.out) as column:
                    tile(column, 1, lambda p, k: True)
            else:
                columns.over_tiles(schedule.px, tile)

        def body() -> None:
            with ir.parallel(0, blocks * tasks) as index:
                block, task = ir.bind(index // tasks), ir.bind(index % tasks)
                with ir.loop(*row_range(task, tasks, rows.out)) as row:
                    one_row(block, row)

        return body

    return ir.prim_func("pool", signature)


def _numbers(x: Map, stored: ir.Registers, px: int) -> ir.Registers:
    """What the bytes of a map mean."""
    lanes, numbers = x.isa.lanes, ir.Registers(px, x.isa.lanes)
    assert x.reads is not None
    for p in range(px):
        quanta = ir.cast(ir.cast(stored[p], "int32", lanes), "float32", lanes)
        numbers[p] = x.reads.apply(quanta, lanes)
    return numbers


def _readers(
    columns: Slide, px: int, valid: Callable[[int, int], bool]
) -> list[tuple[int, list[int]]]:
    """For each input column of a tile, the pixels that read it."""
    readers: dict[int, list[int]] = {}
    for p in range(px):
        for k in range(columns.kernel):
            if valid(p, k):
                readers.setdefault(p * columns.stride + k * columns.dilation, []).append(p)
    return sorted(readers.items())
