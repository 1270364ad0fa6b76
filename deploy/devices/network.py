"""An artifact on a device behind TVM's RPC."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.cpu.library import Library, check_target
from deploy.cpu.loaded import End, Ends, ends_of
from deploy.devices.describe import check_version
from deploy.devices.session import Farm, RemoteSession
from deploy.devices.spread import spread
from deploy.measure.clock import empty_buffer, frames_in_buffer, kernel_times
from deploy.runtime import Network
from lut.errors import UserError

T = TypeVar("T")


class RemoteLibrary:
    """A compiled library loaded on a device (`deploy.loaders.LoadedCode`)."""

    def __init__(self, library: bytes, session: RemoteSession, threads: int, ends: Ends) -> None:
        self.session, self._ends = session, ends
        session.set_threads(threads)  # of single kernels
        self._module: Any = session.upload(library)
        session.call("starting the network", lambda: self._module["threads"](threads))

    def run(self, entry: str, given: NDArray[Any]) -> NDArray[Any]:
        """What an entry makes of one input; both without a batch axis."""
        end = self._ends.output if entry == "main" else self._ends.scores
        pixels, result = self._tensor(given), self._empty(end)
        self.session.call("running a frame", lambda: self._module[entry](pixels, result))
        output: NDArray[Any] = self.session.call("fetching the result", result.numpy)
        return output

    def time(self, entry: str, given: NDArray[Any], calls: int) -> list[int]:
        """Nanoseconds of each of `calls` calls, by the device's own clock."""
        if calls == 0:  # which TVM's evaluator does not take
            return []
        end = self._ends.output if entry == "main" else self._ends.scores
        return self._repeat(entry, calls, self._tensor(given), self._empty(end))

    def time_kernels(self, given: NDArray[Any], frames: int, kernels: int) -> list[list[int]]:
        """Nanoseconds of every kernel call, `kernels` of them a frame, frame by frame."""
        pixels, result = self._tensor(given), self._empty(self._ends.output)
        times: list[list[int]] = []
        most = frames_in_buffer(kernels) - 1
        while len(times) < frames:
            count = min(most, frames - len(times))
            ticks = self._tensor(empty_buffer())
            # TVM's evaluator makes one call that it does not time, before the others.
            self._repeat("timed", count, pixels, result, ticks)
            readings: NDArray[np.int64] = self.session.call("reading the clock", ticks.numpy)
            times += kernel_times(readings, count + 1)[1:]
        return times

    def _empty(self, end: End) -> Any:  # noqa: ANN401 - a tensor of TVM's
        import tvm

        kind = np.dtype(end.dtype).name
        return self.session.call(
            "taking memory", lambda: tvm.runtime.empty(end.shape, kind, self.session.rpc.cpu())
        )

    def _tensor(self, array: NDArray[Any]) -> Any:  # noqa: ANN401 - a tensor of TVM's
        import tvm

        data = np.ascontiguousarray(array)
        return self.session.call(
            f"sending {data.nbytes / 1e6:.1f} MB",
            lambda: tvm.runtime.tensor(data, device=self.session.rpc.cpu()),
        )

    def _repeat(self, entry: str, calls: int, *tensors: object) -> list[int]:
        def measure() -> list[int]:
            evaluate = self._module.time_evaluator(
                entry, self.session.rpc.cpu(), number=1, repeat=calls
            )
            return [round(seconds * 1e9) for seconds in evaluate(*tensors).results]

        return self.session.call(f"timing {calls} frames", measure)


class Remote:
    """The devices of a farm as a place where networks run; what a lost one did, another does."""

    def __init__(
        self, farm: Farm, threads: int, on_lost: Callable[[str], None] = lambda _: None
    ) -> None:
        self.farm, self.threads, self.on_lost = farm, threads, on_lost

    def use(self, artifact: Artifact, work: Callable[[Network], T]) -> T:
        """`work` on the artifact, loaded on a device; from the start again on another if lost."""
        return self.on_one(lambda session: work(load_on(session, artifact, self.threads)))

    def run_library(self, library: bytes, ends: Ends, given: NDArray[Any]) -> NDArray[Any]:
        """What the entry ``main`` of a library makes of one input, without a batch axis."""
        return self.on_one(
            lambda session: RemoteLibrary(library, session, self.threads, ends).run("main", given)
        )

    def on_one(self, work: Callable[[RemoteSession], T]) -> T:
        """`work` in a session with a device; from the start again on another if it is lost."""
        return spread(
            self.farm, [None], lambda session, _: work(session), on_lost=self.on_lost
        )[0]  # fmt: skip


def load_on(session: RemoteSession, artifact: Artifact, threads: int) -> Network:
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
