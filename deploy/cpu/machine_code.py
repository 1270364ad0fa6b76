"""From a lowered module to machine code: each kernel by itself, on all cores, then linked.

What is left of the module, its entries, is code of TVM's virtual machine, which calls the kernels
by name. `vm_build`'s private functions are TVM's only way to have the two apart.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import tvm
from tvm import relax
from tvm.relax import vm_build

from deploy.cpu.link import fcompile_of
from deploy.cpu.lowering import PIPELINE
from deploy.ir import EMITTED
from deploy.target import Target
from lut.errors import UserError

T = TypeVar("T")

# Before TVM's pool binds this thread to one of them.
_CORES = len(os.sched_getaffinity(0))


def split_entries(
    module: tvm.IRModule,
) -> tuple[relax.ExecBuilder, dict[str, tvm.tirx.PrimFunc]]:
    """The entries of a lowered module, as the virtual machine's code, and its kernels by name.

    Raises UserError for an operator that TVM cannot lower.
    """
    entries = relax.ExecBuilder()
    try:
        left = vm_build._vmcodegen(entries, module)
    except tvm.error.InternalError as error:
        if "cannot emit this Relax operator" not in str(error):
            raise
        name = str(error).partition("R.")[2].partition("(")[0]
        raise UserError(
            f"TVM imports the operator {name} but cannot lower it; replace it in the network, or "
            "cut the graph before it with onnx.utils.extract_model"
        ) from error
    kernels = {var.name_hint: function for var, function in left.functions.items()}
    return entries, dict(sorted(kernels.items()))


def compile_kernel(name: str, function: tvm.tirx.PrimFunc, target: Target) -> tvm.runtime.Module:
    """A library of one function, which is called `name`: ours by the short list of passes, what
    TVM made by TVM's own."""
    module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
    pipeline = PIPELINE if EMITTED in function.attrs else "default"
    return tvm.tirx.build(module, tvm.target.Target(target.config), pipeline)


def compile_kernels(functions: dict[str, Any], target: Any) -> Any:  # noqa: ANN401
    """A runtime module of PrimFuncs by name, for tests and benchmarks of single kernels."""
    module = tvm.IRModule({n: f.with_attr("global_symbol", n) for n, f in functions.items()})
    return tvm.compile(module, target=target, tir_pipeline=PIPELINE)


def write_object(library: tvm.runtime.Module, path: Path) -> None:
    """The object file of what `compile_kernel` gave; it is now that LLVM selects instructions.

    On a full disk LLVM ends the whole process: whoever calls sees to the room.
    """
    library.write_to_file(str(path))


def load_entries(
    module: tvm.IRModule, libraries: Sequence[tvm.runtime.Module], target: Target
) -> relax.VirtualMachine:
    """The entries of a lowered module and their kernels, in this process, without linking."""
    return relax.VirtualMachine(_executable(module, libraries, target), tvm.cpu())


def link_objects(module: tvm.IRModule, objects: Sequence[Path], target: Target, path: Path) -> None:
    """A shared library of the entries of a lowered module and their kernels; raises UserError where
    nothing is found that can link."""
    executable = _executable(module, [], target)
    try:
        executable.export_library(
            str(path), addons=[*map(str, objects)], fcompile=fcompile_of(target)
        )
    except UserError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        line = str(error).strip().splitlines()[-1][:200]
        raise UserError(
            f"linking failed ({line}); install a C compiler such as gcc, or name it in CXX"
        ) from error


def _executable(
    module: tvm.IRModule, libraries: Sequence[tvm.runtime.Module], target: Target
) -> relax.VMExecutable:
    entries, _ = split_entries(module)  # anew: an ExecBuilder keeps what was linked to it
    config = tvm.target.Target(target.config)
    # Without a module of LLVM's at the root the constants would be compiled as text in C.
    root = tvm.tirx.build(tvm.IRModule({}), config)
    return relax.VMExecutable(vm_build._ffi_api.VMLink(entries, config, root, [*libraries], {}))


def on_all_cores(work: Callable[[str], T], items: Iterable[str]) -> list[T]:
    """`work` of each item, in order. TVM's compiler and LLVM hold no lock of Python's."""
    with ThreadPoolExecutor(_CORES) as pool:
        return list(pool.map(work, items))
