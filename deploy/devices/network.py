"""An artifact on a device behind TVM's RPC."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.cpu.library import Library, check_target
from deploy.cpu.passes.insert_clock import ENTRY as TIMED
from deploy.devices.describe import check_version
from deploy.devices.session import Farm, RemoteSession
from deploy.devices.spread import spread
from deploy.measure.clock import empty_buffer, frames_in_buffer, kernel_times
from deploy.runtime import Network
from lut.errors import UserError

T = TypeVar("T")


class RemoteLibrary:
    """A compiled library loaded on a device (`deploy.loaders.LoadedCode`)."""

    def __init__(self, library: bytes, session: RemoteSession, threads: int) -> None:
        from tvm import relax

        self.session = session
        session.set_threads(threads)
        module = session.upload(library)
        self._device = session.rpc.cpu()
        self._machine: Any = session.call(
            "starting the network", lambda: relax.VirtualMachine(module, self._device)
        )

    def run(self, entry: str, given: NDArray[Any]) -> NDArray[Any]:
        """What an entry makes of one input; both without a batch axis."""
        pixels = self._tensor(given[None])
        result = self.session.call("running a frame", lambda: self._machine[entry](pixels))
        output: NDArray[Any] = self.session.call("fetching the result", result.numpy)
        whole: NDArray[Any] = output[0]
        return whole

    def time(self, entry: str, given: NDArray[Any], calls: int) -> list[int]:
        """Nanoseconds of each of `calls` calls, by the device's own clock."""
        if calls == 0:  # which TVM's evaluator does not take
            return []
        return self._repeat(entry, calls, self._tensor(given[None]))

    def time_kernels(self, given: NDArray[Any], frames: int, kernels: int) -> list[list[int]]:
        """Nanoseconds of every kernel call, `kernels` of them a frame, frame by frame
        (`deploy.cpu.passes.insert_clock`)."""
        pixels = self._tensor(given[None])
        times: list[list[int]] = []
        most = frames_in_buffer(kernels) - 1
        while len(times) < frames:
            count = min(most, frames - len(times))
            ticks = self._tensor(empty_buffer())
            # TVM's evaluator makes one call that it does not time, before the others.
            self._repeat(TIMED, count, pixels, ticks)
            readings: NDArray[np.int64] = self.session.call("reading the clock", ticks.numpy)
            times += kernel_times(readings, count + 1)[1:]
        return times

    def _tensor(self, array: NDArray[Any]) -> Any:  # noqa: ANN401 - a tensor of TVM's
        import tvm

        data = np.ascontiguousarray(array)
        return self.session.call(
            f"sending {data.nbytes / 1e6:.1f} MB",
            lambda: tvm.runtime.tensor(data, device=self._device),
        )

    def _repeat(self, entry: str, calls: int, *tensors: object) -> list[int]:
        def measure() -> list[int]:
            evaluate = self._machine.time_evaluator(entry, self._device, number=1, repeat=calls)
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

    def run_library(self, library: bytes, given: NDArray[Any]) -> NDArray[Any]:
        """What the entry ``main`` of a library makes of one input, without a batch axis."""
        return self.on_one(
            lambda session: RemoteLibrary(library, session, self.threads).run("main", given)
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
    return Network(artifact, RemoteLibrary(artifact.code.data, session, threads))
