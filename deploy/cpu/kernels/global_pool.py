"""Global average pooling and a 1x1 convolution on the result, in one kernel."""

from dataclasses import dataclass
from typing import Any

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array, activation_shape, pack_pointwise, pack_vector
from deploy.cpu.tiles import matmul_tile
from lut.ops import GlobalPool

PARALLEL_BYTES = 512 << 10  # below, a fork and join (1.5 us) costs more than it saves


@dataclass(frozen=True)
class GlobalPoolSchedule:
    """Row ranges of the sum (parallel if more than one)."""

    tasks: int


def default_schedule(op: GlobalPool, isa: Isa, threads: int = 2) -> GlobalPoolSchedule:
    """Parallel only for maps that take longer to read than threads take to start."""
    size = 4 * isa.lanes * isa.blocks(op.cin) * op.height * op.width
    return GlobalPoolSchedule(1 if size < PARALLEL_BYTES else min(threads, op.height))


def pack(op: GlobalPool, isa: Isa, weight: Array, bias: Array) -> list[Array]:
    """Constants in call order: weight (O/c, I, c), bias (O/c, c)."""
    del op
    return [pack_pointwise(isa, weight), pack_vector(isa, bias)]


def emit(op: GlobalPool, schedule: GlobalPoolSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, weight, bias, y)."""
    c, inner, outer = isa.lanes, isa.blocks(op.cin), isa.blocks(op.cout)
    tasks, group = schedule.tasks, 4

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", activation_shape(isa, op.cin, op.height, op.width))
        w, b = f.param("weight", (outer, op.cin, c)), f.param("bias", (outer, c))
        y = f.param("y", activation_shape(isa, op.cout, 1, 1))

        def body() -> None:
            sums = ir.scratch(tasks * inner * c)

            def add_up(task: Any) -> None:  # noqa: ANN401
                with ir.serial(0, inner) as block:
                    acc = ir.Registers(group, c)
                    for i in range(group):
                        acc[i] = ir.const(0, c)
                    rows = task * op.height // tasks, (task + 1) * op.height // tasks
                    with ir.loop(*rows) as row:

                        def pixels(begin: Any, size: int) -> None:  # noqa: ANN401
                            for i in range(size):
                                acc[i] = acc[i] + ir.load(x, 0, block, row, begin + i, 0, lanes=c)

                        ir.over_tiles(op.width, group, pixels)
                    for i in range(1, group):
                        acc[0] = acc[0] + acc[i]
                    ir.store(sums, acc[0], (task * inner + block) * c, lanes=c)

            if tasks == 1:
                add_up(0)
            else:
                with ir.parallel(0, tasks) as task:
                    add_up(task)
            with ir.serial(0, inner) as block:
                total = ir.load(sums, block * c, lanes=c)
                for task in range(1, tasks):
                    total = total + ir.load(sums, (task * inner + block) * c, lanes=c)
                mean = total * ir.const(1.0 / (op.height * op.width), c)
                ir.store(sums, mean, block * c, lanes=c)

            def project(first: Any, ob: int) -> None:  # noqa: ANN401
                matmul_tile(
                    isa,
                    1,
                    ob,
                    op.cin,
                    x=lambda p, block, lane: sums[block * c + lane],
                    w=lambda o, block, lane: ir.load(w, first + o, block * c + lane, 0, lanes=c),
                    init=lambda p, o: ir.load(b, first + o, 0, lanes=c),
                    finish=lambda p, o, v: ir.store(
                        y,
                        ir.activate(v, op.act, c),
                        0,
                        first + o,
                        0,
                        0,
                        0,
                        lanes=c,
                    ),
                )

            ir.over_tiles(outer, min(8, outer), project)

        return body

    return ir.prim_func("global_pool", signature)
