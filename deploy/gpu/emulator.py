"""CUDA source executed on this machine's CPU, thread by thread: the proof of the numbers where
there is no GPU.

The very source that the GPU's compiler gets is compiled by the C++ compiler that links the CPU's
libraries, under headers (`emulator.h`, `emulator_fp16.h`) that give CUDA's words their meaning: a
block's threads run one after the other, each up to the next barrier, so that a missing barrier
shows as a wrong number in one of the two orders that there are. What a warp does together
(shuffles, which TVM's own reductions use) it does warp by warp. Slow; it says nothing of speed.
"""

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.gpu.plan import Plan
from deploy.gpu.program import GpuProgram, result_of
from deploy.metadata import Metadata
from lut.errors import UserError, WorkError

# What CUDA's headers are in emulation.
_HEADERS = {
    "cuda.h": Path(__file__).with_name("emulator.h"),
    "cuda_fp16.h": Path(__file__).with_name("emulator_fp16.h"),
}
_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(([^)]*)\) {')
_WAITS = re.compile(r"\b(__syncthreads|__activemask|__shfl_\w+)\(")  # for other threads


class NoCompilerError(UserError):
    """This machine has no C++ compiler."""


class EmulatedGpu:
    """Kernels of one source, and memory to run them on."""

    def __init__(self, source: str) -> None:
        library = compile_source(source)
        self._library = ctypes.CDLL(str(library))
        library.unlink()  # the mapping stays

    def launch(
        self,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        addresses: list[int],
        *,
        backwards: bool = False,
    ) -> None:
        """Run one kernel on memory at these addresses, the threads in one order or the other.
        Raises WorkError where threads wait for ever."""
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        sizes = (ctypes.c_uint * 6)(*grid, *block)
        if getattr(self._library, f"emulate_{kernel}")(pointers, sizes, int(backwards)):
            raise WorkError(f"emulating a GPU: threads of {kernel} wait for others for ever")


class EmulatedProgram:
    """A network for CUDA on this machine's CPU (`deploy.loaders.LoadedCode`)."""

    def __init__(
        self, source: str, program: GpuProgram, metadata: Metadata,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._network = EmulatedNetwork(source, program.plan, program.constants)
        self._metadata = metadata
        self._on_step = on_step
        self._runs = 0

    def run(self, entry: str, given: NDArray[Any]) -> NDArray[Any]:
        """As `deploy.loaders.LoadedCode.run`; `on_step` is told each kernel, as a run may take
        minutes."""
        self._runs += 1

        def tell(number: int, count: int) -> None:
            self._on_step(f"emulating, run {self._runs}: kernel {number} of {count}")

        return result_of(self._network.run(given, entry, tell), entry, self._metadata)


class EmulatedNetwork:
    """A plan with its source and constants, run by `EmulatedGpu`."""

    def __init__(self, source: str, plan: Plan, constants: bytes) -> None:
        self.plan = plan
        self._gpu = EmulatedGpu(source)
        # Every byte 0xff: a number that is read before it was written is a NaN.
        self._arena = np.full(plan.arena_bytes + 256, 0xFF, np.uint8)
        offset = -self._arena.ctypes.data % 256
        self._bytes = self._arena[offset : offset + plan.arena_bytes]
        self._bytes[: len(constants)] = np.frombuffer(constants, np.uint8)

    def run(
        self, given: NDArray[Any], entry: str = "main",
        on_launch: Callable[[int, int], None] = lambda _number, _count: None,
    ) -> NDArray[np.uint8]:  # fmt: skip
        """The bytes of the entry's output."""
        start = self.plan.input.offset
        self._bytes[start : start + given.nbytes] = (
            np.ascontiguousarray(given).view(np.uint8).ravel()
        )
        base = self._bytes.ctypes.data
        todo = self.plan.entries[entry]
        for number, launch in enumerate(todo.launches, 1):
            on_launch(number, len(todo.launches))
            addresses = [base + region.offset for region in launch.arguments]
            self._gpu.launch(launch.kernel, launch.grid, launch.block, addresses)
        output = todo.output
        return self._bytes[output.offset : output.offset + output.size].copy()


def compile_source(source: str) -> Path:
    """A library, the caller's to delete, with ``emulate_KERNEL`` and ``arguments_KERNEL`` for every
    kernel; raises NoCompilerError, and WorkError where the compiler does not take the source."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise NoCompilerError(
            "emulating a GPU needs a C++ compiler such as g++, or its name in CXX"
        )
    wrappers = [
        f"EMULATE({name}, {int(_WAITS.search(_body(source, name)) is not None)})"
        for name, _ in _KERNEL.findall(source)
    ]
    with tempfile.TemporaryDirectory(prefix="hmseg-emulate-") as folder:
        code, library = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        for header, text in _HEADERS.items():
            (Path(folder) / header).write_text(text.read_text())
        code.write_text("\n".join([source, *wrappers]))
        command = [compiler, "-std=c++17", "-O2", "-shared", "-fPIC", "-w", f"-I{folder}"]
        done = subprocess.run(
            [*command, "-o", str(library), str(code)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or [
                "no word why"
            ]
            raise WorkError(f"emulating a GPU: {compiler} failed: {lines[0][-300:]}")
        kept, name = tempfile.mkstemp(suffix=".so", prefix="hmseg-emulate-")
        os.close(kept)
        shutil.move(library, name)
    return Path(name)


def _body(source: str, kernel: str) -> str:
    start = re.search(rf"\b{kernel}\([^)]*\) {{", source)
    assert start is not None
    return source[start.end() : source.index("\n}", start.end())]
