"""The compiled network beside what a user would run on the same machine instead, in turn."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import TVM, Artifact
from deploy.artifact_file import save_artifact
from deploy.backends import backend_of
from deploy.devices.network import Remote
from deploy.graph.export import save_onnx
from deploy.graph.source import Source
from deploy.measure.device import Session
from deploy.measure.interleave import Protocol, Samples, interleave_blocks, time_block
from deploy.measure.memory import PeakMemory, measure_peak
from deploy.measure.peer import Peer
from deploy.measure.statistics import Ratio, Summary, ratio_of_rounds, summarise
from deploy.metadata import Metadata
from deploy.precision import FP32, PRECISIONS, PeersPrecision
from deploy.profile import Profile, profile, require_timed, summarise_kernels

OURS, PEER = "hmseg", "onnxruntime"
MOST_DIFFERING = 0.01  # of the pixels: between two float32 networks only ties may differ
_SHARE_FRAMES = 3  # that say what share of a frame its kernels take: a few percent, not a latency


@dataclass(frozen=True)
class BenchResult:
    """One run of all sides."""

    samples: dict[str, Samples]
    machine: dict[str, Any]  # `Session.machine`
    includes: str  # what the time includes, in words
    threads: int
    metadata: Metadata
    note: str = ""  # on the precision, for a title
    absent: dict[str, str] = field(default_factory=dict)  # peers that are not timed, and why
    notes: dict[str, str] = field(default_factory=dict)  # on peers that are
    differing: dict[str, float] = field(default_factory=dict)  # share of pixels, by peer
    precisions: dict[str, str] = field(default_factory=dict)  # of each side
    parts: dict[str, list[int]] = field(default_factory=dict)  # of our frames, in nanoseconds
    memory: dict[str, PeakMemory] = field(default_factory=dict)
    profile: Profile | None = None  # of the same loaded network, after it
    # Of the time of a frame's kernels the shares of those that TVM's own lowering made, by name;
    # None where it was not looked at.
    left_to_tvm: dict[str, float] | None = None

    @property
    def calls(self) -> dict[str, list[int]]:
        """Nanoseconds of every call of each side."""
        return {name: list(chain.from_iterable(rounds)) for name, rounds in self.samples.items()}

    @property
    def summaries(self) -> dict[str, Summary]:
        """Latencies of each side over all rounds."""
        return {name: summarise(calls) for name, calls in self.calls.items()}

    @property
    def ratios(self) -> dict[str, Ratio]:
        """Each peer's time over ours."""
        ours = self.samples[OURS]
        return {
            name: ratio_of_rounds(rounds, ours)
            for name, rounds in self.samples.items()
            if name != OURS
        }

    @property
    def fastest_peer(self) -> str | None:
        """By the median over all rounds, whatever its precision."""
        peers = {n: s.median_ms for n, s in self.summaries.items() if n != OURS}
        return min(peers, key=lambda name: peers[name]) if peers else None

    @property
    def parts_ms(self) -> dict[str, float]:
        """Medians of the parts of our frames."""
        return {name: float(np.median(ns)) / 1e6 for name, ns in self.parts.items()}

    def to_json(self) -> dict[str, Any]:
        """For --json and for the results: summaries, ratios, memory, raw samples."""
        found = {
            "input": self.metadata.input,
            "output": self.metadata.output,
            "threads": self.threads,
            "machine": self.machine,
            "includes": self.includes,
            "latency": {name: asdict(summary) for name, summary in self.summaries.items()},
            "ratios": {name: asdict(ratio) for name, ratio in self.ratios.items()},
            "samples_ns": self.samples,
            "precisions": self.precisions,
        }
        optional = {
            "parts_ms": self.parts_ms,
            "absent": self.absent,
            "notes": self.notes,
            "differing_labels": self.differing,
            "memory": {
                name: asdict(peak) | {"network_kib": peak.network_kib}
                for name, peak in self.memory.items()
            },
            "profile": self.profile.to_json() if self.profile else None,
        }
        if self.left_to_tvm is not None:  # that nothing is left is known too
            found["left_to_tvm"] = self.left_to_tvm
        return found | {name: value for name, value in optional.items() if value}


