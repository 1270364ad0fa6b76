"""From the deployable ONNX graph to a library: one list of passes, read from top to bottom."""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import tvm
from tvm import relax

from deploy.artifact import KernelInfo
from deploy.cpu.isa import AVX2, AVX512, NEON, Isa
from deploy.cpu.kernels import CpuKernels
from deploy.cpu.machine_code import (
    compile_kernel,
    link_objects,
    load_entries,
    on_all_cores,
    split_entries,
    write_object,
)
from deploy.cpu.passes.cancel_layouts import CancelLayouts
from deploy.cpu.passes.insert_clock import InsertClock, called_functions
from deploy.cpu.passes.propagate_layouts import PropagateLayouts
from deploy.cpu.passes.schedule_fallback import ScheduleFallback
from deploy.graph.ends import with_logits_output
from deploy.graph.importer import import_graph
from deploy.graph.place import KERNEL, MACS, OPERATION, Place
from deploy.graph.split_outputs import SplitOutputs
from deploy.schedules import Fields
from deploy.target import Target

Pass: TypeAlias = tvm.transform.Pass
OnPass = Callable[[str], None]
_SSE_LANES = 4  # floats in a register of the instruction sets without kernels


def network_passes(kernels: CpuKernels | None = None) -> list[Pass]:
    """Every pass between the imported graph and the virtual machine's code, in order."""
    return [
        *lowering_passes(kernels),
        _schedule_fallback(kernels),
        # To the virtual machine: memory is planned once, kernels are called directly.
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]


def lowering_passes(kernels: CpuKernels | None = None) -> list[Pass]:
    """Those of `network_passes` that decide which kernels there are: ours, and TVM's loop nests."""
    return [
        *kernel_passes(kernels),
        SplitOutputs(),
        # What no kernel of ours covers: each operator becomes a loop nest, neighbours are fused.
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]


def kernel_passes(kernels: CpuKernels | None) -> list[Pass]:
    """The passes that place our kernels; none without kernels, for an instruction set that has none
    (x86-64 below AVX2): all is left to TVM."""
    if kernels is None:
        return []
    return [Place(kernels), PropagateLayouts(kernels), CancelLayouts()]


def _schedule_fallback(kernels: CpuKernels | None) -> Pass:
    if kernels is None:
        return ScheduleFallback(_SSE_LANES, {})
    return ScheduleFallback(kernels.isa.lanes, kernels.measured)


def make_kernels(target: Target, threads: int, measured: Mapping[str, Fields]) -> CpuKernels | None:
    """A kernels for a target; None for an instruction set without kernels."""
    isa = isa_of(target)
    return None if isa is None else CpuKernels(isa, threads, measured)


def isa_of(target: Target) -> Isa | None:
    """The widest instruction set with kernels that the target's features allow."""
    features = set(target.features)
    if "neon" in features:
        return NEON
    if "avx512f" in features:
        return AVX512
    return AVX2 if {"avx2", "fma"} <= features else None


@dataclass(frozen=True)
class Compiled:
    """A network in machine code, not linked yet, and how it came about."""

    module: tvm.IRModule  # lowered; its entries call the kernels
    libraries: Mapping[str, tvm.runtime.Module]  # the kernels, by name
    target: Target
    kernels: tuple[KernelInfo, ...]
    calls: tuple[str, ...]  # the kernels that a frame calls, by name, in order
    seconds: float

    def load(self) -> relax.VirtualMachine:
        """Run it in this process, without linking it."""
        return load_entries(self.module, [*self.libraries.values()], self.target)

    def save(self, path: Path) -> None:
        """Link the shared library; raises UserError where nothing is found that can."""
        with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
            # Numbered: the name of a kernel that TVM fused may be longer than a file's can be.
            paths = {
                name: Path(folder) / f"kernel{number}.o"
                for number, name in enumerate(self.libraries)
            }
            on_all_cores(lambda name: write_object(self.libraries[name], paths[name]), paths)
            link_objects(self.module, [*paths.values()], self.target, path)


def compile_graph(
    model: onnx.ModelProto,
    target: Target,
    *,
    kernels: CpuKernels | None = None,
    passes: Sequence[Pass] | None = None,
    on_pass: OnPass | None = None,
) -> Compiled:
    """Compile a graph with both ends for `target`.

    The library's entries: ``main(image)`` gives the graph's output; where that is the label map,
    ``logits(image)`` gives the class scores behind it, from the same kernels; ``timed(image,
    ticks)`` is ``main`` for measuring (`InsertClock`). `on_pass` is told each pass's name before it
    runs. `kernels` gives our kernels their schedules (`make_kernels`); without one everything is
    left to TVM. Raises UserError for an operator that TVM does not know.
    """
    start = time.perf_counter()
    module = lower_graph(model, target, kernels=kernels, passes=passes, on_pass=on_pass)
    if on_pass:
        on_pass("machine code")
    described = describe_kernels(module, kernels.measured if kernels else {})
    clock: Pass = InsertClock()
    module = clock(module)
    _, functions = split_entries(module)
    libraries = on_all_cores(lambda name: compile_kernel(name, functions[name], target), functions)
    return Compiled(
        module, dict(zip(functions, libraries, strict=True)), target, described,
        tuple(called_functions(module["main"])), time.perf_counter() - start,
    )  # fmt: skip


def lower_graph(
    model: onnx.ModelProto,
    target: Target,
    *,
    kernels: CpuKernels | None = None,
    passes: Sequence[Pass] | None = None,
    on_pass: OnPass | None = None,
) -> tvm.IRModule:
    """`compile_graph` up to machine code: the module of kernels and the entries that call them."""
    module = import_graph(with_logits_output(model))
    context = tvm.transform.PassContext(instruments=watching(on_pass))
    with tvm.target.Target(target.config), context:
        for step in network_passes(kernels) if passes is None else passes:
            module = step(module)
    return module


def describe_kernels(
    module: tvm.IRModule, measured: Mapping[str, Fields]
) -> tuple[KernelInfo, ...]:
    """What each PrimFunc of a lowered module computes."""
    return tuple(
        _describe(var.name_hint, function, measured)
        for var, function in module.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    )


def watching(on_pass: OnPass | None) -> list[tvm.instrument.PassInstrument]:
    """The instruments that tell `on_pass` the names of the passes as they start."""
    return [_Watch(on_pass)] if on_pass else []


def _describe(name: str, function: tvm.tirx.PrimFunc, measured: Mapping[str, Fields]) -> KernelInfo:
    attrs = function.attrs
    size = sum(
        math.prod(int(side) for side in buffer.shape) * np.dtype(str(buffer.dtype)).itemsize
        for buffer in function.params
        if isinstance(buffer.ty, tvm.tirx.BufferType)
    )
    spec = str(attrs[OPERATION]) if OPERATION in attrs else ""
    template, macs = (str(attrs[KERNEL]), int(attrs[MACS])) if KERNEL in attrs else ("tvm", 0)
    return KernelInfo(name, template, spec, macs, size, tuned=spec in measured)


@tvm.instrument.pass_instrument
class _Watch:
    """Reports the names of the passes as they start."""

    def __init__(self, on_pass: OnPass) -> None:
        self.on_pass = on_pass

    def run_before_pass(self, _module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
        self.on_pass(info.name)
