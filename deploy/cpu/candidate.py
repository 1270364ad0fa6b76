"""A candidate's code as a library by itself, which runs in another library's threads."""

import ctypes
from typing import Any

from deploy.cpu.link import compile_c, link_shared, tools_of
from deploy.cpu.loaded import load_memory
from deploy.cpu.machine_code import compile_kernel
from deploy.target import Target

_BACKEND = ("ParallelLaunch", "AllocWorkspace", "FreeWorkspace")
# What a kernel calls where its arguments are not what it was compiled for; it returns -1, too.
_ERROR = "void TVMFFIErrorSetRaisedFromCStrParts(void) {}\n"


def candidate_library(function: Any, target: Target) -> bytes:  # noqa: ANN401 - a PrimFunc
    """The library of one kernel, which is called ``k``."""
    tools = tools_of(target)
    objects = [compile_kernel("k", function, target)]
    objects += compile_c(tools, {"error.c": _ERROR}, ("error.c",)).values()
    return link_shared(tools, objects, ("__tvm_ffi_k", "__TVM*"))


class LoadedCandidate:
    """It, loaded: `address` is that of its code."""

    def __init__(self, library: bytes, backend: tuple[int, int, int]) -> None:
        self._library = load_memory(library)
        for name, address in zip(_BACKEND, backend, strict=True):
            try:
                variable = ctypes.c_void_p.in_dll(self._library, f"__TVMBackend{name}")
            except ValueError:  # the kernel needs none
                continue
            variable.value = address
        code = ctypes.cast(self._library["__tvm_ffi_k"], ctypes.c_void_p)
        self.address = int(code.value or 0)
