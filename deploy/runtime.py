"""Load and run an artifact with numpy and TVM's runtime library: no torch, no onnx, no compiler.

labels = load("tiny-mrms.hmseg")(image)   # uint8 (H, W, 3) -> uint8 (H, W)
"""

import ctypes
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import host
from deploy.artifact import Artifact, ArtifactTarget, load_artifact
from deploy.resolution import Resolution
from lut.errors import UserError, WorkError

_CPU, _POOLED_ALLOCATOR = 1, 2  # DLPack's device type; TVM's memory manager
_BIG_CORES = 1  # TVM's affinity mode: the fastest cores first, one thread each
_ALIGNMENT = 64  # bytes, of TVM's tensors


Instrument = Callable[[Any, str, bool, tuple[Any, ...]], bool]


class Network:
    """A loaded network; make one with `load`. Threads may share it: their calls take turns."""

    def __init__(self, artifact: Artifact, ffi: Any, threads: int | None) -> None:  # noqa: ANN401
        self.artifact = artifact
        self.metadata = artifact.metadata
        self._ffi = ffi
        if threads is not None:
            ffi.get_global_func("runtime.config_threadpool")(_BIG_CORES, threads)
        module = _load_library(ffi, artifact.library)
        self._machine = module["vm_load_executable"]()
        self._machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR)
        height, width = self.metadata.resolution
        # Generated code reads vectors at this alignment; a caller's array promises none.
        self._image = _aligned((1, height, width, 3))
        self._tensor = ffi.from_dlpack(self._image)
        # TVM's machine has one stack of frames: two threads in it at once corrupt each other.
        self._lock = threading.Lock()
        self._main: Callable[[Any], Any] = self._machine["main"]

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Segment one image of exactly the network's size.

        image: uint8 (H, W, 3), RGB. Returns the labels, uint8 (H, W), or, for a network that was
        compiled with ``--output logits``, the class scores, float32 (K, H, W). Raises UserError
        for another shape or type.
        """
        return self._run(self._main, image)

    def logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The class scores, float32 (K, H, W), of one image; every artifact has them."""
        if self.metadata.output == "logits":
            return self._run(self._main, image)
        return self._run(self._machine["logits"], image)

    def read_clocks(self, image: NDArray[np.uint8], ticks: NDArray[np.int64]) -> None:
        """Run a library that was built for measuring (`deploy.passes.insert_clock`) on one image;
        it appends readings of the clock to `ticks`, in place."""
        timed = self._machine["timed"]
        tensor = self._ffi.from_dlpack(ticks)
        self._run(lambda image_tensor: timed(image_tensor, tensor), image)

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

    def _run(self, entry: Callable[[Any], Any], image: NDArray[np.uint8]) -> NDArray[Any]:
        check_image(image, self.metadata.resolution)
        with self._lock:
            np.copyto(self._image[0], image)
            try:
                result = entry(self._tensor)
            except RuntimeError as error:
                raise WorkError(f"the network failed: {str(error).splitlines()[-1]}") from error
        output: NDArray[Any] = np.from_dlpack(result)[0]
        return output


def check_image(image: NDArray[np.uint8], resolution: Resolution) -> None:
    """Raise UserError unless `image` is uint8 (H, W, 3) of exactly this resolution."""
    expected = (*resolution, 3)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != expected:
        found = f"{getattr(image, 'dtype', type(image).__name__)} {np.shape(image)}"
        raise UserError(f"the network takes an image uint8 {expected}, not {found}; resize it")


def load(path: str | Path, *, threads: int | None = None) -> Network:
    """Load an artifact for this machine.

    `threads` sets the size of TVM's pool for the whole process; by default TVM_NUM_THREADS or the
    number of cores. Raises UserError for a damaged file, one for another machine or of a newer
    format.
    """
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}; it must be at least 1")
    return open_artifact(load_artifact(Path(path)), str(path), threads=threads)


def open_artifact(artifact: Artifact, name: str, *, threads: int | None = None) -> Network:
    """`load` for an artifact already in memory; `name` is what errors call it."""
    check_machine(artifact.target, name)
    return Network(artifact, import_runtime(), threads)


def check_machine(target: ArtifactTarget, name: str) -> None:
    """Raise UserError unless this machine can run what was compiled for `target`."""
    check_target(target, name, host.architecture(), host.cpu_flags())


def check_target(
    target: ArtifactTarget, name: str, architecture: str, flags: frozenset[str], device: str = ""
) -> None:
    """Raise UserError unless a machine of this architecture and these CPU flags can run it.

    `device` is what errors call the machine; by default it is this one.
    """
    here = "" if device else "; compile with --target cpu here"
    if target.architecture != architecture:
        raise UserError(
            f"{name}: compiled for {target.architecture}, {device or 'this machine'} is "
            f"{architecture}{here}"
        )
    missing = host.missing_features(target.features, flags)
    if missing:
        raise UserError(
            f"{name}: compiled for {target.config.get('mcpu')}, {device or 'this CPU'} lacks "
            f"{', '.join(missing)}{here and here + ' or with --target x86-64-v3'}"
        )


def import_runtime() -> Any:  # noqa: ANN401 - a module
    """Import tvm_ffi and load libtvm_runtime, without the rest of TVM and without torch."""
    if "tvm" not in sys.modules:
        _import_ffi_without_torch()  # also what libtvm_runtime is linked against
        spec = importlib.util.find_spec("tvm")
        if spec is None or spec.origin is None:
            raise UserError("apache-tvm is not installed; run: pip install hmseg")
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


def _aligned(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    size = int(np.prod(shape))
    buffer = np.zeros(size + _ALIGNMENT, np.uint8)
    offset = -buffer.ctypes.data % _ALIGNMENT
    return buffer[offset : offset + size].reshape(shape)
