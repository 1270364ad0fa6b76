"""Where a frame's time goes: every kernel against the ceilings probed on this machine."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import KernelInfo
from deploy.measure.ceilings import Ceilings
from deploy.runtime import Network


@dataclass(frozen=True)
class KernelProfile:
    """One kernel over a frame; a kernel that the network calls several times is one entry."""

    name: str
    template: str
    spec: str
    calls: int  # per frame
    median_ms: float  # of all its calls in a frame
    macs: int
    bytes: int  # of the arguments of all calls in a frame

    @property
    def gflops(self) -> float:
        """Floating-point operations, two per MAC, in 1e9 per second."""
        return 2 * self.macs / self.median_ms / 1e6

    @property
    def gbytes_per_s(self) -> float:
        """Arguments read or written once, in 1e9 bytes per second."""
        return self.bytes / self.median_ms / 1e6

    def share_of_ceiling(self, ceilings: Ceilings) -> float:
        """Of the roofline: the FMA rate, or what memory can feed at this intensity if less.

        Memory means the level that holds the arguments of one call; the fastest level is taken, so
        the share is never flattered.
        """
        working_set = self.bytes // self.calls
        floor_ms = max(
            2 * self.macs / ceilings.fma_gflops / 1e6,
            self.bytes / ceilings.read_gbytes_per_s(working_set) / 1e6,
        )
        return floor_ms / self.median_ms


@dataclass(frozen=True)
class Profile:
    """A network on this machine."""

    kernels: tuple[KernelProfile, ...]
    frame_ms: float  # median of whole calls, without instruments
    ceilings: Ceilings

    @property
    def fma_share(self) -> float:
        """The whole frame's MACs at the FMA rate, over its time: the share of the ceiling."""
        macs = sum(kernel.macs for kernel in self.kernels)
        return 2 * macs / self.ceilings.fma_gflops / 1e6 / self.frame_ms

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "frame_ms": self.frame_ms,
            "fma_share": self.fma_share,
            "ceilings": asdict(self.ceilings),
            "kernels": [
                asdict(kernel)
                | {
                    "gflops": kernel.gflops,
                    "gbytes_per_s": kernel.gbytes_per_s,
                    "share_of_ceiling": kernel.share_of_ceiling(self.ceilings),
                }
                for kernel in self.kernels
            ],
        }


def profile(
    network: Network,
    image: NDArray[np.uint8],
    ceilings: Ceilings,
    clock_ns: Callable[[], int],
    *,
    warmup: int = 5,
    repeat: int = 50,
) -> Profile:
    """Time every kernel of a network inside whole frames, so that caches are as they will be.

    Instruments cost about a microsecond a kernel; the frame's own time is taken without them.
    """
    for _ in range(warmup):
        network(image)
    frames_ns = []
    for _ in range(repeat):
        start = clock_ns()
        network(image)
        frames_ns.append(clock_ns() - start)
    times = _instrumented(network, image, clock_ns, repeat)
    infos = {info.name: info for info in network.artifact.kernels}
    kernels = tuple(
        _kernel(infos[name], per_frame) for name, per_frame in times.items() if name in infos
    )
    return Profile(kernels, float(np.median(frames_ns) / 1e6), ceilings)


def _instrumented(
    network: Network, image: NDArray[np.uint8], clock_ns: Callable[[], int], repeat: int
) -> dict[str, list[list[int]]]:
    """Nanoseconds of each call, per frame, by kernel."""
    times: dict[str, list[list[int]]] = defaultdict(lambda: [[] for _ in range(repeat)])
    started, frame = 0, 0

    def watch(_function: object, name: str, before: bool, _args: tuple[Any, ...]) -> bool:
        nonlocal started
        if before:
            started = clock_ns()
        else:
            times[name][frame].append(clock_ns() - started)
        return False

    network.instrument(watch)
    try:
        for frame in range(repeat):  # noqa: B007 - read by watch
            network(image)
    finally:
        network.instrument(None)
    return times


def _kernel(info: KernelInfo, per_frame: list[list[int]]) -> KernelProfile:
    calls = len(per_frame[0])
    return KernelProfile(
        info.name,
        info.template,
        info.spec,
        calls,
        float(np.median([sum(frame) for frame in per_frame]) / 1e6),
        info.macs * calls,
        info.bytes * calls,
    )
