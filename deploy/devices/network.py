"""An artifact on a device."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.cpu.library import Library, check_target
from deploy.cpu.loaded import End, Ends, ends_of
from deploy.devices.describe import check_version
from deploy.devices.place import DeviceSession, Place
from deploy.devices.spread import spread
from deploy.measure.clock import empty_buffer, frames_in_buffer, kernel_times
from deploy.runtime import Network
from lut.errors import UserError

T = TypeVar("T")


class RemoteLibrary:
    """A compiled library loaded on a device (`deploy.loaders.LoadedCode`)."""

    def __init__(self, library: bytes, session: DeviceSession, threads: int, ends: Ends) -> None:
        self.session, self._ends = session, ends
        session.set_threads(threads)  # of single kernels
        self._module = session.upload(library)
        session.call("starting the network", lambda: self._module.call("threads", threads))

    def run(self, entry: str, given: NDArray[Any]) -> NDArray[Any]:
        """What an entry makes of one input; both without a batch axis."""
        end = self._ends.output if entry == "main" else self._ends.scores
        pixels, result = self.session.tensor(given), self._empty(end)
        self.session.call("running a frame", lambda: self._module.call(entry, pixels, result))
        return self.session.read(result)

    def time(self, entry: str, given: NDArray[Any], calls: int) -> list[int]:
        """Nanoseconds of each of `calls` calls, by the device's own clock."""
        if calls == 0:  # which `Module.time` does not take
            return []
        end = self._ends.output if entry == "main" else self._ends.scores
        return self._repeat(entry, calls, self.session.tensor(given), self._empty(end))

    def time_kernels(self, given: NDArray[Any], frames: int, kernels: int) -> list[list[int]]:
        """Nanoseconds of every kernel call, `kernels` of them a frame, frame by frame."""
        pixels, result = self.session.tensor(given), self._empty(self._ends.output)
        times: list[list[int]] = []
        most = frames_in_buffer(kernels) - 1
        while len(times) < frames:
            count = min(most, frames - len(times))
            ticks = self.session.tensor(empty_buffer())
            # One call is made that is not timed, before the others.
            self._repeat("timed", count, pixels, result, ticks)
            times += kernel_times(self.session.read(ticks), count + 1)[1:]
        return times

    def _empty(self, end: End) -> Any:  # noqa: ANN401 - a tensor there
        return self.session.empty(end.shape, np.dtype(end.dtype).name)

    def _repeat(self, entry: str, calls: int, *tensors: object) -> list[int]:
        return self.session.call(
            f"timing {calls} frames", lambda: self._module.time(entry, tensors, calls)
        )


class Remote:
    """Devices as a place where networks run; what a lost one did, another does."""

    def __init__(
        self, place: Place, threads: int, on_lost: Callable[[str], None] = lambda _: None,
        fitting: str | None = None,
    ) -> None:  # fmt: skip
        self.place, self.threads, self.on_lost = place, threads, on_lost
        self.fitting = fitting  # the target that the device asks for, where it was asked

    def use(self, artifact: Artifact, work: Callable[[Network], T]) -> T:
        """`work` on the artifact, loaded on a device; from the start again on another if lost."""
        return self.on_one(lambda session: work(load_on(session, artifact, self.threads)))

    def run_library(self, library: bytes, ends: Ends, given: NDArray[Any]) -> NDArray[Any]:
        """What the entry ``main`` of a library makes of one input, without a batch axis."""
        return self.on_one(
            lambda session: RemoteLibrary(library, session, self.threads, ends).run("main", given)
        )

    def on_one(self, work: Callable[[DeviceSession], T]) -> T:
        """`work` in a session with a device; from the start again on another if it is lost."""
        return spread(
            self.place, [None], lambda session, _: work(session), on_lost=self.on_lost
        )[0]  # fmt: skip


def load_on(session: DeviceSession, artifact: Artifact, threads: int) -> Network:
    """Load an artifact on a device; its `loaded` is a `RemoteLibrary`.

    Raises UserError where the device has another TVM or cannot run the target, DeviceLostError or
    WorkError where loading fails. A server that is not ours does not say what it is: there loading
    tells.
    """
    if not isinstance(artifact.code, Library):
        raise UserError("the artifact holds no library: its code does not run over RPC")
    device = session.describe()
    if device is not None:
        check_version(device, session.name)
        flags = frozenset(device.flags)
        name = f"device {session.name}"
        check_target(artifact.target, "the artifact", device.architecture, flags, name)
    ends = ends_of(artifact.metadata)
    return Network(artifact, RemoteLibrary(artifact.code.data, session, threads, ends))
