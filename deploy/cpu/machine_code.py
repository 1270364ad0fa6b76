"""From lowered kernels to machine code: each by itself, on all cores.

A kernel that the cache has is not compiled.
"""

import functools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tvm
from tvm.target import codegen

from deploy.cpu import lowering
from deploy.cpu.lowering import PIPELINE
from deploy.cpu.passes.name_kernels import PROGRAM, program_of
from deploy.ir import EMITTED
from deploy.object_cache import ObjectCache, key_of
from deploy.target import Target
from lut.files import file_digest

# Before TVM's pool binds this thread to one of them.
_CORES = len(os.sched_getaffinity(0))


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
