"""Tuning on a device: whole networks that differ in one kernel, timed by the device's own clock."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.build import link_library
from deploy.cpu.kernels import KERNELS_VERSION, CpuKernels
from deploy.cpu.pipeline import compile_graph, isa_of
from deploy.devices.network import Remote, RemoteLibrary, load_on
from deploy.devices.session import RemoteSession
from deploy.devices.spread import spread
from deploy.devices.tracker import require_key
from deploy.graph.export import read_metadata
from deploy.measure.interleave import Protocol
from deploy.measure.statistics import Ratio, ratio_of_rounds
from deploy.schedules import schedule_fields, with_fields
from deploy.street import draw_street
from deploy.targets import Target
from deploy.tuning.candidates import candidates
from deploy.tuning.records import (
    Record,
    append,
    load_records,
    matching,
    trials_without_gain,
    winners,
)
from deploy.tuning.tune import FRAMES, ROUNDS, TOLERANCE, TOOLS, Trial
from lut.errors import HmsegError, UserError


def tune_on_devices(
    graph: onnx.ModelProto,
    target: Target,
    folder: Path,
    remote: Remote,
    *,
    trials: int,
    early_stopping: int = 24,
    emulated: bool = True,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> list[Record]:
    """`deploy.tuning.tune.tune` on the devices of a farm, as many candidates at once as there are.

    Only kernels of ours: what is left to TVM keeps its rule. Each record is on disk when its
    candidate is measured; what a lost device was measuring, another measures. Raises UserError for
    a target without kernels of ours, and, unless `emulated`, for an emulated device: its latencies
    mean nothing.
    """
    isa = isa_of(target)
    if isa is None:
        raise UserError(f"tune: there are no kernels for {target.config['mcpu']}")
    path = folder / f"{target.config['mcpu']}-{remote.threads}-threads.jsonl"
    records = matching(load_records([folder]), target, remote.threads)
    rule = CpuKernels(isa, remote.threads)
    bench = _RemoteBench(graph, target, rule, remote, emulated=emulated)
    names = {text: name for name, text in bench.specs.items() if text in rule.emitted}
    times = bench.kernel_ns(list(names.values()))
    done = 0
    for text in sorted(names, key=lambda text: -times[names[text]]):
        spec = rule.emitted[text]
        mine = [record for record in records if record.spec == text]

        def keep(record: Record, mine: list[Record] = mine) -> None:
            nonlocal done
            append(record, path)
            mine.append(record)
            records.append(record)
            done += 1
            on_trial(Trial(done, record.spec, record.gain, max(r.gain for r in mine)))

        while done < trials and trials_without_gain(mine) < early_stopping:
            best = winners(mine).get(text)
            base = with_fields(rule.rule(spec), best) if best else rule.rule(spec)
            tried = [record.schedule for record in mine]
            offered = candidates(spec, base, isa, remote.threads)
            fresh = (s for s in offered if schedule_fields(s) not in tried)
            untried = (s for s in fresh if s != rule.rule(spec))
            batch = list(islice(untried, min(bench.at_once, trials - done)))
            if not batch:
                break
            bench.measure(spec, batch, names[text], keep)
    return records


class _RemoteBench:
    """Times candidates of a network's kernels on the devices of a farm, several at once."""

    def __init__(
        self, graph: onnx.ModelProto, target: Target, rule: CpuKernels, remote: Remote, *,
        emulated: bool,
    ) -> None:  # fmt: skip
        self._emulated = emulated
        remote.on_one(self._machine)  # before long work
        self._graph, self._target, self._rule, self._remote = graph, target, rule, remote
        self._image = draw_street(read_metadata(graph).resolution)
        # By name, the specs of the kernels that a frame calls.
        self.specs: dict[str, str] = {}
        self._library, self._calls = self._build(rule)
        self.at_once = len(require_key(remote.farm.tracker, remote.farm.key).devices)

    def kernel_ns(self, names: Sequence[str]) -> dict[str, int]:
        """Median time of each kernel over a few frames, all its calls together."""
        frames = self._remote.on_one(
            lambda session: self._load(session, self._library).time_kernels(
                self._image, 5, len(self._calls)
            )
        )
        return {name: int(np.median(_sums(frames, self._calls, name))) for name in names}

    def measure(
        self,
        spec: object,
        candidates: Sequence[Any],
        name: str,
        on_record: Callable[[Record], None],
    ) -> None:
        """Measure candidates for the kernel `name`; `on_record` gets each record as it is made."""
        spread(
            self._remote.farm,
            [(candidate, *self._try_to_build(spec, candidate)) for candidate in candidates],
            lambda session, item: self._measure(session, spec, *item, name),
            on_result=lambda _, record: on_record(record),
            on_lost=self._remote.on_lost,
        )

    def _measure(
        self, session: RemoteSession, spec: object, candidate: Any, library: bytes,  # noqa: ANN401
        calls: Sequence[str], refused: str, name: str,
    ) -> Record:  # fmt: skip
        machine = self._machine(session)
        rule_ns: list[int] = []
        candidate_ns: list[int] = []
        if not refused:
            rule, other = (self._load(session, data) for data in (self._library, library))
            refused = _difference(rule, other, self._image)
        for turn in range(0 if refused else ROUNDS):
            sides = [(rule, self._calls, rule_ns), (other, calls, candidate_ns)]
            for network, order, samples in sides if turn % 2 == 0 else reversed(sides):
                frames = network.time_kernels(self._image, FRAMES, len(order))
                samples.append(int(np.median(_sums(frames, order, name))))
        return Record(
            target=self._target.key,
            threads=self._remote.threads,
            kernels_version=KERNELS_VERSION,
            spec=str(spec),
            schedule=schedule_fields(candidate),
            rule_ns=tuple(rule_ns),
            candidate_ns=tuple(candidate_ns),
            refused=refused,
            machine=machine,
            versions={tool: version(tool) for tool in TOOLS},
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _try_to_build(self, spec: object, candidate: Any) -> tuple[bytes, tuple[str, ...], str]:  # noqa: ANN401
        """A library, its kernel calls, and why there is none."""
        measured = {str(spec): schedule_fields(candidate)}
        kernels = CpuKernels(self._rule.isa, self._rule.threads, measured)
        try:
            return *self._build(kernels), ""
        except HmsegError:
            raise
        # A schedule that does not fit its kernel can fail anywhere in its emission.
        except (ValueError, TypeError, ZeroDivisionError, IndexError, AssertionError,
                RuntimeError) as error:  # fmt: skip
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return b"", (), lines[-1][:200]

    def _build(self, kernels: CpuKernels) -> tuple[bytes, tuple[str, ...]]:
        compiled = compile_graph(self._graph, self._target, kernels=kernels)
        if not self.specs:
            specs = {kernel.name: kernel.spec for kernel in compiled.kernels}
            self.specs = {name: specs[name] for name in compiled.calls}
        return link_library(compiled, self._graph.ByteSize()), compiled.calls

    def _machine(self, session: RemoteSession) -> str:
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

    def _load(self, session: RemoteSession, library: bytes) -> RemoteLibrary:
        return RemoteLibrary(library, session, self._remote.threads)


def compare_on_device(
    first: Artifact, second: Artifact, protocol: Protocol, remote: Remote
) -> Ratio:
    """`deploy.tuning.compare.compare_artifacts` on a device: first's time over second's."""
    image = first.golden_input

    def measure(session: RemoteSession) -> Ratio:
        networks = [load_on(session, artifact, remote.threads) for artifact in (first, second)]
        samples: list[list[list[int]]] = [[], []]
        for _ in range(protocol.rounds):
            for network, rounds in zip(networks, samples, strict=True):
                block = network.time_frames(image, protocol.warmup + protocol.repeat)
                rounds.append(block[protocol.warmup :])
        return ratio_of_rounds(*samples)

    return remote.on_one(measure)


def _sums(frames: list[list[int]], calls: Sequence[str], name: str) -> list[int]:
    """Nanoseconds of all calls of one kernel in each frame."""
    return [sum(ns for ns, call in zip(f, calls, strict=True) if call == name) for f in frames]


def _difference(rule: RemoteLibrary, other: RemoteLibrary, image: NDArray[np.uint8]) -> str:
    """Why the two do not compute the same scores; empty where they do."""
    wanted, found = (network.run("logits", image).astype(np.float64) for network in (rule, other))
    error = float(np.abs(wanted - found).max()) / max(1.0, float(np.abs(wanted).max()))
    return "" if error <= TOLERANCE else f"wrong result, relative error {error:.2g}"
