"""Global average pooling and a 1x1 convolution on the result, in one kernel."""

from dataclasses import dataclass
from typing import Any, Literal

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array, activation_shape, pack_pointwise, pack_vector
from deploy.cpu.tiles import matmul_tile

PARALLEL_BYTES = 512 << 10  # below, a fork and join (1.5 us) costs more than it saves


@dataclass(frozen=True)
class GlobalPoolSpec:
    """x (1, cin, H, W) -> act(W mean(x) + b) (1, cout, 1, 1)."""

    cin: int
    cout: int
    height: int
    width: int
    act: Literal["none", "relu", "relu6", "sigmoid"] = "none"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution."""
        return self.cin * self.cout


@dataclass(frozen=True)
class GlobalPoolSchedule:
    """Row ranges of the sum (parallel if more than one)."""

    tasks: int


def default_schedule(spec: GlobalPoolSpec, isa: Isa, threads: int = 2) -> GlobalPoolSchedule:
    """Parallel only for maps that take longer to read than threads take to start."""
    size = 4 * isa.lanes * isa.blocks(spec.cin) * spec.height * spec.width
    return GlobalPoolSchedule(1 if size < PARALLEL_BYTES else min(threads, spec.height))


def pack(spec: GlobalPoolSpec, isa: Isa, weight: Array, bias: Array) -> list[Array]:
    """Constants in call order: weight (O/c, I, c), bias (O/c, c)."""
    del spec
    return [pack_pointwise(isa, weight), pack_vector(isa, bias)]


def emit(spec: GlobalPoolSpec, schedule: GlobalPoolSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, weight, bias, y)."""
    c, inner, outer = isa.lanes, isa.blocks(spec.cin), isa.blocks(spec.cout)
    tasks, group = schedule.tasks, 4

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", activation_shape(isa, spec.cin, spec.height, spec.width))
        w, b = f.param("weight", (outer, spec.cin, c)), f.param("bias", (outer, c))
        y = f.param("y", activation_shape(isa, spec.cout, 1, 1))

        def body() -> None:
            sums = ir.scratch(tasks * inner * c)

            def add_up(task: Any) -> None:  # noqa: ANN401
                with ir.serial(0, inner) as block:
                    acc = ir.Registers(group, c)
                    for i in range(group):
                        acc[i] = ir.const(0, c)
                    rows = task * spec.height // tasks, (task + 1) * spec.height // tasks
                    with ir.loop(*rows) as row:

                        def pixels(begin: Any, size: int) -> None:  # noqa: ANN401
                            for i in range(size):
                                acc[i] = acc[i] + ir.load(x, 0, block, row, begin + i, 0, lanes=c)

                        ir.over_tiles(spec.width, group, pixels)
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
                mean = total * ir.const(1.0 / (spec.height * spec.width), c)
                ir.store(sums, mean, block * c, lanes=c)

            def project(first: Any, ob: int) -> None:  # noqa: ANN401
                matmul_tile(
                    isa,
                    1,
                    ob,
                    spec.cin,
                    x=lambda p, block, lane: sums[block * c + lane],
                    w=lambda o, block, lane: ir.load(w, first + o, block * c + lane, 0, lanes=c),
                    init=lambda p, o: ir.load(b, first + o, 0, lanes=c),
                    finish=lambda p, o, v: ir.store(
                        y,
                        ir.sigmoid(v) if spec.act == "sigmoid" else ir.clamp(v, spec.act, c),
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
