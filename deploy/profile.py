"""Where a frame's time goes: every kernel, against the ceilings probed on the machine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deploy.artifact import TVM, Artifact
from deploy.measure.ceilings import Ceilings
from deploy.measure.device import Session
from deploy.precision import FP32
from lut.errors import UserError
from lut.ops import dtype_of, parse_operation

FRAMES, WARMUP = 50, 5


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
    def dtype(self) -> str:
        """What its maps are made of; of what TVM made, and what no operation says, floats."""
        if self.template == TVM:
            return FP32.maps
        try:
            return dtype_of(parse_operation(self.spec))
        except UserError:  # written by another version
            return FP32.maps

    @property
    def gflops(self) -> float:
        """Floating-point operations, two per MAC, in 1e9 per second."""
        return 2 * self.macs / self.median_ms / 1e6

    @property
    def gbytes_per_s(self) -> float:
        """Arguments read or written once, in 1e9 bytes per second."""
        return self.bytes / self.median_ms / 1e6

    def share_of_ceiling(self, ceilings: Ceilings | None) -> float | None:
        """Of the roofline: the rate of multiply-adds of its maps' type, or what memory can feed at
        this intensity if less. None where there are no ceilings.

        Memory means the level that holds the arguments of one call; the fastest level is taken, so
        the share is never flattered.
        """
        if ceilings is None:
            return None
        working_set = self.bytes // self.calls
        floor_ms = max(
            2 * self.macs / ceilings.gflops(self.dtype) / 1e6,
            self.bytes / ceilings.read_gbytes_per_s(working_set) / 1e6,
        )
        return floor_ms / self.median_ms


@dataclass(frozen=True)
class Profile:
    """A network on a machine. `ceilings` is None where there is no probe for the machine."""

    kernels: tuple[KernelProfile, ...]  # in the order of their first calls
    frame_ms: float  # median of whole calls
    ceilings: Ceilings | None
    threads: int
    machine: dict[str, Any]  # `Session.machine`

    @property
    def emulated(self) -> bool:
        """Whether the machine is emulated: then no time here means anything."""
        return self.machine["emulated"] is True

    @property
    def fma_share(self) -> float | None:
        """The whole frame's MACs, each at the rate of its kernel's type, over its time: the share
        of the ceiling."""
        if self.ceilings is None:
            return None
        least = sum(2 * k.macs / self.ceilings.gflops(k.dtype) / 1e6 for k in self.kernels)
        return least / self.frame_ms

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "machine": self.machine,
            "threads": self.threads,
            "frame_ms": self.frame_ms,
            "fma_share": self.fma_share,
            "ceilings": asdict(self.ceilings) if self.ceilings else None,
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


def profile(session: Session, threads: int, frames: int = FRAMES) -> Profile:
    """Every kernel inside whole frames, so that caches are as they will be, and the machine's
    ceilings.

    Raises UserError for an artifact without the entry that times its kernels.
    """
    artifact = session.network.artifact
    require_timed(artifact, "the artifact")
    ceilings = session.ceilings(threads)
    frames_ns = session.time_frames(WARMUP + frames)[WARMUP:]
    times = session.time_kernels(WARMUP + frames)[WARMUP:]
    kernels, frame_ms = summarise_kernels(artifact, times), float(np.median(frames_ns) / 1e6)
    return Profile(kernels, frame_ms, ceilings, threads, session.machine)


def require_timed(artifact: Artifact, name: str) -> None:
    """Raise UserError unless the artifact's library times its kernels."""
    if not artifact.calls:
        raise UserError(
            f"{name}: its code has no entry that times kernels: that of GPUs, which "
            "benchmarks/gpu.sh profiles, has none, nor have libraries of earlier versions; compile "
            "the model again for a CPU"
        )


def summarise_kernels(
    artifact: Artifact, frames: Sequence[Sequence[int]]
) -> tuple[KernelProfile, ...]:
    """From the nanoseconds of each call of an artifact, frame by frame, to its kernels."""
    infos = {info.name: info for info in artifact.kernels}
    times = np.array(frames).T
    found = []
    for name, calls in Counter(artifact.calls).items():  # in the order of their first calls
        info, own = infos[name], times[[call == name for call in artifact.calls]]
        median_ms = float(np.median(own.sum(axis=0)) / 1e6)
        macs, size = info.macs * calls, info.bytes * calls
        found.append(KernelProfile(name, info.template, info.spec, calls, median_ms, macs, size))
    return tuple(found)
