"""TVM's runtime in this process, for kernels by themselves: probes, and candidates before they are
measured. A network needs none of it."""

import ctypes
import importlib
import importlib.util
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from deploy import host
from lut.errors import UserError

_ONE_CPU_EACH, _ALL_CPUS = -2, -3  # TVM's affinity modes: what each thread gets of a list
_CPUS = sorted(os.sched_getaffinity(0))  # before TVM binds this thread to any of them
_POOL = threading.local()  # its size, where this thread has one


def import_runtime() -> Any:  # noqa: ANN401 - a module
    """Import tvm_ffi and load libtvm_runtime, without the rest of TVM and without torch; raises
    UserError where they are not installed or cannot be loaded."""
    if "tvm" not in sys.modules:
        _import_ffi_without_torch()  # also what libtvm_runtime is linked against
        spec = importlib.util.find_spec("tvm")
        if spec is None or spec.origin is None:
            raise UserError("apache-tvm is not installed; run: pip install -e . in a clone")
        library = Path(spec.origin).parent / "lib" / "libtvm_runtime.so"
        try:
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise UserError(f"TVM's runtime cannot be loaded: {error}") from error
    import tvm_ffi

    return tvm_ffi


def _import_ffi_without_torch() -> None:
    # tvm_ffi imports torch wherever it finds it, which takes seconds and 200 MB. A None in
    # sys.modules makes that import fail the way it fails where torch is not installed.
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("tvm_ffi")
    finally:
        if hide:
            del sys.modules["torch"]


def size_pool(ffi: Any, threads: int | None) -> None:  # noqa: ANN401 - a module
    """Set the size of TVM's pool for this thread and bind its workers, as `pinning` says.

    `ffi` is tvm_ffi; `threads` None takes TVM_NUM_THREADS, or one for each CPU.
    """
    # TVM reads the variable when a pool starts, and every thread that calls has a pool of its own.
    if threads is None:
        threads = len(_CPUS)
    os.environ["TVM_NUM_THREADS"] = str(threads)
    _POOL.size = started = getattr(_POOL, "size", threads)
    # Left to itself, TVM binds the pool to the first CPUs of the machine, even where the process
    # may not use them. It makes as many threads as CPUs are listed.
    cpus = sorted(_CPUS, key=host.max_frequency_khz, reverse=True)
    mode = _ONE_CPU_EACH if threads <= len(cpus) else _ALL_CPUS
    listed = [str(cpus[i % len(cpus)]) for i in range(threads)]
    callers = os.sched_getaffinity(0)
    ffi.get_global_func("runtime.config_threadpool")(mode, threads, listed)
    # The workers stay bound; the caller's thread is the user's, and goes where it may.
    os.sched_setaffinity(0, callers)
    if started < min(threads, len(_CPUS)):
        warnings.warn(
            f"{threads} threads asked for, but the first network was loaded with {started}, which "
            "TVM's pool keeps; load the one with the most threads first",
            RuntimeWarning,
            stacklevel=7,  # who called `load` or `open_artifact`
        )


def pinning(threads: int) -> str:
    """How `size_pool` binds a pool of so many threads, in words."""
    if threads == 1:
        return "one thread, not bound"
    if os.environ.get("TVM_BIND_THREADS") == "0":
        return "TVM's pool, not bound"
    if threads > len(_CPUS):
        return f"TVM's pool, more threads than the {len(_CPUS)} CPUs, bound to all of them"
    return "TVM's pool, the caller not bound, each other thread to one CPU, the fastest first"
