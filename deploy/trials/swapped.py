"""Candidates on this machine's CPU: one kernel's code is swapped in the running network, frame by
frame."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from deploy import host
from deploy.artifact import Artifact
from deploy.cpu.candidate import LoadedCandidate, candidate_library
from deploy.cpu.kernels import CpuKernels
from deploy.cpu.loaded import LoadedLibrary
from deploy.cpu.passes.schedule_fallback import apply_trace, left_to_tvm, workload_key
from deploy.cpu.pipeline import lower_graph, network_passes
from deploy.graph.job import Job
from deploy.graph.passes import passes_before
from deploy.runtime import open_artifact
from deploy.target import Target
from deploy.trials.apart import run_apart
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


class SwappedBench(TuningBench):
    """As `deploy.trials.bench.TuningBench`."""

    kernels: CpuKernels
    at_once = per_kernel = 1

    def __init__(
        self, graph: onnx.ModelProto, target: Target, kernels: CpuKernels, rule: Artifact
    ) -> None:
        self._target, self.kernels = target, kernels
        nests = passes_before("ScheduleFallback", network_passes(kernels))
        module = lower_graph(Job(graph, target, kernels, nests))
        left = {workload_key(function): function for function in left_to_tvm(module).values()}
        self._network = open_artifact(rule, "the network", threads=kernels.threads)
        assert isinstance(self._network.loaded, LoadedLibrary)
        self._library = self._network.loaded
        self._image, self._calls = rule.golden_input, rule.calls
        self._names = {info.spec: info.name for info in rule.kernels if info.spec}
        times = {text: self._kernel_ns(name) for text, name in self._names.items()}
        # A kernel without time belongs to the other entry, of the logits.
        self.times_ns = {text: ns for text, ns in times.items() if ns}
        self.operations = operations_of(rule, self.times_ns)
        self.nests = {text: left[text] for text in self.times_ns if text in left}

    def measure(self, batch: Sequence[Candidate], keep: Keep, end: float) -> None:
        """As `TuningBench.measure`."""
        for candidate in batch:
            if time.monotonic() < end:
                keep(candidate, self._measure(candidate))

    def _measure(self, candidate: Candidate) -> Measurement:
        name = self._names[candidate.text]
        rule_ns: list[int] = []
        candidate_ns: list[int] = []
        try:
            function = self._make(candidate)
            library = candidate_library(function, self._target)
            run_apart(library, function)
            loaded = LoadedCandidate(library, self._library.backend())
            kind = np.dtype(str(function.params[-1].dtype))
            self._check(name, loaded.address, kind)
            for _ in range(ROUNDS):
                frames: dict[bool, list[int]] = {False: [], True: []}
                for turn in range(FRAMES):
                    # Each is first as often: the second finds the caches as the other left them.
                    for new in (turn % 2 == 1, turn % 2 == 0):
                        frames[new].append(self._frame(name, loaded.address if new else None))
                rule_ns.append(int(np.median(frames[False])))
                candidate_ns.append(int(np.median(frames[True])))
        except UNFIT as error:
            return Measurement(host.cpu_model(), refused=refusal(error))
        return Measurement(host.cpu_model(), tuple(rule_ns), tuple(candidate_ns))

    def _make(self, candidate: Candidate) -> Any:  # noqa: ANN401 - a PrimFunc
        if candidate.text in self.nests:
            return apply_trace(self.nests[candidate.text], candidate.schedule)
        operation = self.operations[candidate.text]
        return self.kernels.emit(operation, candidate.schedule)

    def _kernel_ns(self, name: str) -> int:
        """Median time of a kernel over a few frames, all its calls together."""
        return int(np.median([self._frame(name, None) for _ in range(5)]))

    def _frame(self, name: str, replacement: int | None) -> int:
        """Nanoseconds that the kernel `name` took in one frame, its code replaced or not."""
        total = 0
        with self._library.steps(self._image) as frame:
            for number, called in enumerate(self._calls):
                swapped = called == name
                elapsed = frame.call(number, replacement if swapped else None)
                total += elapsed if swapped else 0
        return total

    def _check(self, name: str, replacement: int, kind: np.dtype[Any]) -> None:
        """Raise AssertionError unless the replacement computes what the kernel computes."""
        errors: list[float] = []
        with self._library.steps(self._image) as frame:
            for number, called in enumerate(self._calls):
                if called != name:
                    frame.call(number)
                    continue
                output = frame.output(number).view(kind)
                output[...] = 77  # what is not written must show
                frame.call(number, replacement)
                found = output.astype(np.float64)
                frame.call(number)
                peak = max(1.0, float(np.abs(output.astype(np.float64)).max()))
                errors.append(float(np.abs(found - output).max()) / peak)
        if not errors or not max(errors) <= TOLERANCE:
            raise AssertionError(f"wrong result, relative error {max(errors, default=-1):.2g}")
