"""Many small graphs in one library: LLVM starts once, and equal loop nests are compiled once.

They have any number of inputs and outputs, so TVM's own machine runs them, not our runtime.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.relax import vm_build

from deploy.cpu.lowering import PIPELINE
from deploy.cpu.pipeline import make_kernels, network_passes
from deploy.graph.passes import passes_before, run_passes
from deploy.ir import EMITTED
from deploy.targets import resolve_target
from tests.conditions import require_features

TARGET = "x86-64-v3"  # AVX2
_OF_A_NETWORK = ("SplitOutputs", "NameKernels")  # of ``main`` and ``logits`` alone


class Library:
    """Imported modules by name, through every pass of a network, linked in `folder`."""

    def __init__(self, modules: Mapping[str, tvm.IRModule], folder: Path) -> None:
        target = resolve_target(TARGET)
        require_features(target.features)
        passes = network_passes(make_kernels(target, 2, {}))
        placing = passes_before("SplitOutputs", passes)
        builder = relax.BlockBuilder()
        self.entries = {name: f"entry{number}" for number, name in enumerate(modules)}
        config = tvm.target.Target(target.config)
        with config:
            for name, module in modules.items():
                _add(builder, run_passes(module, placing), self.entries[name])
            rest = passes[len(placing) :]
            steps = [step for step in rest if step.info.name not in _OF_A_NETWORK]
            lowered = run_passes(builder.get(), [*steps, *_to_the_machine()])
        functions = vm_build._vmcodegen(relax.ExecBuilder(), lowered).functions
        ours, others = {}, {}
        for var, function in functions.items():
            side = ours if EMITTED in (function.attrs or {}) else others
            side[var.name_hint] = function.with_attr("global_symbol", var.name_hint)
        objects = [
            _object_file(tvm.tirx.build(tvm.IRModule(side), config, pipeline))
            for side, pipeline in ((ours, PIPELINE), (others, "default"))
            if side
        ]
        path = folder / "graphs.so"
        _link(lowered, objects, config, path)
        self.machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())

    def run(self, name: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What a graph makes of its inputs."""
        tensors = [tvm.runtime.tensor(np.array(array, order="C")) for array in inputs]
        outputs = self.machine[self.entries[name]](*tensors)
        if not isinstance(outputs, Sequence):
            outputs = [outputs]
        return [output.numpy() for output in outputs]


def _to_the_machine() -> list[tvm.transform.Pass]:
    return [
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


def _link(
    lowered: tvm.IRModule, objects: Sequence[bytes], config: tvm.target.Target, path: Path
) -> None:
    entries = relax.ExecBuilder()
    vm_build._vmcodegen(entries, lowered)
    # Without a module of LLVM's at the root the constants would be compiled as text in C.
    root = tvm.tirx.build(tvm.IRModule({}), config)
    executable = relax.VMExecutable(vm_build._ffi_api.VMLink(entries, config, root, [], {}))
    parts = []
    for number, data in enumerate(objects):
        parts.append(path.with_name(f"part{number}.o"))
        parts[-1].write_bytes(data)
    executable.export_library(str(path), addons=[*map(str, parts)])


def _add(builder: relax.BlockBuilder, module: tvm.IRModule, name: str) -> None:
    """A module's ``main`` under another name, with what it calls."""
    called = {
        var.name_hint: builder.add_func(function.without_attr("global_symbol"), var.name_hint)
        for var, function in module.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    }
    main = tvm_ffi.structural_map(
        module["main"], (tvm.ir.GlobalVar, lambda var: called.get(var.name_hint, var))
    )
    builder.add_func(main.with_attr("global_symbol", name), name)


def _object_file(library: tvm.runtime.Module) -> bytes:
    with os.fdopen(os.memfd_create("hmseg"), "rb") as file:
        library.write_to_file(f"/proc/self/fd/{file.fileno()}", "o")
        return file.read()
