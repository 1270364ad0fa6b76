"""Steps on a map that no other kernel takes in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.epilogue import Epilogue, pack_steps
from deploy.cpu.rows.maps import Map
from deploy.cpu.scales import real_codes
from deploy.grid import Scales
from lut.ops import Elementwise

_PIXELS = 8  # of a register tile
_PARALLEL_BYTES = 256 << 10  # below, a fork and join (1.5 us) costs more than it saves


@dataclass(frozen=True)
class ElementwiseSchedule:
    """Pixels of a register tile, and ranges of them per channel block; 0 ranges: not parallel."""

    px: int
    tasks: int


def default_schedule(op: Elementwise, isa: Isa, threads: int = 2) -> ElementwiseSchedule:
    """Parallel only for maps that take longer to read than threads take to start."""
    blocks, pixels = isa.blocks(op.channels), op.height * op.width
    px = min(_PIXELS, pixels)
    if isa.element.bytes * isa.lanes * blocks * pixels < _PARALLEL_BYTES:
        return ElementwiseSchedule(px, 0)
    return ElementwiseSchedule(px, 1 if blocks % threads == 0 else min(threads, -(-pixels // px)))


def pack(
    op: Elementwise, isa: Isa, steps: list[Array], scales: Scales | None = None
) -> list[NDArray[Any]]:
    """The steps' vectors; in int8 ahead of them the codes of y, x and the steps' maps."""
    del op
    coded = [] if scales is None else [real_codes(scales)]
    return [*coded, *pack_steps(isa, steps)]


def emit(op: Elementwise, schedule: ElementwiseSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, other maps, constants, y)."""
    blocks, pixels, px = isa.blocks(op.channels), op.height * op.width, schedule.px
    tasks, turns = max(1, schedule.tasks), -(-pixels // px)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        epilogue = Epilogue(isa, op.then, op.output)
        epilogue.operands(f)
        epilogue.codes(f, x)
        epilogue.constants(f)
        y = Map(isa, f, "y", *op.output)

        def work(index: ir.Expr) -> None:
            source, sink = x.as_row(), y.as_row()
            block, task = ir.bind(index // tasks), ir.bind(index % tasks)
            with ir.loop(*row_range(task, tasks, turns)) as turn:
                # The last one overlaps: the same values are written twice.
                begin = ir.bind(ir.minimum(turn * px, pixels - px))
                acc = ir.Registers(px, isa.lanes)
                for p in range(px):
                    acc[p] = source.vector(block, 0, begin + p)
                epilogue.store(sink, acc, (0, begin), (1, px), (1, 1), block, 1)

        def body() -> None:
            epilogue.as_row()
            if schedule.tasks:
                with ir.parallel(0, blocks * tasks) as index:
                    work(index)
            else:
                with ir.serial(0, blocks) as index:
                    work(index)

        return body

    return ir.prim_func("elementwise", signature)
