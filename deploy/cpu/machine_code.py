"""From a lowered module to machine code: each kernel by itself, on all cores, then linked. A kernel
that the cache has is not compiled.

What is left of the module, its entries, is code of TVM's virtual machine, which calls the kernels
by name. `vm_build`'s private functions are TVM's only way to have the two apart.
"""

import functools
import os
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tvm
from tvm import relax
from tvm.relax import vm_build
from tvm.target import codegen

from deploy.cpu import lowering
from deploy.cpu.link import linker_of
from deploy.cpu.lowering import PIPELINE
from deploy.cpu.passes.name_kernels import PROGRAM, program_of
from deploy.ir import EMITTED
from deploy.object_cache import ObjectCache, key_of
from deploy.target import Target
from lut.errors import UserError
from lut.files import file_digest

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


def object_files(
    functions: Mapping[str, tvm.tirx.PrimFunc], target: Target, cache: ObjectCache | None = None
) -> dict[str, bytes]:
    """The object files of kernels by name: out of the cache, or compiled and put into it, on all
    cores. TVM's compiler and LLVM hold no lock of Python's."""

    def object_file(name: str) -> bytes:
        key = object_key(name, functions[name], target)
        found = None if cache is None else cache.get(key)
        if found is None:
            found = compile_kernel(name, functions[name], target)
            if cache is not None:
                cache.put(key, found)
        return found

    with ThreadPoolExecutor(_CORES) as pool:
        return dict(zip(functions, pool.map(object_file, functions), strict=True))


def object_key(name: str, function: tvm.tirx.PrimFunc, target: Target) -> str:
    """In an `ObjectCache`: of all that `compile_kernel` makes an object file from."""
    attrs = function.attrs
    program = str(attrs[PROGRAM]) if PROGRAM in attrs else program_of(function)
    return key_of("a CPU's object file", name, program, target.key, *_compiler())


def compile_kernel(name: str, function: tvm.tirx.PrimFunc, target: Target) -> bytes:
    """The object file of one function, which is called `name`: ours by the short list of passes,
    what TVM made by TVM's own."""
    module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
    pipeline = PIPELINE if EMITTED in function.attrs else "default"
    library = tvm.tirx.build(module, tvm.target.Target(target.config), pipeline)
    # In memory: on a full disk LLVM would end the whole process.
    with os.fdopen(os.memfd_create("hmseg"), "rb") as file:
        library.write_to_file(f"/proc/self/fd/{file.fileno()}", "o")
        return file.read()


@functools.cache
def _compiler() -> tuple[str, ...]:
    """The versions of what turns a PrimFunc into machine code; of ours, the source itself."""
    ours = (lowering.__file__, __file__)
    return (
        *(f"{tool} {version(tool)}" for tool in ("apache-tvm", "apache-tvm-ffi")),
        f"LLVM {codegen.llvm_version_major()}",
        *(file_digest(Path(path)) for path in ours),
    )


def compile_kernels(functions: dict[str, Any], target: Any) -> Any:  # noqa: ANN401
    """A runtime module of PrimFuncs by name, for tests and benchmarks of single kernels."""
    module = tvm.IRModule({n: f.with_attr("global_symbol", n) for n, f in functions.items()})
    return tvm.compile(module, target=target, tir_pipeline=PIPELINE)


def link_objects(
    module: tvm.IRModule, objects: Iterable[bytes], target: Target, path: Path
) -> None:
    """A shared library of the entries of a lowered module and their kernels' object files.

    Raises UserError where nothing is found that can link. On a full disk LLVM ends the whole
    process: whoever calls sees to the room.
    """
    entries, _ = split_entries(module)  # anew: an ExecBuilder keeps what was linked to it
    config = tvm.target.Target(target.config)
    # Without a module of LLVM's at the root the constants would be compiled as text in C.
    root = tvm.tirx.build(tvm.IRModule({}), config)
    executable = relax.VMExecutable(vm_build._ffi_api.VMLink(entries, config, root, [], {}))
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        # Numbered: the name of a kernel that TVM fused may be longer than a file's can be.
        paths = []
        for number, data in enumerate(objects):
            paths.append(Path(folder) / f"kernel{number}.o")
            paths[-1].write_bytes(data)
        try:
            executable.export_library(
                str(path), addons=[*map(str, paths)], fcompile=linker_of(target)
            )
        except UserError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            line = str(error).strip().splitlines()[-1][:200]
            raise UserError(
                f"linking failed ({line}); install a C compiler such as gcc, or name it in CXX"
            ) from error
