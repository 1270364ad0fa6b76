"""The fastest precision that keeps the labels: each is compiled, judged by the gate, and timed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from deploy import host
from deploy.artifact import Artifact
from deploy.backends import backend_of
from deploy.backends.base import OnStep
from deploy.build import build_source, given_graph
from deploy.choice import Choice, Kept, choose
from deploy.devices.network import Remote
from deploy.evaluate import use_network
from deploy.graph.ends import with_logits_output
from deploy.graph.reference import OnnxSession
from deploy.graph.source import Source
from deploy.graph.stored import has_pairs
from deploy.measure.device import Device, Session
from deploy.measure.interleave import Protocol, Samples, interleave_blocks
from deploy.precision import BF16, FP32, INT8
from deploy.quantise.countdown import Countdown
from deploy.quantise.frames import Frames
from deploy.quantise.gate import allowed, passes
from deploy.quantise.judge import Figures, Judge
from deploy.quantise.report import Report, said
from deploy.quantise.request import Request, is_quantised
from deploy.quantise.run import check_quantisable, limit_of
from deploy.quantise.shipped_file import ships_with
from deploy.quantise.source import frames_of, quantise_source
from deploy.quick_timing import choose_protocol
from deploy.runtime import Network
from deploy.target import Target
from deploy.targets import in_precision
from deploy.verify import Comparison
from lut.errors import UserError, WorkError

NEEDS_FRAMES = "needs frames to find ranges by: --calibrate FOLDER"
_NO_FRAMES = Request()
_ONE_CALL = Protocol(warmup=1, repeat=1, rounds=1, pause_s=0)


@dataclass(frozen=True)
class Fastest:
    """What was taken, what the gate saw of it, why, the source that it was compiled from, and what
    int8 cost where it was calibrated."""

    artifact: Artifact
    comparisons: list[Comparison]
    choice: Choice
    source: Source
    quantisation: Report | None = None


@dataclass(frozen=True)
class _Built:
    source: Source
    artifact: Artifact
    comparisons: list[Comparison]


def build_fastest(
    source: Source, target: Target, *, threads: int, remote: Remote | None = None,
    request: Request = _NO_FRAMES, on_step: OnStep = lambda _: None,
    **options: Any,  # noqa: ANN401 - `build_source`'s
) -> Fastest:  # fmt: skip
    """As `build_source`, in the fastest of the precisions that the target's CPU computes with and
    whose labels pass the gate; the artifact says how it was chosen.

    int8 is tried where `request` names frames to calibrate it by, on which every binary is judged
    then, by what `request` allows, where scales ship with the released weights, and where the
    source brings some of its own. What is not timed and checked is not taken: where the target does
    not run at hand, or is emulated, it is fp32. Raises UserError for another target than a CPU, and
    as `build_source`, `frames_of`, `limit_of` and, but for what int8 loses, `quantise_source`: what
    is asked of int8 and cannot be, before anything is compiled.
    """
    if target.architecture not in host.FEATURE_FLAGS:
        raise UserError(
            f"--precision auto is for CPUs, not for {target.name}: leave it out for fp32"
        )
    frames = None if request.calibrate is None else frames_of(request, source)
    if frames is not None:
        limit_of(frames, request.max_miou_loss)
        check_quantisable(source.graph, request.keep)

    def built(source: Source, one: Target) -> _Built:
        def say(step: str) -> None:
            on_step(f"{one.precision}: {step}")

        return _Built(
            source,
            *build_source(source, one, threads=threads, remote=remote, on_step=say, **options),
        )

    found = {FP32.name: built(source, replace(target, precision=FP32))}
    refused: dict[str, str] = {}
    report = None
    if reason := _untimed(found[FP32.name]):
        refused = {BF16.name: _instructions(target) or reason, INT8.name: reason}
    else:
        if missing := _instructions(target):
            refused[BF16.name] = missing
        else:
            try:
                found[BF16.name] = built(source, in_precision(target, BF16))
            except (UserError, WorkError) as error:  # of bf16 alone: fp32 was built
                refused[BF16.name] = str(error)
        try:
            in_bytes, report = _in_8_bits(request, source, threads, on_step)
        except (_NotTriedError, WorkError) as error:
            refused[INT8.name] = str(error)
        except UserError as error:
            if request.calibrate is not None:
                raise  # of the frames
            refused[INT8.name] = str(error)
        else:
            try:
                found[INT8.name] = built(in_bytes, in_precision(target, INT8))
            except (UserError, WorkError) as error:  # such as pairs that kernels do not read
                refused[INT8.name] = str(error)
    kept = {name: _by_gate(one.comparisons) for name, one in found.items() if one.comparisons}
    judged_on = "the gate's images, where most differ"
    if frames is not None and len(found) > 1:
        figures = _judge(found, frames, threads, remote, on_step)
        limit = limit_of(frames, request.max_miou_loss, figures[FP32.name])
        kept = {name: Kept(f.equal, f.equal_clear, f.miou) for name, f in figures.items()}
        judged_on = f"{len(frames)} frames of {request.calibrate}"
        for name, one in figures.items():
            if not passes(figures[FP32.name], one, limit):
                del found[name]
                refused[name] = f"{said(figures[FP32.name], one)}; {allowed(limit)}"
    samples: dict[str, Samples] = {}
    if len(found) > 1:
        on_step("timing precisions")
        samples = _time({name: one.artifact for name, one in found.items()}, threads, remote)
    choice = choose(samples, refused, kept, judged_on)
    taken = found[choice.precision]
    artifact = replace(taken.artifact, choice=choice.to_json())
    return Fastest(artifact, taken.comparisons, choice, taken.source, report)


class _NotTriedError(Exception):
    """Why there is nothing in 8 bits to compile."""


def _in_8_bits(
    request: Request, source: Source, threads: int, on_step: OnStep
) -> tuple[Source, Report | None]:
    """The source with scales: by the frames that are named, those that ship with its weights, or
    its own. Raises WorkError where frames show that it loses too much, _NotTriedError where there
    are none of these."""
    if request.calibrate is not None or ships_with(source):

        def say(step: str) -> None:
            on_step(f"{INT8.name}: {step}")

        return quantise_source(request, source, threads, say, INT8.name)
    given = given_graph(source)
    if not is_quantised(given):
        raise _NotTriedError(NEEDS_FRAMES)
    if not has_pairs(source.compiled):
        raise _NotTriedError("no map of the file is in 8 bits with one scale")
    return source, None


def _instructions(target: Target) -> str:
    """Why the target does not compute in bfloat16, if so."""
    try:
        in_precision(target, BF16)
    except UserError:
        return f"{target.machine} has no instructions for it"
    return ""


def _untimed(plain: _Built) -> str:
    """Why nothing is timed, if so."""
    parity = plain.artifact.parity
    if not plain.comparisons:
        return f"not taken unseen: {parity['reason']}"
    if parity.get("emulated") is True:
        return "not taken by times of an emulated machine"
    return ""


def _by_gate(comparisons: Sequence[Comparison]) -> Kept:
    """Of the images on which most labels differ."""
    ours = [one for one in comparisons if one.side == "tvm"]
    return Kept(
        1 - max((one.differing_share for one in ours), default=0.0),
        1 - max((one.unexplained_share for one in ours), default=0.0),
    )


def _judge(
    found: Mapping[str, _Built], frames: Frames, threads: int, remote: Remote | None,
    on_step: OnStep,
) -> dict[str, Figures]:  # fmt: skip
    """Every binary on every frame, beside what onnxruntime makes of the graph in float32, whose
    figures are those of fp32."""
    judge, every = Judge(frames, threads), range(len(frames))
    plain = OnnxSession(with_logits_output(found[FP32.name].source.graph), threads=threads)
    left = Countdown("fp32 on the frames", len(frames), on_step)
    for index in every:
        judge.show(index, plain.run(frames.given(index)))
        left.done(index + 1)

    def figures(network: Network) -> Figures:
        def run(given: NDArray[Any]) -> list[NDArray[Any]]:
            logits = network.logits(given)
            return [logits] if network.metadata.output == "logits" else [network(given), logits]

        return judge.figures_of(run, every)

    others = {name: one.artifact for name, one in found.items() if name != FP32.name}
    result = {FP32.name: judge.float_figures(every)}
    for name, artifact in others.items():
        on_step(f"{name}: on the frames")
        result[name] = use_network(artifact, threads, remote, figures)
    return result


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
