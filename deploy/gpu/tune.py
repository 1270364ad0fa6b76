"""Tuning on this machine's GPU: whole networks, in each of which every kernel has another schedule.

A candidate cannot be swapped into a loaded network, as its constants are packed for its schedule,
and compiling a network takes seconds, however many of its kernels are new. So one network carries
one candidate of every kernel, and the GPU's events tell them apart.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.build import build_artifact
from deploy.gpu.build import compile_program
from deploy.gpu.driver import Driver
from deploy.gpu.kernels import GPU_KERNELS_VERSION, MODULES, GpuKernels
from deploy.gpu.network import GpuNetwork
from deploy.gpu.nvrtc import toolkit_version
from deploy.gpu.pipeline import compile_source
from deploy.schedules import schedule_fields, with_fields
from deploy.targets import Target
from deploy.tuning.records import (
    NO_THREADS,
    Record,
    append,
    load_records,
    matching,
    trials_without_gain,
    winners,
)
from deploy.tuning.tune import FRAMES, ROUNDS, TOOLS, Trial
from deploy.verify import replay_golden, require
from lut.errors import WorkError

UNCOUNTED = 2  # frames at the start of each block

Schedules = dict[str, Any]  # by the text of the spec


def tune_on_gpu(
    graph: onnx.ModelProto,
    target: Target,
    folder: Path,
    *,
    trials: int,
    early_stopping: int = 24,
    seconds: float = math.inf,
    rule: Artifact | None = None,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> list[Record]:
    """`deploy.tuning.tune.tune` on the GPU of this machine, for which `target` must be made.

    Only kernels of ours: what is left to TVM keeps its rule. The records of a network are on disk
    when it is measured, and none is begun `seconds` after the rule's is ready, nor a part of one
    that failed: the next run tries that again. `rule` is the rule's own artifact, where the caller
    has it. Returns all matching records. Raises UserError where there is no GPU, WorkError
    where it fails for good.
    """
    half = "-fp16" if target.precision == "fp16" else ""
    path = folder / f"{target.machine}{half}.jsonl"
    records = matching(load_records([folder]), target, NO_THREADS)
    bench = _Bench(graph, target, rule)
    end, done = time.monotonic() + seconds, 0
    while done < trials and time.monotonic() < end:
        offered = {
            text: schedule
            for text, spec in bench.specs.items()
            if (schedule := _next(spec, [r for r in records if r.spec == text], early_stopping))
        }
        if not offered:
            break
        for record in bench.measure(dict(islice(offered.items(), trials - done)), end):
            append(record, path)
            records.append(record)
            done += 1
            best = max(r.gain for r in records if r.spec == record.spec)
            on_trial(Trial(done, record.spec, record.gain, best))
    return records


def _next(spec: Any, mine: list[Record], early_stopping: int) -> Any:  # noqa: ANN401
    """The first alternative that is not on record; None where no other is worth a trial."""
    if trials_without_gain(mine) >= early_stopping:
        return None
    rule = GpuKernels().rule(spec)
    best = winners(mine).get(str(spec))
    tried = [record.schedule for record in mine]
    offered = MODULES[type(spec)].alternatives(spec, with_fields(rule, best) if best else rule)
    return next((s for s in offered if s != rule and schedule_fields(s) not in tried), None)


class _Bench:
    """The rule's network on the GPU, and others beside it. `specs` are those of a frame's kernels
    by their text, the slowest first."""

    def __init__(self, graph: onnx.ModelProto, target: Target, rule: Artifact | None) -> None:
        self._graph, self._target, self._driver = graph, target, Driver()
        if rule is None:
            rule, _ = build_artifact(graph, target, threads=1, measured={})
        self._rule = GpuNetwork(rule, self._driver)
        self._image: NDArray[Any] = rule.golden_input
        kernels = GpuKernels()
        compile_source(graph, target, kernels=kernels)
        self._rule.warm_up(self._image)
        times = self._kernel_ns(self._rule)
        ours = sorted(set(times) & set(kernels.emitted), key=lambda text: -times[text])
        self.specs = {text: kernels.emitted[text] for text in ours}

    def measure(self, schedules: Schedules, end: float = math.inf) -> Iterator[Record]:
        """A record of each schedule, all in one network. Where that cannot be made, does not run or
        computes something else, its halves are measured, down to the one that is to blame; none is
        begun once `time.monotonic` has passed `end`."""
        network = None
        try:
            kernels = GpuKernels({text: schedule_fields(s) for text, s in schedules.items()})
            artifact, _ = compile_program(
                self._graph, self._target, self._rule.artifact, kernels, with_ptx=False
            )
            network = GpuNetwork(artifact, self._driver)
            require([replay_golden(network)])
            rule_ns, other_ns = self._time(network)
        # A schedule that does not fit its kernel can fail anywhere in its emission.
        except (WorkError, ValueError, TypeError, ZeroDivisionError, IndexError, AssertionError,
                RuntimeError) as error:  # fmt: skip
            refused = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        else:
            for text, schedule in schedules.items():
                rule, other = ([ns[text] for ns in rounds] for rounds in (rule_ns, other_ns))
                yield self._record(text, schedule, rule, other)
            return
        finally:
            if network is not None:
                network.close()
        if not self._alive():
            for text, schedule in schedules.items():
                yield self._record(text, schedule, refused=f"with others: {refused}")
            raise WorkError(
                f"the GPU failed for good while candidates ran ({refused}); tune again: all that "
                "was measured is kept, and these are not tried again"
            )
        items = list(schedules.items())
        if len(items) == 1:
            yield self._record(*items[0], refused=refused)
            return
        for part in (items[: len(items) // 2], items[len(items) // 2 :]):
            if time.monotonic() < end:
                yield from self.measure(dict(part), end)

    def _time(self, network: GpuNetwork) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
        """Of every round, the kernels' times in the rule's network and in the other."""
        for side in (self._rule, network):
            side.warm_up(self._image)
        rule_ns: list[dict[str, int]] = []
        other_ns: list[dict[str, int]] = []
        for turn in range(ROUNDS):
            sides = [(self._rule, rule_ns), (network, other_ns)]
            for side, rounds in sides if turn % 2 == 0 else reversed(sides):
                rounds.append(self._kernel_ns(side))
        return rule_ns, other_ns

    def _kernel_ns(self, network: GpuNetwork) -> dict[str, int]:
        """Median nanoseconds of a frame's kernels over a few frames, by the text of the spec, all
        its calls together."""
        specs = {info.name: info.spec for info in network.artifact.kernels}
        sums: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(FRAMES))
        for kernel, ms in network.time_kernels(self._image, UNCOUNTED + FRAMES):
            sums[specs.get(kernel.removesuffix("_kernel"), "")] += ms[UNCOUNTED:]
        # An event's resolution is half a microsecond: none may seem to take no time.
        return {text: max(1, int(1e6 * np.median(values))) for text, values in sums.items()}

    def _alive(self) -> bool:
        """Whether the GPU still runs a frame: after a failed access to memory it runs none."""
        try:
            self._rule(self._image)
        except WorkError:
            return False
        return True

    def _record(
        self,
        text: str,
        schedule: Any,  # noqa: ANN401
        rule_ns: list[int] | None = None,
        candidate_ns: list[int] | None = None,
        refused: str = "",
    ) -> Record:
        device = self._rule.device
        tools = {tool: version(tool) for tool in TOOLS}
        return Record(
            target=self._target.key,
            threads=NO_THREADS,
            kernels_version=GPU_KERNELS_VERSION,
            spec=text,
            schedule=schedule_fields(schedule),
            rule_ns=tuple(rule_ns or ()),
            candidate_ns=tuple(candidate_ns or ()),
            refused=refused,
            machine=device["gpu"],
            versions=tools | {"cuda-nvrtc": toolkit_version(), "driver": device["driver_cuda"]},
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
