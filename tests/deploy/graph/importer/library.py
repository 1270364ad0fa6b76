"""Many small graphs in one library: LLVM starts once, and equal loop nests are compiled once."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.relax import vm_build

from deploy.cpu.lowering import PIPELINE
from deploy.cpu.machine_code import link_objects
from deploy.cpu.pipeline import make_kernels, network_passes
from deploy.graph.passes import passes_before, run_passes
from deploy.ir import EMITTED
from deploy.targets import resolve_target
from tests.conditions import require_features

TARGET = "x86-64-v3"  # AVX2
_OF_A_NETWORK = ("SplitOutputs", "NameKernels", "InsertClock")  # of ``main`` and ``logits`` alone


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
            lowered = run_passes(builder.get(), steps)
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
        link_objects(lowered, objects, target, path)
        self.machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())

    def run(self, name: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What a graph makes of its inputs."""
        tensors = [tvm.runtime.tensor(np.array(array, order="C")) for array in inputs]
        outputs = self.machine[self.entries[name]](*tensors)
        if not isinstance(outputs, Sequence):
            outputs = [outputs]
        return [output.numpy() for output in outputs]


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
