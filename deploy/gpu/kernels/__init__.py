"""Scheduled tensor programs for GPUs: one file per kernel, all of one shape.

Every module has a frozen ``...Schedule`` (what changes only the speed), ``default_schedule(op)``,
the rule, ``alternatives(op, best)``, what tuning measures while `best` is the fastest known (the
rule's own may be among it), ``pack(op, schedule, ...)``, which takes what the operation's matcher
found, and ``emit(op, schedule)``. The PrimFunc takes the maps, the packed constants in the order in
which `pack` returns them, and the output; it becomes one kernel. Maps are planar float32
(1, C, H, W); `deploy.gpu.store_half` makes them float16. Here an operation finds its module.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from deploy.gpu.kernels import arg_max, depthwise, global_mean, label_end, pointwise, resize, stem
from deploy.graph.place import Layout
from deploy.schedules import Fields, with_fields
from lut import ops
from lut.ops import DType, Operation

# Tuning records and latency tables are believed for one version only: raise it when a kernel's
# loops, its rule or the meaning of a schedule's fields change.
GPU_KERNELS_VERSION = 1

MODULES: dict[type[Operation], ModuleType] = {
    ops.ArgMax: arg_max,
    ops.Depthwise: depthwise,
    ops.GlobalMean: global_mean,
    ops.Labels: label_end,
    ops.Pointwise: pointwise,
    ops.Resize: resize,
    ops.Stem: stem,
}


@dataclass(frozen=True)
class GpuKernels:
    """`deploy.graph.place.Kernels` of GPUs.

    `measured` are those of `deploy.cpu.kernels.CpuKernels`.
    """

    measured: Mapping[str, Fields] = field(default_factory=dict)

    exact = False  # no kernel here rounds more than the plain sum

    def has(self, op: Operation) -> bool:
        """As `Kernels.has`."""
        return type(op) in MODULES and (not isinstance(op, ops.ArgMax) or arg_max.has(op))

    def exactly(self, op: Operation) -> Operation:
        """As `Kernels.exactly`."""
        return op

    def rule(self, op: Operation) -> Any:  # noqa: ANN401 - a Schedule
        """What the kernel's module chooses without measuring."""
        return MODULES[type(op)].default_schedule(op)

    def schedule(self, op: Operation) -> Any:  # noqa: ANN401 - a Schedule
        """The schedule of an operation: the measured one, else the rule's."""
        rule, values = self.rule(op), self.measured.get(str(op))
        return rule if values is None else with_fields(rule, values)

    def alternatives(self, op: Operation, best: Any) -> Iterator[Any]:  # noqa: ANN401 - a Schedule
        """What to measure while `best` is the fastest schedule known."""
        yield from MODULES[type(op)].alternatives(op, best)

    def emit(self, op: Operation) -> Any:  # noqa: ANN401 - a PrimFunc
        """As `Kernels.emit`."""
        return MODULES[type(op)].emit(op, self.schedule(op))

    def constants(self, op: Operation, weights: Mapping[str, Any]) -> list[NDArray[Any]]:
        """As `Kernels.constants`."""
        packed: list[NDArray[Any]] = MODULES[type(op)].pack(op, self.schedule(op), **weights)
        return packed

    def stored(self, op: Operation, *, scores: bool = False) -> Operation:
        """As `Kernels.stored`: of half precision `deploy.gpu.store_half` takes care later."""
        del scores
        return op

    def storage(self, dtype: DType) -> str:
        """As `Kernels.storage`."""
        return dtype

    def layout(self, op: Operation) -> Layout:
        """Planar, all of them."""
        del op
        return Layout(False, False)

    def own_shape(self, channels: int, height: int, width: int) -> tuple[int, ...]:
        """(1, C, H, W)."""
        return 1, channels, height, width
