"""What the kernels of a module are, for the artifact that will hold them."""

import math
from collections.abc import Mapping

import numpy as np
import tvm

from deploy.artifact import TVM, KernelInfo
from deploy.graph.place import KERNEL, MACS, OPERATION
from deploy.schedules import Fields


def describe_kernels(
    module: tvm.IRModule, measured: Mapping[str, Fields]
) -> tuple[KernelInfo, ...]:
    """What each PrimFunc of a lowered module computes; `measured` are the schedules that have taken
    the place of the rule's, by operation."""
    return tuple(
        _describe(var.name_hint, function, measured)
        for var, function in module.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    )


def _describe(name: str, function: tvm.tirx.PrimFunc, measured: Mapping[str, Fields]) -> KernelInfo:
    attrs = function.attrs
    size = sum(
        math.prod(int(side) for side in buffer.shape) * np.dtype(str(buffer.dtype)).itemsize
        for buffer in function.params
        if isinstance(buffer.ty, tvm.tirx.BufferType)
    )
    spec = str(attrs[OPERATION]) if OPERATION in attrs else ""
    template, macs = (str(attrs[KERNEL]), int(attrs[MACS])) if KERNEL in attrs else (TVM, 0)
    return KernelInfo(name, template, spec, macs, size, tuned=spec in measured)
