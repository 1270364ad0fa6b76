"""The mean of every channel of a map."""

from deploy import ir
from deploy.cpu.rows.buffer import RowBuffer
from deploy.cpu.rows.codes import Code
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.stage import Keep

ONES = 0x01010101  # weights of four bytes
SUMS = 4  # of a channel block, enough to hide the latency of an addition


def add_up_bytes(x: Map, tasks: int) -> ir.Buffer:
    """The sum of every channel, int32, in the first blocks of a buffer."""
    element, lanes = x.isa.element, x.isa.lanes
    sums = ir.scratch(tasks * x.blocks * lanes, element.sums)
    flat = ir.view(x.buffer, (x.blocks * x.height * x.width * lanes,))

    def add_up(task: ir.Expr) -> None:
        with ir.serial(0, x.blocks) as block:
            acc = ir.Registers(SUMS, lanes, element.sums)
            for i in range(SUMS):
                acc[i] = ir.const_int(0, lanes)
            with ir.loop(*row_range(task, tasks, x.height)) as row:
                base = ir.bind((block * x.height + row) * x.width)

                def pixels(begin: ir.Expr, size: int, base: ir.Expr = base) -> None:
                    whole, rest = divmod(size, element.group)
                    for i in range(whole):
                        at = (base + begin + i * element.group) * lanes
                        four = element.columns(flat, at, lanes=lanes)
                        total = element.dot(acc[i], ir.const_int(ONES, lanes), four, lanes)
                        acc[i] = total + ir.const_int(element.offset * element.group, lanes)
                    for i in range(rest):
                        at = (base + begin + whole * element.group + i) * lanes
                        one = ir.cast(ir.load(flat, at, lanes=lanes), "int32", lanes)
                        acc[i] = acc[i] + one

                ir.over_tiles(x.width, SUMS * element.group, pixels)
            for i in range(1, SUMS):
                acc[0] = acc[0] + acc[i]
            ir.store(sums, acc[0], (task * x.blocks + block) * lanes, lanes=lanes)

    if tasks == 1:
        add_up(0)
    else:
        with ir.parallel(0, tasks) as task:
            add_up(task)
    with ir.serial(0, x.blocks) as block:
        total = ir.load(sums, block * lanes, lanes=lanes)
        for task in range(1, tasks):
            total = total + ir.load(sums, (task * x.blocks + block) * lanes, lanes=lanes)
        ir.store(sums, total, block * lanes, lanes=lanes)
    return sums


def average_bytes(x: Map, code: Code, keep: Keep, tasks: int) -> None:
    """The mean of every channel as a vector of quanta; the code is from sums to these."""
    lanes, sums = x.isa.lanes, add_up_bytes(x, tasks)
    with ir.serial(0, x.blocks) as block:
        total = ir.cast(ir.load(sums, block * lanes, lanes=lanes), "float32", lanes)
        keep(block, 0, code.apply(total, lanes))


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
