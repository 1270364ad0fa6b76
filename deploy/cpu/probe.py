"""The ceilings of a machine, as kernels: multiply-adds that touch no memory, of floats and in low
precision, and reads."""

from dataclasses import dataclass
from typing import Any

from deploy import ir
from deploy.cpu.isa import Isa


@dataclass(frozen=True)
class FmaProbeSpec:
    """`tasks` parallel chains, each of `steps` rounds of FMAs on independent registers."""

    tasks: int
    steps: int = 20000

    def macs(self, isa: Isa) -> int:
        """Multiply-accumulates of one call, all lanes."""
        return self.tasks * self.steps * _chains(isa) * isa.lanes * isa.element.group


@dataclass(frozen=True)
class ReadProbeSpec:
    """`tasks` parallel sums over `floats` each, `rounds` times: choose floats by the cache."""

    tasks: int
    floats: int
    rounds: int

    @property
    def bytes(self) -> int:
        """Bytes read by one call."""
        return self.tasks * self.floats * self.rounds * 4


def emit_fma(spec: FmaProbeSpec, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(seed (2,), out (tasks, lanes)): acc = acc * seed[0] + seed[1] in every chain."""
    c, chains = isa.lanes, _chains(isa)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        seed, out = f.param("seed", (2,)), f.param("out", (spec.tasks, c))

        def body() -> None:
            with ir.parallel(0, spec.tasks) as task:
                a = ir.bind(ir.splat(seed[0], c))
                b = ir.bind(ir.splat(seed[1], c))
                acc = ir.Registers(chains, c)
                for i in range(chains):
                    acc[i] = ir.const(float(i), c)
                with ir.serial(0, spec.steps):
                    for i in range(chains):
                        acc[i] = acc[i] * a + b
                for i in range(1, chains):
                    acc[0] = acc[0] + acc[i]
                ir.store(out, acc[0], task, 0, lanes=c)

        return body

    return ir.prim_func("fma_probe", signature)


def emit_dot(spec: FmaProbeSpec, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(seed int32 (2,), out (tasks, lanes)): every chain sums the products of a group of
    the element's numbers, whose bits are a seed's; as many times the FMA's as it takes at once."""
    c, chains, element = isa.lanes, _chains(isa), isa.element

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        seed, out = f.param("seed", (2,), "int32"), f.param("out", (spec.tasks, c))

        def body() -> None:
            with ir.parallel(0, spec.tasks) as task:
                factors = ir.Registers(2, c, "int32")
                for i in range(2):
                    factors[i] = ir.splat(seed[i], c)
                acc = ir.Registers(chains, c, element.sums)
                for i in range(chains):
                    start = ir.const_int(i, c) if element.integer else ir.const(float(i), c)
                    acc[i] = start
                with ir.serial(0, spec.steps):
                    for i in range(chains):
                        acc[i] = element.dot(acc[i], factors[0], factors[1], c)
                for i in range(1, chains):
                    acc[0] = acc[0] + acc[i]
                ir.store(out, ir.cast(acc[0], "float32", c), task, 0, lanes=c)

        return body

    return ir.prim_func("dot_probe", signature)


def emit_read(spec: ReadProbeSpec, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x (tasks, floats), out (tasks, lanes)): the sum of what was read."""
    c, width = isa.lanes, 8

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x, out = f.param("x", (spec.tasks, spec.floats)), f.param("out", (spec.tasks, c))

        def body() -> None:
            with ir.parallel(0, spec.tasks) as task:
                acc = ir.Registers(width, c)
                for i in range(width):
                    acc[i] = ir.const(0.0, c)
                with (
                    ir.serial(0, spec.rounds),
                    ir.serial(0, spec.floats // (width * c)) as step,
                ):
                    for i in range(width):
                        acc[i] = acc[i] + ir.load(x, task, (step * width + i) * c, lanes=c)
                for i in range(1, width):
                    acc[0] = acc[0] + acc[i]
                ir.store(out, acc[0], task, 0, lanes=c)

        return body

    return ir.prim_func("read_probe", signature)


def emit_ones(spec: ReadProbeSpec, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x (tasks, floats)): ones for `emit_read`, written by the tasks that read them."""
    c = isa.lanes

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", (spec.tasks, spec.floats))

        def body() -> None:
            with ir.parallel(0, spec.tasks) as task, ir.serial(0, spec.floats // c) as step:
                ir.store(x, ir.const(1.0, c), task, step * c, lanes=c)

        return body

    return ir.prim_func("ones", signature)


def _chains(isa: Isa) -> int:
    # Enough to hide the latency on every port, with room for the two operands.
    return isa.registers - 4
