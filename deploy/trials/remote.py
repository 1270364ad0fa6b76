"""Candidates on the devices of a place: whole networks that differ in one kernel, several at once,
timed by the device's own clock."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from deploy.artifact import Artifact
from deploy.cpu.kernels import CpuKernels
from deploy.devices.measuring import RemoteMeasuring
from deploy.devices.network import Remote, load_on
from deploy.devices.place import DeviceSession
from deploy.devices.spread import spread
from deploy.measure.device import Session
from deploy.trials.bench import (
    FRAMES,
    ROUNDS,
    TOLERANCE,
    UNFIT,
    Candidate,
    Keep,
    Measurement,
    TuningBench,
    operations_of,
    refusal,
)
from lut.errors import HmsegError, UserError


class RemoteBench(TuningBench):
    """As `deploy.trials.bench.TuningBench`; only kernels of ours. What a lost device was measuring,
    another measures.

    `build` compiles the network with other kernels. Raises UserError for an emulated device unless
    `emulated`: its latencies mean nothing.
    """

    kernels: CpuKernels

    def __init__(
        self, kernels: CpuKernels, rule: Artifact, build: Callable[[CpuKernels], Artifact],
        remote: Remote, *, emulated: bool,
    ) -> None:  # fmt: skip
        self.kernels, self._rule, self._build = kernels, rule, build
        self._remote, self._emulated = remote, emulated
        remote.on_one(self._machine)
        frames = remote.on_one(lambda session: self._load(session, rule).time_kernels(5))
        times = _sums(frames, rule)
        self.operations = operations_of(rule, times)
        self.times_ns = {text: int(np.median(times[text])) for text in self.operations}
        self.at_once = remote.place.count()
        self.per_kernel = self.at_once

    def measure(self, batch: Sequence[Candidate], keep: Keep, end: float) -> None:
        """As `TuningBench.measure`."""
        items = [(c, *self._try_to_build(c)) for c in batch if time.monotonic() < end]
        spread(
            self._remote.place,
            items,
            lambda session, item: self._measure(session, *item),
            on_result=lambda item, measured: keep(item[0], measured),
            on_lost=self._remote.on_lost,
        )

    def _try_to_build(self, candidate: Candidate) -> tuple[Artifact | None, str]:
        """A network with the candidate, or why there is none."""
        kernels = replace(self.kernels, measured={candidate.text: candidate.fields})
        try:
            return self._build(kernels), ""
        except HmsegError:
            raise
        except UNFIT as error:
            return None, refusal(error)

    def _measure(
        self, session: DeviceSession, candidate: Candidate, other: Artifact | None, refused: str
    ) -> Measurement:
        machine = self._machine(session)
        if other is None:
            return Measurement(machine, refused=refused)
        sides = [self._load(session, artifact) for artifact in (self._rule, other)]
        if wrong := _difference(*sides):
            return Measurement(machine, refused=wrong)
        samples: list[list[int]] = [[], []]
        for turn in range(ROUNDS):
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                frames = sides[side].time_kernels(FRAMES)
                sums = _sums(frames, sides[side].network.artifact)[candidate.text]
                samples[side].append(int(np.median(sums)))
        return Measurement(machine, tuple(samples[0]), tuple(samples[1]))

    def _machine(self, session: DeviceSession) -> str:
        """The device of this session; raises UserError for an emulated one that is not wanted."""
        device = session.report()
        if device["emulated"] is not True:
            return str(device["machine"])
        if not self._emulated:
            raise UserError(
                f"device {session.name} is emulated: its latencies mean nothing, and the default "
                "folder's records are used by every compilation; name another with --records"
            )
        return f"{device['machine']} (emulated)"

    def _load(self, session: DeviceSession, artifact: Artifact) -> RemoteMeasuring:
        return RemoteMeasuring(load_on(session, artifact, self.kernels.threads))


def _sums(frames: list[list[int]], artifact: Artifact) -> dict[str, list[int]]:
    """For each kernel, by its operation's text, the nanoseconds of all its calls in each frame."""
    texts = {info.name: info.spec for info in artifact.kernels}
    calls = [texts[name] for name in artifact.calls]
    return {
        text: [sum(ns for ns, call in zip(f, calls, strict=True) if call == text) for f in frames]
        for text in dict.fromkeys(calls)
    }


def _difference(rule: Session, other: Session) -> str:
    """Why the two do not compute the same scores; empty where they do."""
    wanted, found = (s.network.logits(s.given).astype(np.float64) for s in (rule, other))
    error = float(np.abs(wanted - found).max()) / max(1.0, float(np.abs(wanted).max()))
    return "" if error <= TOLERANCE else f"wrong result, relative error {error:.2g}"
