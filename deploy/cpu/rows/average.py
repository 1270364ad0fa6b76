"""The mean of every channel of a map."""

from deploy import ir
from deploy.cpu.rows.buffer import RowBuffer
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map

SUMS = 4  # of a channel block, enough to hide the latency of an addition


def average(x: Map, mean: RowBuffer, tasks: int) -> None:
    """Into the first blocks of `mean`, one pixel of `tasks` times the blocks of x: the others hold
    the sums of the other ranges of rows, which are added up in parallel."""
    lanes = x.isa.lanes

    def add_up(task: ir.Expr) -> None:
        with ir.serial(0, x.blocks) as block:
            acc = ir.Registers(SUMS, lanes)
            for i in range(SUMS):
                acc[i] = ir.const(0, lanes)
            with ir.loop(*row_range(task, tasks, x.height)) as row:

                def pixels(begin: ir.Expr, size: int) -> None:
                    for i in range(size):
                        acc[i] = acc[i] + x.vector(block, row, begin + i)

                ir.over_tiles(x.width, SUMS, pixels)
            for i in range(1, SUMS):
                acc[0] = acc[0] + acc[i]
            mean.store(task * x.blocks + block, 0, acc[0])

    if tasks == 1:
        add_up(0)
    else:
        with ir.parallel(0, tasks) as task:
            add_up(task)
    with ir.serial(0, x.blocks) as block:
        total = mean.vector(block, 0)
        for task in range(1, tasks):
            total = total + mean.vector(task * x.blocks + block, 0)
        mean.store(block, 0, total * ir.const(1.0 / (x.height * x.width), lanes))
