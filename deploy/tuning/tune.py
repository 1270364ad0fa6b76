"""Tuning: candidates of every kernel, timed inside the whole network, one record each."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from deploy import host
from deploy.build import build_artifact
from deploy.ends import with_logits_output
from deploy.importer import import_graph
from deploy.kernels import KERNELS_VERSION, emit
from deploy.kernels.choice import Chooser, schedule_fields, with_fields
from deploy.kernels.ir import compile_kernels
from deploy.pipeline import isa_of, kernel_passes
from deploy.runtime import Network, open_artifact
from deploy.targets import Target
from deploy.tuning.candidates import neighbours
from deploy.tuning.records import Record, append, load_records, matching, winners
from lut.errors import UserError

ROUNDS, FRAMES = 5, 8  # per candidate: rounds, and frames of each side in a round
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

    Kernels come in the order of their time. For each, the neighbours of the best schedule so far
    are measured until `early_stopping` of them in a row bring no gain. What the folder already
    holds is not measured again, so an interrupted run goes on where it was. Returns all matching
    records. Raises UserError for a target without kernels of ours.
    """
    isa = isa_of(target)
    if isa is None:
        raise UserError(f"tune: there are no kernels for {target.config['mcpu']}; it needs AVX2")
    path = folder / f"{target.config['mcpu']}-{threads}-threads.jsonl"
    records = matching(load_records([folder]), target, threads)
    rule = Chooser(isa, threads)
    module = import_graph(with_logits_output(graph))
    for step in kernel_passes(rule):
        module = step(module)
    artifact, _ = build_artifact(graph, target, threads=threads, measured={})
    network = open_artifact(artifact, "the network", threads=threads)
    bench = _Bench(network, target)
    names = {info.spec: info.name for info in artifact.kernels if info.spec}
    specs = sorted(rule.emitted, key=lambda text: -bench.kernel_ns(names.get(text, "")))
    done = 0
    for text in specs:
        if text not in names:  # placed, then cancelled by a later pass
            continue
        spec, without_gain = rule.emitted[text], 0
        mine = [record for record in records if record.spec == text]
        while done < trials and without_gain < early_stopping:
            best = winners(mine).get(text)
            base = with_fields(rule.rule(spec), best) if best else rule.rule(spec)
            tried = [record.schedule for record in mine]
            fresh = (s for s in neighbours(base, isa) if schedule_fields(s) not in tried)
            candidate = next((s for s in fresh if s != rule.rule(spec)), None)
            if candidate is None:
                break
            record = bench.measure(spec, candidate, names[text], isa, threads)
            append(record, path)
            before = max((r.gain for r in mine), default=1.0)
            without_gain = 0 if record.gain > max(before, 1.0) else without_gain + 1
            mine.append(record)
            records.append(record)
            done += 1
            on_trial(Trial(done, text, record.gain, max(r.gain for r in mine)))
    return records


class _Bench:
    """Times one kernel of a network with its own code and with another, frame by frame."""

    def __init__(self, network: Network, target: Target) -> None:
        self.network, self.target = network, target
        self.image = network.artifact.golden.image

    def kernel_ns(self, name: str) -> int:
        """Median time of a kernel over a few frames, all its calls together."""
        frames = [self._frame(name, None) for _ in range(5)]
        return int(np.median(frames))

    def measure(self, spec: Any, schedule: Any, name: str, isa: Any, threads: int) -> Record:  # noqa: ANN401
        rule_ns: list[int] = []
        candidate_ns: list[int] = []
        refused = ""
        try:
            module = compile_kernels({"k": emit(spec, isa, schedule=schedule)}, self._tvm_target())
            self._check(name, module["k"])
            for _ in range(ROUNDS):
                pairs = [(self._frame(name, None), self._frame(name, module["k"]))
                         for _ in range(FRAMES)]  # fmt: skip
                rule_ns.append(int(np.median([rule for rule, _ in pairs])))
                candidate_ns.append(int(np.median([candidate for _, candidate in pairs])))
        # A schedule that does not fit its kernel can fail anywhere in its emission or compilation.
        except (ValueError, TypeError, ZeroDivisionError, IndexError, AssertionError,
                RuntimeError) as error:  # fmt: skip
            refused = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        return Record(
            target=self.target.key,
            threads=threads,
            kernels_version=KERNELS_VERSION,
            spec=repr(spec),
            schedule=schedule_fields(schedule),
            rule_ns=tuple(rule_ns) if not refused else (),
            candidate_ns=tuple(candidate_ns) if not refused else (),
            refused=refused,
            machine=host.cpu_model(),
            versions={tool: version(tool) for tool in TOOLS},
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _tvm_target(self) -> Any:  # noqa: ANN401
        import tvm

        return tvm.target.Target(self.target.config)

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
