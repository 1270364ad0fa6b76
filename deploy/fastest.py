"""The fastest precision that keeps the labels: each is compiled, judged by the gate, and timed."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from deploy import host
from deploy.artifact import Artifact
from deploy.backends import backend_of
from deploy.backends.base import OnStep
from deploy.build import build_source
from deploy.devices.network import Remote
from deploy.graph.source import Source
from deploy.measure.device import Device, Session
from deploy.measure.interleave import Protocol, Samples, interleave_blocks
from deploy.measure.statistics import Ratio, ratio_of_rounds, summarise
from deploy.precision import BF16, FP32
from deploy.quick_timing import choose_protocol
from deploy.target import Target
from deploy.targets import in_precision
from deploy.verify import Comparison
from lut.errors import UserError, WorkError

_OTHERS = (BF16,)  # what is tried beside fp32
_ONE_CALL = Protocol(warmup=1, repeat=1, rounds=1, pause_s=0)


@dataclass(frozen=True)
class Choice:
    """Which precision was taken, and why: the medians of those that were timed, in milliseconds,
    fp32's time over theirs, and why others were not."""

    precision: str
    why: str
    ms: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"precision {self.precision}: {self.why}"

    def to_json(self) -> dict[str, Any]:
        """For the manifest and --json."""
        ratios = {name: vars(ratio) for name, ratio in self.ratios.items()}
        return {
            "precision": self.precision, "why": self.why, "ms": dict(self.ms), "ratios": ratios,
            "refused": dict(self.refused),
        }  # fmt: skip


def build_fastest(
    source: Source, target: Target, *, threads: int, remote: Remote | None = None,
    on_step: OnStep = lambda _: None, **options: Any,  # noqa: ANN401 - `build_source`'s
) -> tuple[Artifact, list[Comparison], Choice]:  # fmt: skip
    """As `build_source`, in the fastest of the precisions that the target's CPU computes with and
    whose labels pass the gate; the artifact says how it was chosen.

    What is not timed and checked is not taken: where the target does not run at hand, or is
    emulated, it is fp32. Raises UserError for another target than a CPU, and as `build_source`.
    """
    if target.architecture not in host.FEATURE_FLAGS:
        raise UserError(
            f"--precision auto is for CPUs, not for {target.name}: leave it out for fp32"
        )

    def built(one: Target) -> tuple[Artifact, list[Comparison]]:
        def say(step: str) -> None:
            on_step(f"{one.precision}: {step}")

        return build_source(source, one, threads=threads, remote=remote, on_step=say, **options)

    found = {FP32.name: built(replace(target, precision=FP32))}
    plain, comparisons = found[FP32.name]
    refused: dict[str, str] = {}
    reason = _untimed(plain, comparisons)
    for precision in _OTHERS:
        try:
            other = in_precision(target, precision)
        except UserError:
            refused[precision.name] = f"{target.machine} has no instructions for it"
            continue
        if reason:
            refused[precision.name] = reason
            continue
        try:
            found[precision.name] = built(other)
        except WorkError as error:
            refused[precision.name] = str(error)
    samples: dict[str, Samples] = {}
    if len(found) > 1:
        on_step("timing precisions")
        samples = _time({name: artifact for name, (artifact, _) in found.items()}, threads, remote)
    choice = choose(samples, refused)
    artifact, comparisons = found[choice.precision]
    return replace(artifact, choice=choice.to_json()), comparisons, choice


def choose(samples: Mapping[str, Samples], refused: Mapping[str, str]) -> Choice:
    """From the nanoseconds of every call, round by round: fp32, unless another is faster in every
    round; of those the fastest. By the reasons alone where nothing was timed."""
    ms = {n: summarise([ns for b in blocks for ns in b]).median_ms for n, blocks in samples.items()}
    ratios = {
        name: ratio_of_rounds(samples[FP32.name], blocks)
        for name, blocks in samples.items()
        if name != FP32.name
    }
    faster = {name: ratio.median for name, ratio in ratios.items() if ratio.low > 1}
    best = max(faster, key=lambda name: faster[name], default=FP32.name)
    if best in ratios:
        ratio = ratios[best]
        why = (
            f"{ms[best]:.3g} ms, fp32 {ms[FP32.name]:.3g} ms ({ratio.median:.2f} times, "
            f"[{ratio.low:.2f} .. {ratio.high:.2f}] over {ratio.rounds} rounds), and its labels "
            "pass the gate"
        )
    else:
        slower = [
            f"{name} is not faster in every round, {ms[name]:.3g} ms beside {ms[FP32.name]:.3g} ms"
            for name in ratios
        ]
        why = "; ".join([*slower, *(f"{name}: {text}" for name, text in refused.items())])
    return Choice(best, why, ms, ratios, refused)


def _untimed(artifact: Artifact, comparisons: list[Comparison]) -> str:
    """Why nothing is timed, if so."""
    if not comparisons:
        return f"not taken unseen: {artifact.parity['reason']}"
    if artifact.parity.get("emulated") is True:
        return "not taken by times of an emulated machine"
    return ""


def _time(
    artifacts: Mapping[str, Artifact], threads: int, remote: Remote | None
) -> dict[str, Samples]:
    """Blocks in turn, on one machine that holds all of them."""
    (reference, plain), *others = artifacts.items()
    found: dict[str, Samples] = {}

    def work(device: Device, session: Session, _item: None) -> dict[str, Samples]:
        sides: dict[str, Callable[[Protocol], list[int]]] = {reference: session.block}
        with ExitStack() as opened:
            for name, artifact in others:
                sides[name] = opened.enter_context(device.open(artifact)).block
            seconds = {name: block(_ONE_CALL)[0] / 1e9 for name, block in sides.items()}
            return interleave_blocks(sides, choose_protocol(seconds))

    devices = backend_of(plain.target).devices(threads, remote)
    devices.spread([None], work, lambda _, samples: found.update(samples), reference=plain)
    return found
