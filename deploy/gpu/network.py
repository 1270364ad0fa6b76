"""An artifact's network on an NVIDIA GPU, with the driver alone: no toolkit, no TVM, no torch.

The launches of an entry are recorded once, as a CUDA graph; a frame is three things on one stream:
the copy of the image from pinned memory, the graph, the copy of the result to pinned memory. The
host waits once, for the last of them.
"""

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_size_t, c_uint64, c_void_p
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy.gpu.driver import NON_BLOCKING, THREAD_LOCAL, Driver, ForkedError
from deploy.gpu.plan import Launch
from deploy.gpu.program import GpuProgram, choose_code, result_of
from deploy.metadata import Metadata
from deploy.target import Target
from lut.errors import UserError, WorkError

T = TypeVar("T")

WARM_S = 0.3
_EXTERNAL = 1  # an event recorded in a graph, which is read outside of it


def open_program(
    program: GpuProgram, target: Target, metadata: Metadata, name: str
) -> "GpuNetwork":
    """Load it on this machine's GPU. Raises UserError, in which it is called `name`, where there is
    none that runs it."""
    if program.opencl:
        raise UserError(
            f"{name}: compiled for OpenCL on {target.name}; this version runs it nowhere, it "
            "writes it for an OpenCL program of your own"
        )
    try:
        return GpuNetwork(program, metadata)
    except (UserError, WorkError) as error:
        raise type(error)(f"{name}: {error}") from error


