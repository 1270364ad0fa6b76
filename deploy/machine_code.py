"""From a lowered module to machine code: each kernel by itself, on all cores, then linked.

What is left of the module, its entries, is code of TVM's virtual machine, which calls the kernels
by name.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import tvm
from tvm import relax
from tvm.relax import vm_build

from deploy.kernels.lowering import PIPELINE
from deploy.link import fcompile_of
from deploy.targets import Target
from lut.errors import UserError

T = TypeVar("T")


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
    return entries, {var.name_hint: function for var, function in left.functions.items()}


def compile_kernel(name: str, function: tvm.tirx.PrimFunc, target: Target) -> tvm.runtime.Module:
    """A library of one function, which is called `name`."""
    module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
    return tvm.tirx.build(module, tvm.target.Target(target.config), PIPELINE)


def write_object(library: tvm.runtime.Module, path: Path) -> None:
    """The object file of what `compile_kernel` gave; it is now that LLVM selects instructions."""
    library.write_to_file(str(path))


def load_entries(
    entries: relax.ExecBuilder, libraries: Sequence[tvm.runtime.Module], target: Target
) -> relax.VirtualMachine:
    """Entries and the kernels that they call, in this process, without linking."""
    config = tvm.target.Target(target.config)
    return relax.VirtualMachine(vm_build._vmlink(entries, config, ext_libs=[*libraries]), tvm.cpu())


def link_objects(
    entries: relax.ExecBuilder, objects: Sequence[Path], target: Target, path: Path
) -> None:
    """A shared library of entries and the kernels that they call; raises UserError where nothing
    is found that can link."""
    executable = vm_build._vmlink(entries, tvm.target.Target(target.config))
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


def on_all_cores(work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """`work` of each name. TVM's compiler and LLVM hold no lock of Python's."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(work, names))
