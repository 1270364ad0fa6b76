"""What a network takes where it was compiled, kernel by kernel and beside its peers, in about two
seconds: a first impression for who compiles, which `deploy.bench` and `deploy.profile` check."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from deploy.artifact import Artifact
from deploy.backends import backend_of
from deploy.graph.source import Source
from deploy.measure.device import Session
from deploy.measure.interleave import Protocol, Samples, interleave_blocks, time_block
from deploy.measure.peer import Peer
from deploy.measure.statistics import Ratio, ratio_of_rounds
from deploy.profile import KernelProfile, require_timed, summarise_kernels

OURS = "hmseg"
BLOCKS_S, BLOCK_S, KERNELS_S = 1.5, 0.1, 0.3  # all blocks, one of the slowest side, the kernels
MOST_ROUNDS, MOST_CALLS = 5, 10
PAUSE_S = 0.02
# Of a peer's time over ours: above it we are as fast, for all that two seconds can tell.
SLOWER = 0.95


@dataclass(frozen=True)
class QuickTiming:
    """Medians in milliseconds. `absent` are peers that do not run, and why."""

    threads: int
    ours_ms: float
    peers_ms: Mapping[str, float]
    ratios: Mapping[str, Ratio]  # each peer's time over ours
    fastest: Mapping[
        str, float
    ]  # the same of the fastest calls, which other programs disturb least
    kernels: tuple[KernelProfile, ...]
    absent: Mapping[str, str]

    @property
    def shares(self) -> dict[str, float]:
        """Of the time of a frame's kernels, each one's, by name."""
        total = sum(kernel.median_ms for kernel in self.kernels)
        return {kernel.name: kernel.median_ms / (total or 1) for kernel in self.kernels}

    @property
    def slower_than(self) -> dict[str, float]:
        """The peers that are faster in every round and at their best, and at least how often our
        time is theirs: what a busy machine does to either is not told."""
        most = {n: max(ratio.high, self.fastest[n]) for n, ratio in self.ratios.items()}
        return {name: 1 / ratio for name, ratio in most.items() if ratio < SLOWER}

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        shares = self.shares
        return {
            "threads": self.threads,
            "ms": {OURS: self.ours_ms, **self.peers_ms},
            "ratios": {name: asdict(ratio) for name, ratio in self.ratios.items()},
            "fastest": dict(self.fastest),
            "slower_than": self.slower_than,
            "absent": dict(self.absent),
            "kernels": [
                {
                    "name": kernel.name, "template": kernel.template, "spec": kernel.spec,
                    "calls": kernel.calls, "ms": kernel.median_ms, "share": shares[kernel.name],
                }
                for kernel in self.kernels
            ],
        }  # fmt: skip


def time_quickly(artifact: Artifact, source: Source, threads: int) -> QuickTiming:
    """Time an artifact that runs on this machine, on its golden image, beside what else runs the
    network of `source` here.

    Raises UserError for an artifact without the entry that times its kernels.
    """
    require_timed(artifact, "the artifact")
    backend, given = backend_of(artifact.target), artifact.golden_input
    makers = backend.peers(artifact, source, given, threads)

    def measure(session: Session) -> QuickTiming:
        frames = session.time_kernels(1)
        seconds = {OURS: sum(frames[0]) / 1e9}
        sides: dict[str, Callable[[Protocol], list[int]]] = {OURS: session.block}
        absent = {}
        for name, start in makers.items():
            try:
                peer = start()
                seconds[name] = _first_call_s(peer)
            except Exception as error:  # of whatever kind the peer raises
                absent[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                continue
            sides[name] = partial(time_block, peer.run)
        samples = interleave_blocks(sides, choose_protocol(seconds))
        if more := min(MOST_CALLS, int(KERNELS_S / max(seconds[OURS], 1e-9))):
            frames = session.time_kernels(more)
        return summarise(threads, samples, summarise_kernels(artifact, frames), absent)

    return backend.devices(threads, None).use(artifact, measure)


def summarise(
    threads: int, samples: Mapping[str, Samples], kernels: tuple[KernelProfile, ...],
    absent: Mapping[str, str],
) -> QuickTiming:  # fmt: skip
    """From the nanoseconds of every call of each side, round by round."""
    calls = {name: np.concatenate(rounds) / 1e6 for name, rounds in samples.items()}
    peers = [name for name in samples if name != OURS]
    return QuickTiming(
        threads,
        float(np.median(calls[OURS])),
        {name: float(np.median(calls[name])) for name in peers},
        {name: ratio_of_rounds(samples[name], samples[OURS]) for name in peers},
        {name: float(calls[name].min() / calls[OURS].min()) for name in peers},
        kernels,
        absent,
    )


def choose_protocol(seconds: Mapping[str, float]) -> Protocol:
    """How often to call sides whose first calls took so long, within `BLOCKS_S` or one call each:
    a network of seconds is not called twice to be warm."""
    slowest, all_sides = max(*seconds.values(), 1e-9), sum(seconds.values()) or 1e-9
    repeat = max(1, min(MOST_CALLS, int(BLOCK_S / slowest)))
    warmup = 1 if slowest < BLOCK_S else 0
    round_s = (repeat + warmup) * all_sides + len(seconds) * PAUSE_S
    rounds = max(1, min(MOST_ROUNDS, int(BLOCKS_S / round_s)))
    return Protocol(warmup=warmup, repeat=repeat, rounds=rounds, pause_s=PAUSE_S)


def _first_call_s(peer: Peer) -> float:
    start = time.perf_counter()
    peer.run()
    return time.perf_counter() - start
