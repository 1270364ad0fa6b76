"""Scheduled tensor programs for CPUs: one file per kernel, all of one shape.

Every kernel module has a frozen ``...Spec`` (what changes the numbers), a frozen ``...Schedule``
(what changes only the speed), and ``default_schedule(spec, isa, threads)``, ``pack(spec, isa,
...)`` and ``emit(spec, schedule, isa)``. The PrimFunc takes the activations, the packed constants
in the order in which `pack` returns them, and the output. Here a spec finds its module.
"""

from types import ModuleType
from typing import Any

from deploy.cpu.isa import Isa
from deploy.cpu.kernels import (
    convert,
    depthwise,
    ends,
    global_pool,
    inverted_residual,
    local_global,
    pointwise,
    resize,
    stem,
    stem_block,
    stem_pair,
    upsample_add,
)

# Raised when a schedule's meaning or a kernel's speed changes: older tuning records are not used.
KERNELS_VERSION = 3

MODULES: dict[type, ModuleType] = {
    convert.ConvertSpec: convert,
    depthwise.DepthwiseSpec: depthwise,
    ends.EndSpec: ends,
    global_pool.GlobalPoolSpec: global_pool,
    inverted_residual.InvertedResidualSpec: inverted_residual,
    local_global.LocalGlobalSpec: local_global,
    pointwise.PointwiseSpec: pointwise,
    resize.ResizeSpec: resize,
    stem.StemSpec: stem,
    stem_block.StemBlockSpec: stem_block,
    stem_pair.StemPairSpec: stem_pair,
    upsample_add.UpsampleAddSpec: upsample_add,
}


def module_of(spec: object) -> ModuleType:
    """The kernel module of a spec; KeyError for any other object."""
    return MODULES[type(spec)]


def emit(spec: Any, isa: Isa, *, schedule: Any = None, threads: int = 2) -> Any:  # noqa: ANN401
    """The PrimFunc of a spec, by the rule unless a schedule is given."""
    module = module_of(spec)
    if schedule is None:
        schedule = module.default_schedule(spec, isa, threads)
    return module.emit(spec, schedule, isa)
