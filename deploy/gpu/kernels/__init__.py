"""Scheduled tensor programs for GPUs: one file per kernel, all of one shape.

Every module has a frozen ``...Spec`` (what changes the numbers) and a ``...Schedule`` (what does
not), ``default_schedule(spec)``, the rule, ``alternatives(spec, best)``, what tuning measures while
`best` is the fastest known (the rule's own may be among it), ``pack(spec, ...)``, which takes the
schedule where the constants' layout is its, and ``emit(spec, schedule)``. The PrimFunc takes the
maps, the packed constants in the order in which `pack` returns them, and the output; it becomes one
kernel. Maps are planar float32 (1, C, H, W); `deploy.gpu.store_half` makes them float16.
Here a spec finds its module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from deploy.cpu.choice import Fields, with_fields
from deploy.gpu.kernels import depthwise, global_mean, label_end, pointwise, resize, stem

# Tuning records and latency tables are believed for one version only: raise it when a kernel's
# loops, its rule or the meaning of a schedule's fields change.
GPU_KERNELS_VERSION = 1

MODULES: dict[type, ModuleType] = {
    depthwise.DepthwiseSpec: depthwise,
    global_mean.GlobalMeanSpec: global_mean,
    label_end.LabelEndSpec: label_end,
    pointwise.PointwiseSpec: pointwise,
    resize.ResizeSpec: resize,
    stem.StemSpec: stem,
}


def name_of(spec: object) -> str:
    """The kernel's name: that of its module."""
    return MODULES[type(spec)].__name__.rpartition(".")[2]


@dataclass(frozen=True)
class GpuChooser:
    """Gives specs their schedules and PrimFuncs, as `deploy.graph.kernel_call` asks a chooser to.

    `measured` and `emitted` are those of `deploy.cpu.choice.Chooser`.
    """

    measured: Mapping[str, Fields] = field(default_factory=dict)
    emitted: dict[str, Any] = field(default_factory=dict)

    def rule(self, spec: Any) -> Any:  # noqa: ANN401
        """What the kernel's module chooses without measuring."""
        return MODULES[type(spec)].default_schedule(spec)

    def schedule(self, spec: Any) -> Any:  # noqa: ANN401
        """The schedule of `spec`: the measured one, else the rule's."""
        rule, values = self.rule(spec), self.measured.get(repr(spec))
        return rule if values is None else with_fields(rule, values)

    def emit(self, spec: Any) -> Any:  # noqa: ANN401
        """The PrimFunc of a spec."""
        self.emitted[repr(spec)] = spec
        return MODULES[type(spec)].emit(spec, self.schedule(spec))
