"""Tuning: candidates of every kernel, timed inside the whole network, one record each.

Kernels of ours go through the neighbours of their rule; for what is left to TVM MetaSchedule
searches, where the backend's bench offers its loop nests, and the fastest that it finds is the one
candidate.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import onnx

from deploy.artifact import Artifact
from deploy.backends import backend_of
from deploy.backends.base import Job
from deploy.devices.network import Remote
from deploy.schedules import TRACE, schedule_fields, with_fields
from deploy.target import Target
from deploy.trials.bench import Candidate, Keep, Measurement, TuningBench
from deploy.tuning.metaschedule import search
from deploy.tuning.records import (
    Record,
    append,
    load_records,
    matching,
    trials_without_gain,
    winners,
)
from lut.files import lock_folder

SEARCH_TRIALS = 64  # of MetaSchedule for one loop nest, over all runs
TOOLS = ("apache-tvm", "apache-tvm-ffi")


@dataclass(frozen=True)
class Trial:
    """What one measured candidate came to, for progress."""

    number: int
    spec: str
    gain: float
    best_gain: float


@dataclass(frozen=True)
class Limits:
    """`trials` candidates in all; a kernel is left after `early_stopping` of them in a row, those
    on record too, without a gain of `records.MIN_GAIN`; none is begun after `seconds`."""

    trials: int
    early_stopping: int = 24
    seconds: float = math.inf


def tune(
    graph: onnx.ModelProto,
    target: Target,
    folder: Path,
    rule: Artifact,
    limits: Limits,
    *,
    threads: int,
    remote: Remote | None = None,
    emulated: bool = True,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> list[Record]:
    """Measure candidates and append a record of each to a file in `folder`.

    `rule` is the network without records, `threads` what the user asked for, `remote` where to
    measure it, else here; `emulated` whether an emulated device will do. Kernels come in the order
    of their time. A loop nest of TVM's own gets candidates of MetaSchedule, `SEARCH_TRIALS` at
    most, each of which counts as a trial; the fastest is then measured like any other. What the
    folder already holds is not measured again, so an interrupted run goes on where it was. Returns
    all matching records. Raises UserError for a target without kernels of ours, and where nothing
    measures it, or another process tunes into the folder.
    """
    backend = backend_of(target)
    kernels = backend.kernels(target, threads, {})
    job = Job(graph, target, kernels)
    bench = backend.tuning_bench(job, rule, threads, remote, emulated=emulated)
    key = target.key, backend.record_threads(threads), backend.kernels_version
    name = f"{target.machine}-{key[1]}-threads" if key[1] else target.machine
    path = folder / f"{name}{target.precision.suffix}.jsonl"
    tools = {tool: version(tool) for tool in TOOLS} | backend.versions()

    def keep(candidate: Candidate, measured: Measurement) -> None:
        date = datetime.now(UTC).isoformat(timespec="seconds")
        record = Record(
            *key, candidate.text, candidate.fields, measured.rule_ns, measured.candidate_ns,
            measured.refused, measured.machine, tools, date,
        )  # fmt: skip
        append(record, path)
        run.add(record)

    searched: set[str] = set()
    with lock_folder(folder):
        run = _Run(bench, limits, matching(load_records([folder]), *key), on_trial)
        while not run.over:
            batch, nest = run.next_batch(searched)
            if batch:
                bench.measure(batch, keep, run.end)
            elif nest:
                searched.add(nest)
                run.search(nest, target, folder, threads, keep)
            else:
                break
    return run.records


class _Run:
    """What is on record, and what is left to do."""

    def __init__(
        self, bench: TuningBench, limits: Limits, records: list[Record],
        on_trial: Callable[[Trial], None],
    ) -> None:  # fmt: skip
        self.bench, self.limits, self.records, self.on_trial = bench, limits, records, on_trial
        self.done, self.end = 0, time.monotonic() + limits.seconds
        self._slowest_first = sorted(bench.times_ns, key=lambda text: -bench.times_ns[text])

    @property
    def over(self) -> bool:
        """Whether a limit is reached."""
        return self.done >= self.limits.trials or time.monotonic() >= self.end

    def add(self, record: Record) -> None:
        """Note what was measured."""
        self.records.append(record)
        self.done += record.spec not in self.bench.nests  # whose search has counted
        best = max(r.gain for r in self._of(record.spec))
        self.on_trial(Trial(self.done, record.spec, record.gain, best))

    def next_batch(self, searched: set[str]) -> tuple[list[Candidate], str]:
        """What to measure together; where there is nothing before it, a nest to search."""
        batch: list[Candidate] = []
        most = min(self.bench.at_once, self.limits.trials - self.done)
        for text in self._slowest_first:
            if len(batch) >= most:
                break
            if text not in self.bench.nests:
                batch += islice(self._untried(text), min(self.bench.per_kernel, most - len(batch)))
            elif text not in searched:
                return batch, text
        return batch, ""

    def _untried(self, text: str) -> Iterator[Candidate]:
        mine = self._of(text)
        if trials_without_gain(mine) >= self.limits.early_stopping:
            return
        operation = self.bench.operations[text]
        rule, best = self.bench.kernels.rule(operation), winners(mine).get(text)
        tried = [record.schedule for record in mine]
        base = with_fields(rule, best) if best else rule
        for schedule in self.bench.kernels.alternatives(operation, base):
            if schedule != rule and schedule_fields(schedule) not in tried:
                tried.append(schedule_fields(schedule))
                yield Candidate(text, schedule)

    def search(self, nest: str, target: Target, folder: Path, threads: int, keep: Keep) -> None:
        """Let MetaSchedule search for a loop nest, and measure what it finds."""
        before = self.done
        found = search(
            self.bench.nests[nest], target, folder, threads=threads, limit=SEARCH_TRIALS,
            budget=self.limits.trials - before, early_stopping=self.limits.early_stopping,
            on_tried=lambda tried: self.on_trial(Trial(before + tried, nest, 1.0, 1.0)),
        )  # fmt: skip
        self.done += found.tried
        schedule = {TRACE: found.trace}
        if found.trace is not None and schedule not in [r.schedule for r in self._of(nest)]:
            self.bench.measure([Candidate(nest, schedule)], keep, math.inf)

    def _of(self, text: str) -> list[Record]:
        return [record for record in self.records if record.spec == text]
