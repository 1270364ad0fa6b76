"""A CPU's library in this process, with numpy and TVM's runtime: no torch, no onnx, no compiler."""

import ctypes
import importlib.util
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import host
from deploy.cpu.library import Library, check_machine
from deploy.metadata import Metadata
from deploy.target import Target
from lut.errors import UserError, WorkError

_CPU, _POOLED_ALLOCATOR = 1, 2  # DLPack's device type; TVM's memory manager
_ONE_CPU_EACH, _ALL_CPUS = -2, -3  # TVM's affinity modes: what each thread gets of a list
_ALIGNMENT = 64  # bytes, of TVM's tensors
_CPUS = sorted(os.sched_getaffinity(0))  # before TVM binds this thread to any of them
_POOL = threading.local()  # its size, where this thread has loaded or called a network

Instrument = Callable[[Any, str, bool, tuple[Any, ...]], bool]


def open_library(
    library: Library, target: Target, metadata: Metadata, name: str, threads: int | None
) -> "LoadedLibrary":
    """Load it into this process, with a pool of `threads` (`size_pool`); raises UserError, in which
    it is called `name`, where this machine cannot run it."""
    check_machine(target, name)
    return LoadedLibrary(library.data, metadata.input_shape, metadata.input_dtype, threads)


class LoadedLibrary:
    """A library, loaded: its entries take one input. Threads may share it: calls take turns."""

    def __init__(
        self, library: bytes, shape: tuple[int, ...], dtype: type[np.generic], threads: int | None
    ) -> None:
        self._ffi = ffi = import_runtime()
        size_pool(ffi, threads)
        module = _load_library(ffi, library)
        self._machine = module["vm_load_executable"]()
        self._machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR)
        # Generated code reads vectors at this alignment; a caller's array promises none.
        self._image = aligned((1, *shape), dtype)
        self._tensor = ffi.from_dlpack(self._image)
        # TVM's machine has one stack of frames: two threads in it at once corrupt each other.
        self._lock = threading.Lock()
        self._entries: dict[str, Callable[[Any], Any]] = {"main": self._machine["main"]}

    def run(self, entry: str, given: NDArray[Any]) -> NDArray[Any]:
        """What an entry, ``main`` or ``logits``, makes of one input; both without a batch axis."""
        if entry not in self._entries:
            self._entries[entry] = self._machine[entry]
        return self._run(self._entries[entry], given)

    def read_clocks(self, given: NDArray[Any], ticks: NDArray[np.int64]) -> None:
        """Run the entry ``timed`` (`deploy.cpu.passes.insert_clock`) on one input; it appends
        readings of the clock to `ticks`, in place."""
        timed = self._machine["timed"]
        tensor = self._ffi.from_dlpack(ticks)
        self._run(lambda input_tensor: timed(input_tensor, tensor), given)

    def instrument(self, callback: Instrument | None) -> None:
        """Call `callback(function, name, before, arguments)` around every kernel; None stops it.

        The names are those in the artifact's list of kernels, and ``vm.builtin...`` for the
        machine's own steps. Where the callback gives True before a kernel, the kernel is not run:
        the callback has done its work.
        """

        def watch(function: Any, name: str, before: bool, _result: Any, *args: Any) -> int:  # noqa: ANN401
            assert callback is not None
            return int(callback(function, str(name), bool(before), args))

        function = None if callback is None else self._ffi.convert(watch)
        self._machine["set_instrument"](function)

    def _run(self, entry: Callable[[Any], Any], given: NDArray[Any]) -> NDArray[Any]:
        if not hasattr(_POOL, "size"):  # another thread than the one that loaded
            size_pool(self._ffi, None)
        with self._lock:
            np.copyto(self._image[0], given)
            try:
                result = entry(self._tensor)
            except RuntimeError as error:
                raise WorkError(f"the network failed: {str(error).splitlines()[-1]}") from error
        output: NDArray[Any] = np.from_dlpack(result)[0]
        return output


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
        threads = _default_threads()
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


def _default_threads() -> int:
    # Without the variable TVM takes half of the logical cores of an x86 CPU, whether or not two
    # share one.
    given = os.environ.get("TVM_NUM_THREADS")
    if not given:
        return len(_CPUS)
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"TVM_NUM_THREADS is {given!r}; it must be a whole number of at least 1")
    return int(given)


def _load_library(ffi: Any, library: bytes) -> Any:  # noqa: ANN401 - a module of the FFI
    handle, path = tempfile.mkstemp(suffix=".so", prefix="hmseg-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(library)
        return ffi.load_module(path)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"the library inside the artifact cannot be loaded ({str(error).splitlines()[-1]}); "
            "compile the model again with this version"
        ) from error
    finally:
        Path(path).unlink()  # the mapping stays; the name is not needed


def aligned(shape: tuple[int, ...], kind: type[np.generic]) -> NDArray[Any]:
    """Zeros at an address that generated code may take for a tensor's."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    buffer = np.zeros(size + _ALIGNMENT, np.uint8)
    offset = -buffer.ctypes.data % _ALIGNMENT
    return buffer[offset : offset + size].view(kind).reshape(shape)
