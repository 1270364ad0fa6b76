"""Replacing matched values by calls of GPU kernels: maps stay planar, nothing is converted."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import tvm
from numpy.typing import NDArray
from tvm import relax

from deploy.cpu.choice import Chooser
from deploy.gpu.kernels import GpuChooser, name_of
from deploy.graph.kernel_call import KernelCall, rewrite
from deploy.graph.view import Graph


def placed(
    spec: Any,  # noqa: ANN401
    inputs: Sequence[relax.Var],
    constants: Sequence[NDArray[Any]],
    output: relax.Var,
) -> KernelCall:
    """A call whose inputs and output are planar."""
    return KernelCall(
        spec=spec,
        inputs=inputs,
        constants=constants,
        output=output,
        planar_output=True,
        blocked_inputs=[False] * len(inputs),
        name=name_of(spec),
    )


def place(
    module: tvm.IRModule, chooser: GpuChooser, match: Callable[[Graph], Iterable[KernelCall]]
) -> tvm.IRModule:
    """`deploy.graph.kernel_call.rewrite` for `placed` calls."""
    # Of a chooser, calls that convert nothing need `emit` alone.
    return rewrite(module, cast(Chooser, chooser), match)
