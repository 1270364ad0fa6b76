"""Runs single GPU kernels in emulation, each buffer with a border that must stay as it was."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from deploy.gpu.emulator import EmulatedGpu
from deploy.gpu.kernels import MODULES, GpuKernels
from deploy.gpu.lower import KernelCode, lower_kernels
from deploy.gpu.store_half import FLOAT, halve
from lut.ops import Operation

Array = NDArray[Any]
BORDER = 4096  # bytes on each side; as floats they are NaN, so that reading them shows
LIMITS = {"max_threads_per_block": 1024, "max_shared_memory_per_block": 49152}
TARGET = {"kind": "cuda", "arch": "sm_61", "thread_warp_size": 32, **LIMITS}

rule = GpuKernels().rule
MAPS = ("x", "gate", "added", "y")


def cuda() -> tvm.target.Target:
    """What the kernels are lowered for."""
    return tvm.target.Target(TARGET, host={"kind": "llvm"})


class Kernels:
    """Kernels of several operations in one library, by the rule unless `schedules` has another;
    with fp16 their maps are half."""

    def __init__(
        self,
        operations: Mapping[str, Operation],
        precision: str = "fp32",
        schedules: Mapping[str, Any] | None = None,
    ) -> None:
        self.precision = precision
        functions = {
            name: MODULES[type(op)].emit(op, (schedules or {}).get(name) or rule(op))
            for name, op in operations.items()
        }
        if precision == "fp16":
            functions = {name: _half(function) for name, function in functions.items()}
        self._dtypes = {
            name: [np.dtype(str(parameter.dtype)) for parameter in function.params]
            for name, function in functions.items()
        }
        self.source, self.codes = lower_kernels(functions, cuda())
        self._gpu = EmulatedGpu(self.source)

    def run(
        self, name: str, inputs: list[Array], output: Array, *, backwards: bool = False
    ) -> Array:
        """The output of a kernel on these inputs and constants; `output` gives its shape, and its
        type unless it is half."""
        (code,) = self.codes[name]
        *dtypes, dtype = self._dtypes[name]
        output = np.empty(output.shape, dtype)
        given = [a.astype(d, order="C") for a, d in zip(inputs, dtypes, strict=True)]
        memories = [_bordered(array.tobytes()) for array in given]
        memories.append(_bordered(b"\xff" * output.nbytes))
        before = [memory.copy() for memory in memories]
        addresses = [memories[number].ctypes.data + BORDER for number in code.arguments]
        self._gpu.launch(code.kernel, code.grid, code.block, addresses, backwards=backwards)
        for memory, old in zip(memories[:-1], before[:-1], strict=True):
            np.testing.assert_array_equal(memory, old, "an input was written")
        written, old = memories[-1], before[-1]
        for border in (slice(None, BORDER), slice(-BORDER, None)):
            np.testing.assert_array_equal(written[border], old[border], "written outside")
        return written[BORDER:-BORDER].view(output.dtype).reshape(output.shape).copy()

    def code(self, name: str) -> KernelCode:
        """The one launch of a kernel."""
        (code,) = self.codes[name]
        return code


def _half(function: Any) -> Any:
    parameters = function.params
    return halve(function, [p.name in MAPS and str(p.dtype) == FLOAT for p in parameters])


def _bordered(data: bytes) -> NDArray[np.uint8]:
    size = len(data) + 2 * BORDER
    raw = np.full(size + 256, 0xFF, np.uint8)
    start = -raw.ctypes.data % 256
    memory = raw[start : start + size]
    memory[BORDER:-BORDER] = np.frombuffer(data, np.uint8)
    return memory
