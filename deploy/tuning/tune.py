"""Tuning: candidates of every kernel, timed inside the whole network, one record each.

Kernels of ours go through the neighbours of their rule; for what is left to TVM MetaSchedule
searches, and the fastest that it finds is the one candidate.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm

from deploy import host
from deploy.build import build_artifact
from deploy.cpu.kernels import KERNELS_VERSION, CpuKernels, emit
from deploy.cpu.machine_code import compile_kernels
from deploy.cpu.passes.schedule_fallback import TRACE, apply_trace, left_to_tvm, workload_key
from deploy.cpu.pipeline import isa_of, lowering_passes
from deploy.graph.ends import with_logits_output
from deploy.graph.importer import import_graph
from deploy.runtime import Network, open_artifact
from deploy.schedules import schedule_fields, with_fields
from deploy.targets import Target
from deploy.tuning.apart import run_apart
from deploy.tuning.candidates import candidates
from deploy.tuning.metaschedule import search
from deploy.tuning.records import (
    Record,
    append,
    load_records,
    matching,
    trials_without_gain,
    winners,
)
from lut.errors import UserError

ROUNDS, FRAMES = 5, 8  # per candidate: rounds, and frames of each side in a round
SEARCH_TRIALS = 64  # of MetaSchedule for one loop nest, over all runs
TOLERANCE = 1e-4  # relative to the largest output of the kernel
TOOLS = ("apache-tvm", "apache-tvm-ffi")


@dataclass(frozen=True)
class Trial:
    """What one measured candidate came to, for progress."""

    number: int
    spec: str
    gain: float
    best_gain: float


def tune(
    graph: onnx.ModelProto,
    target: Target,
    folder: Path,
    *,
    threads: int,
    trials: int,
    early_stopping: int = 24,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> list[Record]:
    """Measure up to `trials` candidates and append a record of each to a file in `folder`.

    Kernels come in the order of their time. For each, the candidates beside the best schedule so
    far are measured until `early_stopping` of them in a row, those on record too, bring no gain of
    `records.MIN_GAIN`. A loop nest of TVM's own
    gets as many candidates of MetaSchedule, `SEARCH_TRIALS` at most, each of which counts as a
    trial; the fastest is then measured like any other candidate. What the folder already holds is
    not measured again, so an interrupted run goes on where it was. Returns all matching records.
    Raises UserError for a target without kernels of ours.
    """
    isa = isa_of(target)
    if isa is None:
        raise UserError(f"tune: there are no kernels for {target.config['mcpu']}; it needs AVX2")
    path = folder / f"{target.config['mcpu']}-{threads}-threads.jsonl"
    records = matching(load_records([folder]), target, threads)
    rule = CpuKernels(isa, threads)
    module = import_graph(with_logits_output(graph))
    with tvm.target.Target(target.config):
        for step in lowering_passes(rule):
            module = step(module)
    left = {workload_key(function): function for function in left_to_tvm(module).values()}
    artifact, _ = build_artifact(graph, target, threads=threads, measured={})
    network = open_artifact(artifact, "the network", threads=threads)
    bench = _Bench(network, target)
    names = {info.spec: info.name for info in artifact.kernels if info.spec}
    placed = [text for text in (*rule.emitted, *left) if text in names]  # the others: cancelled
    times = {text: bench.kernel_ns(names[text]) for text in placed}
    done = 0
    # A kernel without time belongs to the other entry, of the logits.
    for text in sorted((t for t in placed if times[t]), key=lambda t: -times[t]):
        mine = [record for record in records if record.spec == text]
        if text in left:
            function = left[text]
            found = search(
                function, target, folder, threads=threads, limit=SEARCH_TRIALS,
                budget=trials - done, early_stopping=early_stopping,
                on_tried=lambda tried: on_trial(Trial(done + tried, text, 1.0, 1.0)),  # noqa: B023
            )  # fmt: skip
            done += found.tried
            schedule = {TRACE: found.trace}
            if found.trace is not None and schedule not in [record.schedule for record in mine]:
                make = partial(apply_trace, function, schedule)
                record = bench.measure(text, schedule, make, names[text], threads)
                append(record, path)
                records.append(record)
                on_trial(Trial(done, text, record.gain, record.gain))
            continue
        spec = rule.emitted[text]
        while done < trials and trials_without_gain(mine) < early_stopping:
            best = winners(mine).get(text)
            base = with_fields(rule.rule(spec), best) if best else rule.rule(spec)
            tried = [record.schedule for record in mine]
            offered = candidates(spec, base, isa, threads)
            fresh = (s for s in offered if schedule_fields(s) not in tried)
            candidate = next((s for s in fresh if s != rule.rule(spec)), None)
            if candidate is None:
                break
            make = partial(emit, spec, isa, schedule=candidate)
            record = bench.measure(text, schedule_fields(candidate), make, names[text], threads)
            append(record, path)
            mine.append(record)
            records.append(record)
            done += 1
            on_trial(Trial(done, text, record.gain, max(r.gain for r in mine)))
    return records


class _Bench:
    """Times one kernel of a network with its own code and with another, frame by frame."""

    def __init__(self, network: Network, target: Target) -> None:
        self.network, self.target = network, target
        self.image = network.artifact.golden_input

    def kernel_ns(self, name: str) -> int:
        """Median time of a kernel over a few frames, all its calls together."""
        frames = [self._frame(name, None) for _ in range(5)]
        return int(np.median(frames))

    def measure(
        self,
        spec: str,
        schedule: dict[str, Any],
        make: Callable[[], Any],
        name: str,
        threads: int,
    ) -> Record:
        """The record of the PrimFunc that `make` gives, in the place of the kernel `name`."""
        rule_ns: list[int] = []
        candidate_ns: list[int] = []
        refused = ""
        try:
            function = make()
            module = compile_kernels({"k": function}, tvm.target.Target(self.target.config))
            run_apart(module, function)
            self._check(name, module["k"])
            for _ in range(ROUNDS):
                frames: dict[bool, list[int]] = {False: [], True: []}
                for turn in range(FRAMES):
                    # Each is first as often: the second finds the caches as the other left them.
                    for new in (turn % 2 == 1, turn % 2 == 0):
                        frames[new].append(self._frame(name, module["k"] if new else None))
                rule_ns.append(int(np.median(frames[False])))
                candidate_ns.append(int(np.median(frames[True])))
        # A schedule that does not fit its kernel can fail anywhere in its emission or compilation.
        except (ValueError, TypeError, ZeroDivisionError, IndexError, AssertionError,
                RuntimeError) as error:  # fmt: skip
            refused = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        return Record(
            target=self.target.key,
            threads=threads,
            kernels_version=KERNELS_VERSION,
            spec=spec,
            schedule=schedule,
            rule_ns=tuple(rule_ns) if not refused else (),
            candidate_ns=tuple(candidate_ns) if not refused else (),
            refused=refused,
            machine=host.cpu_model(),
            versions={tool: version(tool) for tool in TOOLS},
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _frame(self, name: str, replacement: Any) -> int:  # noqa: ANN401
        """Nanoseconds that the kernel `name` took in one frame, its code replaced or not."""
        total = 0

        def swap(function: Any, symbol: str, before: bool, args: tuple[Any, ...]) -> bool:  # noqa: ANN401
            nonlocal total
            if symbol != name or not before:
                return False
            call = replacement or function
            start = time.perf_counter_ns()
            call(*args)
            total += time.perf_counter_ns() - start
            return True

        self.network.instrument(swap)
        try:
            self.network(self.image)
        finally:
            self.network.instrument(None)
        return total

    def _check(self, name: str, replacement: Any) -> None:  # noqa: ANN401
        """Raise AssertionError unless the replacement computes what the kernel computes."""
        errors: list[float] = []

        def both(function: Any, symbol: str, before: bool, args: tuple[Any, ...]) -> bool:  # noqa: ANN401
            if symbol != name or not before:
                return False
            output = np.from_dlpack(args[-1])
            output_before = np.full_like(output, 77)
            np.copyto(output, output_before)  # what is not written must show
            replacement(*args)
            found = output.astype(np.float64)
            function(*args)
            peak = max(1.0, float(np.abs(output.astype(np.float64)).max()))
            errors.append(float(np.abs(found - output).max()) / peak)
            return True

        self.network.instrument(both)
        try:
            self.network(self.image)
        finally:
            self.network.instrument(None)
        if not errors or not max(errors) <= TOLERANCE:
            raise AssertionError(f"wrong result, relative error {max(errors, default=-1):.2g}")
