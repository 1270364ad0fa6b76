"""Scheduled tensor programs for GPUs: one file per kernel, all of one shape.

Every module has a frozen ``...Spec`` (what changes the numbers), ``pack(spec, ...)`` and
``emit(spec)``, with the schedule's rule inside. The PrimFunc takes the maps, the packed constants
in the order in which `pack` returns them, and the output; it becomes one kernel. Maps are planar
float32 (1, C, H, W); `deploy.gpu.passes.store_half` makes them float16. Here a spec finds its
module.
"""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from deploy.gpu.kernels import depthwise, global_mean, label_end, pointwise, resize, stem

# Raised when a kernel's speed changes: older latency tables are not gone on with.
KERNELS_VERSION = 1

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
    """Gives specs their PrimFuncs; what `deploy.passes.kernel_call` asks of a chooser."""

    emitted: dict[str, Any] = field(default_factory=dict)

    def emit(self, spec: Any) -> Any:  # noqa: ANN401
        """The PrimFunc of a spec."""
        self.emitted[repr(spec)] = spec
        return MODULES[type(spec)].emit(spec)