class GpuNetwork:
    """A program, loaded (`deploy.loaders.LoadedCode`). Threads may share it: calls take turns. In a
    forked child calls raise ForkedError, which says what to do."""

    def __init__(
        self, program: GpuProgram, metadata: Metadata, driver: Driver | None = None
    ) -> None:
        self._program, self._metadata = program, metadata
        self._driver = driver or Driver()
        self.code, data = choose_code(self._program, self._driver.capability)
        self._lock = threading.Lock()
        self._owned = contextlib.ExitStack()  # what `close` gives back, the last first
        self._graphs: dict[str, c_void_p] = {}
        self._module = self._own("cuModuleUnload", self._driver.load(data, self.code))
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @property
    def device(self) -> dict[str, Any]:
        """The GPU, its compute capability, the driver's CUDA and the code that was chosen."""
        driver = self._driver
        return {
            "gpu": driver.name,
            "compute_capability": f"{driver.capability // 10}.{driver.capability % 10}",
            "driver_cuda": driver.version,
            "code": self.code,
        }

    def _prepare(self) -> None:
        driver, plan = self._driver, self._program.plan
        stream = driver.handle("cuStreamCreate", NON_BLOCKING)
        self._stream = self._own("cuStreamDestroy_v2", stream)
        self._arena = self._own("cuMemFree_v2", driver.allocate(plan.arena_bytes))
        # A number that is read before it was written is a NaN, not what another network left.
        driver.call("cuMemsetD8Async", self._arena, 0xFF, plan.arena_bytes, self._stream)
        constants = self._program.constants
        driver.call("cuMemcpyHtoDAsync_v2", self._arena, constants, len(constants), self._stream)
        driver.call("cuStreamSynchronize", self._stream)
        self._given = self._pin(plan.input.size)
        self._results = {name: self._pin(e.output.size) for name, e in plan.entries.items()}
        names = {launch.kernel for entry in plan.entries.values() for launch in entry.launches}
        self._functions = {
            name: driver.handle("cuModuleGetFunction", self._module, name.encode())
            for name in sorted(names)
        }
        for name, entry in plan.entries.items():
            # Once without recording: a driver may load a kernel at its first launch only.
            self._launch_all(entry.launches)
            graph = self._record(partial(self._launch_all, entry.launches))
            self._graphs[name] = self._own("cuGraphExecDestroy", graph)
        driver.call("cuStreamSynchronize", self._stream)

    def _own(self, release: str, handle: T) -> T:
        """Have `close` give a handle back, by this function of the driver."""
        self._owned.callback(_release, self._driver, release, handle)
        return handle

    def _pin(self, size: int) -> NDArray[np.uint8]:
        address = self._own("cuMemFreeHost", self._driver.handle("cuMemHostAlloc", size, 0))
        memory = (ctypes.c_uint8 * size).from_address(address.value or 0)
        return np.ctypeslib.as_array(memory)

    def _record(self, enqueue: Callable[[], None]) -> c_void_p:
        """What `enqueue` puts on the stream, as a graph."""
        driver = self._driver
        driver.call("cuStreamBeginCapture_v2", self._stream, THREAD_LOCAL)
        graph = c_void_p()
        try:
            enqueue()
            driver.call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
            return driver.handle("cuGraphInstantiateWithFlags", graph, 0)
        except BaseException:
            # A thread that still captures can neither allocate nor free the GPU's memory.
            if not graph:
                _release(self._driver, "cuStreamEndCapture", self._stream, ctypes.byref(graph))
            raise
        finally:
            if graph:
                _release(self._driver, "cuGraphDestroy", graph)

    @contextlib.contextmanager
    def _events(self, count: int) -> Iterator[list[c_void_p]]:
        events: list[c_void_p] = []
        try:
            for _ in range(count):
                events.append(self._driver.handle("cuEventCreate", 0))
            yield events
        finally:
            for event in events:
                _release(self._driver, "cuEventDestroy_v2", event)

    def _launch_all(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            pointers = [c_uint64(self._arena + region.offset) for region in launch.arguments]
            # The driver copies the values of the parameters before it returns.
            places = (c_void_p * len(pointers))(*(ctypes.addressof(p) for p in pointers))
            self._driver.call(
                "cuLaunchKernel", self._functions[launch.kernel], *launch.grid, *launch.block, 0,
                self._stream, places, None,
            )  # fmt: skip

    def run(self, entry: str, given: NDArray[Any]) -> NDArray[Any]:
        """As `deploy.loaders.LoadedCode.run`."""
        with self._turn():
            self._begin(given)
            self._enqueue_upload()
            self._driver.call("cuGraphLaunch", self._graphs[entry], self._stream)
            self._enqueue_download(entry)
            self._driver.call("cuStreamSynchronize", self._stream)
            raw = self._results[entry].copy()  # the next frame overwrites pinned memory
        return result_of(raw, entry, self._metadata)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        # Before the lock, which another thread of the parent may have held when it forked.
        if self._driver.forked:
            raise ForkedError
        with self._lock:
            yield

    def warm_up(self, given: NDArray[Any], seconds: float = WARM_S) -> None:
        """Run frames for so long, at least one, in which a GPU that idled raises its clock."""
        end = time.monotonic() + seconds
        while True:
            self.run("main", given)
            if time.monotonic() >= end:
                return

    def time_frames(self, given: NDArray[Any], frames: int) -> dict[str, list[float]]:
        """Milliseconds of frames' parts, by the GPU's events: ``upload``, ``compute`` (the graph),
        ``download``.

        The events around the launches are in the graph, so that the time until the host has
        launched it is in no part.
        """
        driver, launches = self._driver, self._program.plan.entries["main"].launches
        with self._turn(), self._events(6) as events:
            self._begin(given)
            start, given_at, first, last, computed_at, stop = events
            graph = self._record(lambda: self._launch_timed(launches, [0], [first, last]))
            parts = {
                "upload": (start, given_at), "compute": (first, last),
                "download": (computed_at, stop),
            }  # fmt: skip
            times: dict[str, list[float]] = {name: [] for name in parts}
            try:
                for _ in range(frames):
                    driver.call("cuEventRecord", start, self._stream)
                    self._enqueue_upload()
                    driver.call("cuEventRecord", given_at, self._stream)
                    driver.call("cuGraphLaunch", graph, self._stream)
                    driver.call("cuEventRecord", computed_at, self._stream)
                    self._enqueue_download("main")
                    driver.call("cuEventRecord", stop, self._stream)
                    driver.call("cuEventSynchronize", stop)
                    for name, (begin, end) in parts.items():
                        times[name].append(driver.milliseconds(begin, end))
            finally:
                _release(self._driver, "cuGraphExecDestroy", graph)
        return times

    def time_kernels(
        self, given: NDArray[Any], frames: int, parts: Sequence[int] | None = None
    ) -> list[tuple[str, list[float]]]:
        """Milliseconds of every launch of ``main``, in order; with `parts`, which are numbers of
        launches, of so many together. The name is that of the first kernel.

        The events between them are in a graph of their own, so that no launch waits for the host.
        What an event itself costs is in the figures: their sum is above a frame's.
        """
        driver, launches = self._driver, self._program.plan.entries["main"].launches
        firsts = [0, *accumulate(parts or [1] * len(launches))]
        if firsts.pop() != len(launches):
            raise WorkError(f"the network has {len(launches)} launches, not {sum(parts or ())}")
        times: list[tuple[str, list[float]]] = [(launches[i].kernel, []) for i in firsts]
        with self._turn(), self._events(len(firsts) + 1) as events:
            self._begin(given)
            self._enqueue_upload()
            graph = self._record(lambda: self._launch_timed(launches, firsts, events))
            try:
                for _ in range(frames):
                    driver.call("cuGraphLaunch", graph, self._stream)
                    driver.call("cuStreamSynchronize", self._stream)
                    for (_, samples), (start, stop) in zip(times, pairwise(events), strict=True):
                        samples.append(driver.milliseconds(start, stop))
            finally:
                _release(self._driver, "cuGraphExecDestroy", graph)
        return times

    def _launch_timed(
        self, launches: Sequence[Launch], firsts: Sequence[int], events: Sequence[c_void_p]
    ) -> None:
        for (first, last), event in zip(pairwise([*firsts, len(launches)]), events, strict=False):
            self._driver.call("cuEventRecordWithFlags", event, self._stream, _EXTERNAL)
            self._launch_all(launches[first:last])
        self._driver.call("cuEventRecordWithFlags", events[-1], self._stream, _EXTERNAL)

    def _begin(self, given: NDArray[Any]) -> None:
        """The GPU's context becomes this thread's, the input goes to pinned memory."""
        if not self._graphs:
            raise WorkError("this network is closed; load it again")
        self._driver.enter()
        np.copyto(self._given, np.ascontiguousarray(given).view(np.uint8).ravel())

    def _enqueue_upload(self) -> None:
        region = self._program.plan.input
        source = self._given.ctypes.data
        self._driver.call(
            "cuMemcpyHtoDAsync_v2", self._arena + region.offset, source, region.size, self._stream
        )

    def _enqueue_download(self, name: str) -> None:
        region, result = self._program.plan.entries[name].output, self._results[name]
        self._driver.call(
            "cuMemcpyDtoHAsync_v2", result.ctypes.data, self._arena + region.offset,
            c_size_t(region.size), self._stream,
        )  # fmt: skip

    def close(self) -> None:
        """Give the GPU's memory back; also what happens when nothing refers to the network. In a
        forked child it is the parent's, and stays."""
        if self._driver.forked:
            self._owned.pop_all()
            return
        with self._lock:
            with contextlib.suppress(WorkError, UserError):
                self._driver.enter()
            self._owned.close()
            self._graphs = {}

    def __del__(self) -> None:
        if getattr(self, "_graphs", None):
            self.close()


def _release(driver: Driver, name: str, *arguments: Any) -> None:  # noqa: ANN401
    """Call what gives something back; on a GPU that failed for good nothing can be."""
    with contextlib.suppress(WorkError, UserError):
        driver.call(name, *arguments)
