"""One configuration: graph, sides prepared, checked, and timed in turn."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers_lib import adapters, cache
from benchmarks.peers_lib.adapters import OURS, PROBE
from benchmarks.peers_lib.adapters.hmseg_side import COMPILED
from benchmarks.peers_lib.job import Config, Job, LabelEnd, Work
from benchmarks.peers_lib.side import Side, prepare
from deploy.measure.statistics import summarise
from deploy.precision import FP32
from lut.errors import WorkError
from lut.files import write_atomic

MIN_AGREEMENT = 0.999  # of labels with onnxruntime's
MAX_LOGIT_ERROR = 1e-3  # of the logits' standard deviation
# Labels of a low precision that may be others than onnxruntime's: random weights have many ties.
MOST_DIFFERING_LOW = 0.2


@dataclass(frozen=True)
class Timing:
    """The protocol: blocks of about `block_s` seconds, `rounds` of each side."""

    rounds: int = 5
    warmup: int = 2
    block_s: float = 0.2
    min_repeat: int = 3
    max_repeat: int = 100
    pause_s: float = 0.05

    def warmups(self, call_s: float) -> int:
        """Calls before a block, not counted: one is enough for a call as long as a block."""
        return min(self.warmup, max(1, round(self.block_s / call_s)))

    def repeat(self, call_s: float) -> int:
        """Counted calls of a block, for a side that takes `call_s` a call."""
        return min(self.max_repeat, max(self.min_repeat, round(self.block_s / call_s)))


class Runner:
    """Prepares and times configurations; conversions are kept in `cache`."""

    def __init__(self, cache: Path, timing: Timing, say: Callable[[str], None]) -> None:
        self.cache, self.timing, self.say = cache, timing, say
        self._reference: tuple[str, NDArray[Any]] | None = None

    def prepare(self, name: str, config: Config) -> Work:
        """Convert for one side, unless that was done; raises WorkError with the reason."""
        try:
            print_ = adapters.fingerprint(name, config.threads)
        except PackageNotFoundError as error:
            raise WorkError(f"not installed: {error.name}") from error
        graph, digest = self._graph(config)
        if name == OURS and config.precision != FP32.name:
            print_ += f"-{config.precision}"
        folder = graph.parent / f"{name}-{digest}-{print_}"
        work = Work(config, graph, folder, self._file(config) if config.exporter else None)
        done = folder / "prepared.json"
        if not done.exists():
            folder.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            prepare(name, work, folder / "prepare.log")
            write_atomic(done, json.dumps({"seconds": time.perf_counter() - start}))
        return work

    def prepare_all(self, config: Config, peers: list[str]) -> dict[str, str]:
        """Convert for every side, without timing; the reasons of those that cannot."""
        failed = {}
        for name in (OURS, *peers):
            for end in label_ends(name, config.job):
                self.say(f"{config}: preparing {name} ({end})")
                try:
                    self.prepare(name, with_end(config, end))
                except WorkError as error:
                    failed[f"{name} ({end})"] = str(error)
        return failed

    def run(self, config: Config, peers: list[str]) -> dict[str, Any]:
        """Time one configuration; the record without its provenance.

        Raises WorkError if our own side fails; a peer that fails is in the record's `skipped`.
        """
        sides: dict[str, Side] = {}
        notes: dict[str, dict[str, Any]] = {}
        skipped: dict[str, str] = {}
        probe: Side | None = None
        try:
            for name in (OURS, *peers):
                self.say(f"{config}: {name}")
                try:
                    sides[name], notes[name] = self._open_best(name, config)
                except WorkError as error:
                    if name == OURS:
                        raise
                    skipped[name] = str(error)
                    self.say(f"{config}: {name} is left out: {error}")
            probe, probe_note = self._open_probe(config)
            blocks = self._time(config, sides, notes, skipped, probe)
        finally:
            for side in (*sides.values(), *([probe] if probe else [])):
                side.close()
        return {
            "config": config.to_json(),
            "macs": self._macs(config),
            "requested": sorted(peers),
            "protocol": asdict(self.timing),
            "sides": {
                name: notes[name]
                | {
                    "samples_ns": blocks[name][0],
                    "probe_gflops": blocks[name][1],
                    "latency": asdict(summarise([n for block in blocks[name][0] for n in block])),
                }
                for name in sides
                if name not in skipped
            },
            "skipped": skipped,
            "probe": probe_note,
        }

    def _time(
        self, config: Config, sides: dict[str, Side], notes: dict[str, dict[str, Any]],
        skipped: dict[str, str], probe: Side | None,
    ) -> dict[str, tuple[list[list[int]], list[float]]]:  # fmt: skip
        """Blocks in turn, the order turned around every round; samples and probes of each side."""
        blocks: dict[str, tuple[list[list[int]], list[float]]] = {n: ([], []) for n in sides}
        for index in range(self.timing.rounds):
            self.say(f"{config}: round {index + 1} of {self.timing.rounds}")
            for name in list(sides) if index % 2 == 0 else list(reversed(sides)):
                if name in skipped:
                    continue
                try:
                    if probe:
                        blocks[name][1].append(probe.ask(do="value")["value"])
                    blocks[name][0].append(
                        sides[name].block(
                            notes[name]["warmup"], notes[name]["repeat"], self.timing.pause_s
                        )
                    )
                except WorkError as error:
                    if name == OURS:
                        raise
                    skipped[name] = f"in round {index + 1}: {error}"
        return blocks

    def _open_best(self, name: str, config: Config) -> tuple[Side, dict[str, Any]]:
        """Open a side, with the faster of its label ends where it has two that work."""
        opened: dict[LabelEnd, tuple[Side, float]] = {}
        failed: dict[LabelEnd, str] = {}
        try:
            for end in label_ends(name, config.job):
                try:
                    work = self.prepare(name, with_end(config, end))
                    side = Side(name, work, end, work.folder / "run.log")
                except WorkError as error:
                    failed[end] = str(error)
                    continue
                opened[end] = side, np.inf
                try:
                    self._check(side, config)
                    # Enough to choose an end and to find the number of calls in a block.
                    call_ns = float(np.median(side.block(2, 5, self.timing.pause_s)))
                    opened[end] = side, call_ns / 1e9
                except WorkError as error:
                    failed[end] = str(error)
                    opened.pop(end)[0].close()
            if not opened:
                raise WorkError("; ".join(dict.fromkeys(failed.values())))
        except BaseException:
            for side, _ in opened.values():
                side.close()
            raise
        best = min(opened, key=lambda end: opened[end][1])
        for end, (side, _) in opened.items():
            if end != best:
                side.close()
        side, call_s = opened[best]
        adapter = adapters.load_adapter(name)
        compiled = side.work.folder / COMPILED
        return side, {
            **({"compiled": json.loads(compiled.read_text())} if compiled.exists() else {}),
            "versions": adapters.versions(adapter),
            "settings": adapter.SETTINGS,
            "image_end": adapter.IMAGE_END if config.input == "image" else None,
            "label_end": best if config.job == "labels" else None,
            "label_ends_tried_ms": {end: 1e3 * seconds for end, (_, seconds) in opened.items()},
            "label_ends_failed": failed,
            "memory": {k: side.loaded[k] for k in ("base_kib", "peak_kib")},
            "warmup": self.timing.warmups(call_s),
            "repeat": self.timing.repeat(call_s),
        }

    def _open_probe(self, config: Config) -> tuple[Side | None, str]:
        try:
            work = self.prepare(PROBE, config)
            return Side(PROBE, work, "graph", work.folder / "run.log"), "FMA in registers, GFLOP/s"
        except WorkError as error:
            self.say(f"no FMA probe: {error}")
            return None, f"none: {error}"

    def _check(self, side: Side, config: Config) -> None:
        """Raise WorkError unless a side's output is onnxruntime's."""
        reference = self._reference_logits(side.work)
        found, precision = side.output(), adapters.precision_of(side.name, config.precision)
        if config.job == "labels":
            least = MIN_AGREEMENT if precision is FP32 else 1 - MOST_DIFFERING_LOW
            wrong = difference_of_labels(found, reference, least)
        else:
            most = MAX_LOGIT_ERROR if precision is FP32 else precision.relative_tolerance
            wrong = difference_of_logits(found, reference, most)
        if wrong:
            raise WorkError(f"wrong results: {wrong}")

    def _reference_logits(self, work: Work) -> NDArray[Any]:
        import onnx

        from deploy.graph.reference import Reference

        graph, digest = self._graph(replace(work.config, job="logits"))
        if self._reference is None or self._reference[0] != digest:
            self._reference = digest, Reference(onnx.load(graph))(work.image())[1]
        return self._reference[1]

    def _macs(self, config: Config) -> int:
        import onnx

        from benchmarks.peers_lib.network import count_macs
        from deploy.graph.float64 import multiply_adds

        graph = onnx.load(self._graph(config)[0])
        if not config.exporter:
            return count_macs(graph)
        return round(found) if isfinite(found := multiply_adds(graph)) else 0

    def _graph(self, config: Config) -> tuple[Path, str]:
        """The folded ONNX file of a configuration, made once, and its digest."""
        path = self._folder(config, config.job) / "network.onnx"
        file = self._file(config) if config.exporter else None

        def make() -> None:
            from deploy.graph.export import save_onnx

            if file is None:
                from benchmarks.peers_lib.network import create_graph

                graph = create_graph(config)
            else:
                from benchmarks.peers_lib.families import read_graph

                graph = read_graph(config, file)
            save_onnx(graph, path)

        sources = adapters.graph_digest() + _fitted_digest(config)
        if file is not None:
            sources += hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        self._made(config, path, sources, make)
        return path, hashlib.sha256(path.read_bytes()).hexdigest()[:12]

    def _file(self, config: Config) -> Path:
        """The file of a network of `hmseg.families` as its user has it, written once."""
        from benchmarks.peers_lib.families import write_file

        path = self._folder(config, "file") / f"{config.model}.onnx"
        sources = adapters.file_digest() + _fitted_digest(config)
        self._made(config, path, sources, lambda: write_file(config, path))
        return path

    def _folder(self, config: Config, what: str) -> Path:
        by = f"-{config.exporter}" if config.exporter else ""
        return self.cache / f"{config.model}-{config.resolution}{by}-{what}"

    def _made(self, config: Config, path: Path, sources: str, make: Callable[[], None]) -> None:
        """Have a file made, unless it was made from the same sources."""
        stamp = path.with_suffix(".sources")
        if not stamp.exists() or stamp.read_text() != sources:
            self.say(f"{config}: exporting {path.parent.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            make()
            write_atomic(stamp, sources)


def _fitted_digest(config: Config) -> str:
    """Of a fitted classifier, where the network has one; raises UserError where it is not there."""
    if not config.model.endswith(cache.FITTED):
        return ""
    return hashlib.sha256(cache.found(config.model).read_bytes()).hexdigest()[:12]


def label_ends(name: str, job: Job) -> tuple[LabelEnd, ...]:
    """The label ends to try for a side."""
    return adapters.load_adapter(name).LABEL_ENDS if job == "labels" else ("graph",)


def with_end(config: Config, end: LabelEnd) -> Config:
    """What the runtime itself computes: with the arg-max outside, the logits."""
    return config if end == "graph" else replace(config, job="logits")


def difference_of_labels(
    found: NDArray[Any], logits: NDArray[Any], least: float = MIN_AGREEMENT
) -> str | None:
    """Why these are not the labels (H, W) of logits (K, H, W), or None."""
    expected = logits.argmax(0)
    if found.shape != expected.shape:
        return f"shape {found.shape}, not {expected.shape}"
    agreement = float((found == expected).mean())
    if agreement < least:
        return f"{agreement:.4%} of the labels agree with onnxruntime's"
    return None


def difference_of_logits(
    found: NDArray[Any], expected: NDArray[Any], most: float = MAX_LOGIT_ERROR
) -> str | None:
    """Why these are not the logits (K, H, W), or None."""
    if found.shape != expected.shape or found.dtype != np.float32:
        return f"{found.dtype} {found.shape}, not float32 {expected.shape}"
    error = float(np.abs(found - expected).max() / expected.std())
    # Not "error > limit": NaN has to fail.
    return None if error <= most else f"off by {error:.2e} of the standard deviation"
