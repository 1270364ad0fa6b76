"""Candidates on this machine's GPU: whole networks, in each of which every kernel has another
schedule.

A candidate cannot be swapped into a loaded network, as its constants are packed for its schedule,
and compiling a network takes seconds, however many of its kernels are new. So one network carries
one candidate of every kernel, and the GPU's events tell them apart.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.gpu.driver import Driver
from deploy.gpu.kernels import GpuKernels
from deploy.gpu.network import GpuNetwork
from deploy.gpu.program import GpuProgram
from deploy.runtime import Network
from deploy.trials.bench import (
    FRAMES,
    ROUNDS,
    UNFIT,
    Candidate,
    Keep,
    Measurement,
    TuningBench,
    operations_of,
    refusal,
)
from deploy.verify import replay_golden, require
from lut.errors import WorkError

UNCOUNTED = 2  # frames at the start of each block


class WholeNetworksBench(TuningBench):
    """As `deploy.trials.bench.TuningBench`; only kernels of ours.

    `build` compiles the network with other kernels. Raises UserError where there is no GPU.
    """

    kernels: GpuKernels
    at_once, per_kernel = sys.maxsize, 1

    def __init__(
        self, kernels: GpuKernels, rule: Artifact, build: Callable[[GpuKernels], Artifact]
    ) -> None:
        self.kernels, self._build, self._driver = kernels, build, Driver()
        self._image: NDArray[Any] = rule.golden_input
        self._rule = self._load(rule)
        self._rule.loaded.warm_up(self._image)
        times = self._kernel_ns(self._rule)
        self.operations = operations_of(rule, times)
        self.times_ns = {text: times[text] for text in self.operations}

    def measure(self, batch: Sequence[Candidate], keep: Keep, end: float) -> None:
        """As `TuningBench.measure`, all in one network. Where that cannot be made, does not run or
        computes something else, its halves are measured, down to the one that is to blame."""
        network = None
        try:
            measured = {candidate.text: candidate.fields for candidate in batch}
            kernels = replace(self.kernels, measured=measured)
            network = self._load(self._build(kernels))
            require([replay_golden(network)])
            rule_ns, other_ns = self._time(network)
        except (WorkError, *UNFIT) as error:
            refused = refusal(error)
        else:
            for candidate in batch:
                rule, other = (
                    tuple(ns[candidate.text] for ns in rounds) for rounds in (rule_ns, other_ns)
                )
                keep(candidate, Measurement(self._driver.name, rule, other))
            return
        finally:
            if network is not None:
                network.loaded.close()
        if not self._alive():
            for candidate in batch:
                keep(candidate, Measurement(self._driver.name, refused=f"with others: {refused}"))
            raise WorkError(
                f"the GPU failed for good while candidates ran ({refused}); tune again: all that "
                "was measured is kept, and these are not tried again"
            )
        if len(batch) == 1:
            keep(batch[0], Measurement(self._driver.name, refused=refused))
            return
        for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            if time.monotonic() < end:
                self.measure(part, keep, end)

    def _load(self, artifact: Artifact) -> "_Loaded":
        assert isinstance(artifact.code, GpuProgram)
        return _Loaded(artifact, GpuNetwork(artifact.code, artifact.metadata, self._driver))

    def _time(self, network: "_Loaded") -> tuple[list[dict[str, int]], list[dict[str, int]]]:
        """Of every round, the kernels' times in the rule's network and in the other."""
        for side in (self._rule, network):
            side.loaded.warm_up(self._image)
        rule_ns: list[dict[str, int]] = []
        other_ns: list[dict[str, int]] = []
        for turn in range(ROUNDS):
            sides = [(self._rule, rule_ns), (network, other_ns)]
            for side, rounds in sides if turn % 2 == 0 else reversed(sides):
                rounds.append(self._kernel_ns(side))
        return rule_ns, other_ns

    def _kernel_ns(self, network: "_Loaded") -> dict[str, int]:
        """Median nanoseconds of a frame's kernels over a few frames, by the text of the operation,
        all its calls together."""
        texts = {info.name: info.spec for info in network.artifact.kernels}
        sums: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(FRAMES))
        for kernel, ms in network.loaded.time_kernels(self._image, UNCOUNTED + FRAMES):
            sums[texts.get(kernel.removesuffix("_kernel"), "")] += ms[UNCOUNTED:]
        # An event's resolution is half a microsecond: none may seem to take no time.
        return {text: max(1, int(1e6 * np.median(values))) for text, values in sums.items()}

    def _alive(self) -> bool:
        """Whether the GPU still runs a frame: after a failed access to memory it runs none."""
        try:
            self._rule(self._image)
        except WorkError:
            return False
        return True


class _Loaded(Network):
    """A network whose code is known to be on a GPU."""

    loaded: GpuNetwork
