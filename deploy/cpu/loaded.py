"""A CPU's library in this process, with numpy alone.

A library is loaded from memory, where the system can do that, and unloaded when nobody holds it any
more. Threads may share it: each call has a network of its own (an arena, and threads of its own,
`deploy/cpu/runtime`), of which there are as many as the CPUs are good for.
"""

import _ctypes
import ctypes
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy import host
from deploy.cpu.library import PREFIX, Library, check_machine
from deploy.metadata import Metadata
from deploy.target import Target
from lut.errors import UserError, WorkError

_ALIGNMENT = 64  # bytes, at which kernels write a caller's memory themselves
PINNING = "the network's own threads, not bound to CPUs"
_WRONG_CPU = 3  # `hmseg.h`
_POINTER = ctypes.c_void_p
_NUMBERS = itertools.count(1)  # of libraries that were loaded


class End(NamedTuple):
    """What a library takes or gives, without the batch axis."""

    shape: tuple[int, ...]
    dtype: Any


class Ends(NamedTuple):
    """Of a network: `scores` are those of `LoadedLibrary.run`'s entry ``logits``."""

    input: End
    output: End
    scores: End


def ends_of(metadata: Metadata) -> Ends:
    """Of a network with this metadata."""
    return Ends(
        End(metadata.input_shape, metadata.input_dtype),
        End(metadata.output_shape, metadata.output_dtype),
        End((metadata.num_scores, *metadata.resolution), np.float32),
    )


def open_library(
    library: Library, target: Target, metadata: Metadata, name: str, threads: int | None
) -> "LoadedLibrary":
    """Load it into this process, for calls with so many threads; raises UserError, in which it is
    called `name`, where this machine cannot run it."""
    check_machine(target, name)
    return LoadedLibrary(library.data, ends_of(metadata), threads)


class LoadedLibrary:
    """A library, loaded; `prefix` is that of its functions' names.

    `threads` are those of one call, by default what the CPUs and the container's quota allow, or
    TVM_NUM_THREADS. Raises UserError for what cannot be loaded.
    """

    def __init__(
        self, data: bytes, ends: Ends, threads: int | None = None, prefix: str = PREFIX
    ) -> None:
        self.threads = host.default_threads() if threads is None else threads
        self._ends, self._library = ends, _Library(data, prefix)
        # More calls at once than CPUs would only take turns, with an arena each.
        self._most = max(1, host.usable_cpus() // self.threads)
        self._begin()
        self._finish = weakref.finalize(self, _end, self._library, self._made)
        self._finish.atexit = False  # the process takes its threads with it
        self._give(self._take())  # what fails, fails now

    def _begin(self) -> None:
        self._process, self._changed = os.getpid(), threading.Condition()
        self._made: list[_POINTER] = []
        self._free: list[_POINTER] = []

    def close(self) -> None:
        """Free its memory and unload it; no call may be running, and none follow."""
        self._finish()
        self._free, self._made = [], []

    def __enter__(self) -> "LoadedLibrary":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, entry: str, given: NDArray[Any]) -> NDArray[Any]:
        """What an entry, ``main`` or ``logits``, makes of one input; both without a batch axis.
        Raises UserError when it is closed, WorkError where there is no memory."""
        scores = entry != "main"
        end = self._ends.scores if scores else self._ends.output
        rows, stride = _rows(given, self._ends.input)
        output = aligned(end.shape, end.dtype)
        with self._network() as network:
            at, to = rows.ctypes.data, output.ctypes.data
            if scores:
                code = self._library.scores(network, at, stride, to)
            else:
                code = self._library.run(network, at, stride, to, 0)
        self._check(code)
        return output

    def time_kernels(self, given: NDArray[Any]) -> list[int]:
        """Nanoseconds of every kernel call of one frame, in order."""
        clock = np.zeros(self._library.calls(0) + 1, np.int64)
        image = aligned(*self._ends.input)
        np.copyto(image, given)
        output = aligned(*self._ends.output)
        with self._network() as network:
            at, to = image.ctypes.data, output.ctypes.data
            self._check(self._library.run_timed(network, at, to, clock.ctypes.data))
        times: list[int] = np.diff(clock).tolist()
        return times

    @contextmanager
    def steps(self, given: NDArray[Any]) -> Iterator["Steps"]:
        """A frame of one input that is taken call by call."""
        image = aligned(*self._ends.input)
        np.copyto(image, given)
        with self._network() as network:
            self._check(self._library.give(network, image.ctypes.data))
            yield Steps(self._library, network, self._check)

    def backend(self) -> tuple[int, int, int]:
        """Addresses of what other code needs to run as this library's kernels do: parallel launch,
        workspace, end of workspace."""
        found = (_POINTER * 3)()
        self._library.backend(found)
        return tuple(int(address or 0) for address in found)  # type: ignore[return-value]

    @contextmanager
    def _network(self) -> Iterator[Any]:
        network = self._take()
        try:
            yield network
        finally:
            self._give(network)

    def _take(self) -> Any:  # noqa: ANN401 - a pointer
        if not self._finish.alive:  # in a child of who closed it, too
            raise UserError("the network is closed")
        if self._process != os.getpid():
            # A forked child: what its parent's other threads were in the middle of stays so.
            self._begin()
            self._finish.detach()
            self._finish = weakref.finalize(self, _end, self._library, self._made)
            self._finish.atexit = False
        with self._changed:
            while not self._free and len(self._made) >= self._most:
                self._changed.wait()
            if self._free:
                return self._free.pop()
            network = _POINTER()
            self._check(self._library.create(self.threads, ctypes.byref(network)))
            self._made.append(network)
            return network

    def _give(self, network: Any) -> None:  # noqa: ANN401
        with self._changed:
            self._free.append(network)
            self._changed.notify()

    def _check(self, code: int) -> None:
        if code:
            text = ctypes.string_at(self._library.error_text(code)).decode()
            kind = UserError if code == _WRONG_CPU else WorkError
            raise kind(f"the network failed: {text}")