def bench(
    artifact: Artifact,
    source: Source,
    image: NDArray[np.uint8],
    protocol: Protocol,
    *,
    threads: int,
    remote: Remote | None = None,
    profiled: bool = False,
    memory: bool = True,
    all_peers: bool = False,
    shares: bool = False,
    peers_precision: PeersPrecision | None = None,
    on_round: Callable[[int], None] = lambda _: None,
) -> BenchResult:
    """Time an artifact and its peers on one image uint8 (H, W, C), which is normalised before where
    they take a tensor: in blocks, in turn; on a device the network alone, by the device's clock.

    Each side returns its output on the host. A peer is not timed where it does not run here, nor
    where its labels differ from ours in more pixels than ties and the precision explain; the result
    says why. With `all_peers` those too that a user need not have; where `peers_precision` is
    "any", as it is by default for maps in low precision, these in each precision of theirs, else in
    float32. `memory` is measured in
    processes of their own, where that is possible. Where `profiled`, the network's kernels are
    timed too, afterwards; with `shares` a few frames say what is left to TVM, where a CPU runs it.
    Raises UserError as `deploy.profile.profile` does, before anything is
    timed.
    """
    if profiled:
        require_timed(artifact, "the artifact")
    backend, given = backend_of(artifact.target), artifact.metadata.network_input(image)
    makers: Mapping[str, Callable[[], Peer]] = {}
    if remote is None:  # a device runs nothing but our libraries
        low = artifact.target.precision.maps != FP32.maps
        wanted = peers_precision or ("any" if low else "fp32")
        found = [backend.peers]
        if all_peers or wanted == "any":
            found.append(backend.optional_peers)
        if wanted == "any":
            found.append(backend.low_precision_peers)
        makers = dict(
            chain.from_iterable(of(artifact, source, given, threads).items() for of in found)
        )

    def measure(session: Session) -> BenchResult:
        session.given = given
        peers, absent, differing = _start(makers, session.network(given), artifact)
        sides: dict[str, Callable[[Protocol], list[int]]] = {OURS: session.block}
        sides |= {name: partial(time_block, peer.run) for name, peer in peers.items()}
        samples = interleave_blocks(sides, protocol, on_round)
        return BenchResult(
            samples, session.machine, session.includes, backend.record_threads(threads),
            artifact.metadata, artifact.target.precision.note, absent,
            {name: peer.note for name, peer in peers.items() if peer.note}, differing,
            {OURS: artifact.target.precision.name}
            | {name: peer.precision for name, peer in peers.items()},
            session.time_parts(protocol.repeat * protocol.rounds),
            _memory(artifact, source, threads)
            if memory and backend.measures_memory and not remote
            else {},
            profile(session, threads) if profiled else None,
            _left_to_tvm(session) if shares and artifact.calls else None,
        )  # fmt: skip

    return backend.devices(threads, remote).use(artifact, measure)


def _start(
    makers: Mapping[str, Callable[[], Peer]], wanted: NDArray[Any], artifact: Artifact
) -> tuple[dict[str, Peer], dict[str, str], dict[str, float]]:
    """The peers that can be compared, the others with the reason, and the share of pixels in which
    each one's labels differ."""
    peers: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    differing: dict[str, float] = {}
    for name, start in makers.items():
        try:
            peer = start()
            output = peer.run()  # builds what is built at the first call
        except Exception as error:  # of whatever kind the peer raises
            absent[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            continue
        metadata = artifact.metadata
        share = differing_share(
            *(metadata.found_in(o) if o.dtype.kind == "f" else o for o in (output, wanted))
        )
        theirs = PRECISIONS.get(peer.precision, artifact.target.precision)
        tolerances = theirs.label_tolerance, artifact.target.precision.label_tolerance
        if share > max(MOST_DIFFERING, *tolerances):
            absent[name] = f"its labels differ from ours in {share:.2%} of the pixels"
            continue
        peers[name], differing[name] = peer, share
    return peers, absent, differing


def _left_to_tvm(session: Session) -> dict[str, float]:
    artifact = session.network.artifact
    left = {kernel.name for kernel in artifact.kernels if kernel.template == TVM}
    if not left:
        return {}
    times = summarise_kernels(artifact, session.time_kernels(1 + _SHARE_FRAMES)[1:])
    total = sum(kernel.median_ms for kernel in times) or 1.0
    return {kernel.name: kernel.median_ms / total for kernel in times if kernel.name in left}


def differing_share(labels: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Of the pixels, those whose labels differ; 1 where even the sizes do."""
    return float(np.mean(labels != wanted)) if labels.shape == wanted.shape else 1.0


def _memory(artifact: Artifact, source: Source, threads: int) -> dict[str, PeakMemory]:
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        ours, peer = Path(folder) / "n.hmseg", Path(folder) / "n.onnx"
        save_artifact(artifact, ours)
        save_onnx(source.graph, peer)
        return {
            OURS: measure_peak("artifact", ours, threads=threads),
            PEER: measure_peak("onnx", peer, threads=threads),
        }