class Steps:
    """A frame that is taken call by call, in order."""

    def __init__(self, library: "_Library", network: Any, check: Callable[[int], None]) -> None:  # noqa: ANN401
        self._library, self._network, self._check = library, network, check

    def call(self, number: int, other: int | None = None) -> int:
        """Make one call, of the kernel or of other code at an address; its nanoseconds."""
        elapsed = ctypes.c_int64()
        self._check(self._library.step(self._network, 0, number, other, ctypes.byref(elapsed)))
        return elapsed.value

    def output(self, number: int) -> NDArray[np.uint8]:
        """The bytes of a call's output, which later calls may write over."""
        size = ctypes.c_int64()
        at = self._library.output(self._network, 0, number, ctypes.byref(size))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size.value).from_address(at))


class _Library:
    """Functions of `hmseg.h` and `tools.h`, by their names without the prefix."""

    def __init__(self, data: bytes, prefix: str) -> None:
        self._handle = load_memory(data)
        number, pointer, size = ctypes.c_int, _POINTER, ctypes.c_ssize_t

        def function(name: str, result: Any, *arguments: Any) -> Any:  # noqa: ANN401
            try:
                found = getattr(self._handle, f"{prefix}_{name}")
            except AttributeError:
                raise UserError(
                    "the library inside the artifact is of another version of hmseg; compile the "
                    "model again with this one"
                ) from None
            found.restype, found.argtypes = result, arguments
            return found

        self.create = function("create", number, number, pointer)
        self.destroy = function("destroy", None, pointer)
        self.run = function("run", number, pointer, pointer, size, pointer, size)
        self.scores = function("scores", number, pointer, pointer, size, pointer)
        self.error_text = function("error_text", pointer, number)
        self.calls = function("calls", number, number)
        self.run_timed = function("run_timed", number, pointer, pointer, pointer, pointer)
        self.give = function("give", number, pointer, pointer)
        self.step = function("step", number, pointer, number, number, pointer, pointer)
        self.output = function("output", pointer, pointer, number, number, pointer)
        self.backend = function("backend", None, pointer)

    def unload(self) -> None:
        """None of its functions may be called any more."""
        _ctypes.dlclose(self._handle._handle)


def _end(library: _Library, made: list[Any]) -> None:
    for network in made:
        library.destroy(ctypes.byref(network))
    library.unload()


def load_memory(data: bytes) -> ctypes.CDLL:
    """A shared library that is nowhere in the file system. Raises UserError."""
    try:
        file = os.memfd_create("hmseg", os.MFD_CLOEXEC)
    except (AttributeError, OSError):  # an old system, or one that forbids it
        return _load_from_folder(data)
    try:
        with os.fdopen(file, "wb", closefd=False) as memory:
            memory.write(data)
        return ctypes.CDLL(_path_of(file))
    except OSError as error:
        if Path("/proc/self/fd").exists():
            raise _cannot_load(error) from error
        return _load_from_folder(data)
    finally:
        os.close(file)


def _path_of(file: int) -> str:
    """A path of an open file that was never used before: the loader knows libraries by theirs, and
    numbers of files come again."""
    steps = ("./", ".//")
    unique = "".join(steps[int(bit)] for bit in f"{next(_NUMBERS):b}")
    return f"/proc/self/fd/{unique}{file}"


def _load_from_folder(data: bytes) -> ctypes.CDLL:
    import tempfile

    try:
        with tempfile.NamedTemporaryFile(prefix="hmseg-", suffix=".so") as file:
            file.write(data)
            file.flush()
            return ctypes.CDLL(file.name)
    except OSError as error:
        if isinstance(error.filename, str) or error.errno:
            raise UserError(
                f"the library cannot be written to the temporary folder ({error}); free it or name "
                "another one in TMPDIR"
            ) from error
        raise _cannot_load(error) from error


def _cannot_load(error: OSError) -> UserError:
    return UserError(
        f"the library inside the artifact cannot be loaded ({str(error).splitlines()[-1]}); "
        "compile the model again with this version, and if its temporary folder does not allow "
        "programs, name another one in TMPDIR"
    )


def _rows(given: NDArray[Any], end: End) -> tuple[NDArray[Any], int]:
    """An input whose rows are whole, and the bytes from one to the next; 0 where they follow each
    other."""
    row = int(np.prod(end.shape[1:])) * np.dtype(end.dtype).itemsize
    if given.flags.c_contiguous:
        return given, 0
    whole = given.ndim == len(end.shape) and given[:1].flags.c_contiguous
    if whole and given.dtype == np.uint8 and given.strides[0] >= row:
        return given, given.strides[0]
    return np.ascontiguousarray(given), 0


def aligned(shape: tuple[int, ...], kind: Any) -> NDArray[Any]:  # noqa: ANN401 - a numpy type
    """An array, not filled, at an address that generated code may take for a tensor's."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -buffer.ctypes.data % _ALIGNMENT
    array: NDArray[Any] = buffer[offset : offset + size].view(kind).reshape(shape)
    return array
