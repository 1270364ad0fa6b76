"""hmseg-deploy bench."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import options
from deploy.cli.console import print_json, print_table, say, step
from deploy.cli.profile import print_profile
from lut.errors import UserError, WorkError

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from deploy.artifact import Artifact
    from deploy.bench import BenchResult
    from deploy.devices.network import Remote
    from deploy.graph.source import Source
    from deploy.measure.interleave import Protocol
    from deploy.metadata import Metadata
    from deploy.targets import Target

LATENCY_COLUMNS = ("ms", "min", "mean", "median", "p90", "p95", "p99", "std")


def bench(
    model: options.Model = options.DEFAULT_MODEL,
    target: options.TargetText = "cpu",
    arch: options.Architectures = None,
    precision: options.PrecisionText = "fp32",
    resolution: options.ResolutionText = None,
    input_: options.InputText = "image",
    output: options.OutputText = "labels",
    classes: options.Classes = None,
    mean: options.Mean = None,
    std: options.Std = None,
    threads: options.Threads = None,
    warmup: Annotated[int, typer.Option(help="Calls before each block, not counted.")] = 3,
    repeat: Annotated[int, typer.Option(help="Calls counted in each block.")] = 20,
    rounds: Annotated[int, typer.Option(help="Blocks of each side, in turn.")] = 7,
    percentile: Annotated[
        list[float] | None, typer.Option(help="Another percentile to report, 0 to 100.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="An image; default: the drawn street.")] = None,
    artifact: Annotated[
        Path | None, typer.Option(help="Time this artifact of the model; default: compile it now.")
    ] = None,
    fail_below: Annotated[
        float | None,
        typer.Option(help="Exit with 1 where onnxruntime's time / ours is below this."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Time each kernel too, afterwards.")
    ] = False,
    rpc_tracker: options.Tracker = None,
    rpc_key: options.Key = None,
    rpc_limit: options.CallLimit = options.CALL_LIMIT_S,
    as_json: options.Json = False,
) -> None:
    """Time the compiled network beside onnxruntime, in turn, from image to output.

    With --rpc-key on a device, the network alone. With --target cuda on this machine's GPU, beside
    what else runs there.
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # NVIDIA's libraries read it when they are loaded
    from deploy.measure.interleave import Protocol

    protocol = Protocol(warmup=warmup, repeat=repeat, rounds=rounds)
    percentiles = percentile or []
    if not all(0 <= p <= 100 for p in percentiles):
        raise UserError(f"--percentile {percentiles}: write numbers between 0 and 100")
    if fail_below is not None and not fail_below >= 0:  # NaN too: nothing would be below it
        raise UserError(f"--fail-below {fail_below}: write a ratio, such as 1.0")
    workers, remote = options.read_place(threads, rpc_tracker, rpc_key, rpc_limit)
    if remote and fail_below is not None:
        raise UserError("--fail-below compares with onnxruntime, which a device does not run")
    from deploy.targets import resolve_target

    resolved = resolve_target(target, arch, precision)
    unfit = _unfit_for_gpu(input_, output, fail_below, profile, remote)
    if resolved.gpu:
        if unfit:
            raise UserError(unfit)
        options.require_gpu(resolved)
        if target == "cuda" and arch is None and artifact is None:
            resolved = options.present_gpu(precision)
    with step(f"exporting {model}"):
        source = options.open_model(model, resolution, output, classes, mean, std, input_)
    from deploy.bench import bench as run_bench
    from deploy.images import read_image, resize_image

    built = (
        _load(artifact, source.metadata, timed=profile)
        if artifact
        else _build(source.graph, resolved, workers, remote)
    )
    options.check_precision(precision, built.target.precision)
    size = source.metadata.resolution
    pixels = resize_image(read_image(image), size) if image else built.golden.image
    if built.gpu is not None:
        if unfit:  # the target is the artifact's
            raise UserError(unfit)
        _bench_gpu(built, source, pixels, protocol, percentiles, as_json)
        return
    if remote:
        _bench_remote(remote, built, pixels, protocol, percentiles, as_json, profile)
        return
    with step(f"timing, {rounds} rounds of {repeat} calls a side") as progress:
        result = run_bench(
            built, source.graph, pixels, protocol, threads=workers, profiled=profile,
            on_round=lambda n: progress.at(f"round {n} of {rounds}"),
        )  # fmt: skip
    if as_json:
        print_json(_describe(source.metadata.model, str(size), result, percentiles))
    else:
        print_result(source.metadata.model, str(size), result, percentiles)
        if result.profile:
            print_profile(source.metadata, result.profile)
    if fail_below is not None and result.ratio.median < fail_below:
        raise WorkError(
            f"onnxruntime / hmseg is {result.ratio.median:.2f}, below --fail-below {fail_below:g}"
        )


def _unfit_for_gpu(
    input_: str, output: str, fail_below: float | None, profile: bool, remote: "Remote | None"
) -> str:
    """What of the options is not for GPUs; empty where all is."""
    if (input_, output) != ("image", "labels"):
        return "a GPU is timed from image to labels: leave --input and --output out"
    if fail_below is not None:
        return "--fail-below compares with onnxruntime on a CPU; leave it out"
    if profile:
        return "--profile is for CPUs: benchmarks/gpu.sh times each kernel of a GPU's network"
    if remote:
        return "a GPU is timed on its own machine: leave --rpc-key out"
    return ""


def _build(
    graph: "onnx.ModelProto", target: "Target", threads: int, remote: "Remote | None"
) -> "Artifact":
    from deploy.build import build_artifact

    with step(f"compiling for {target.name}") as progress:
        built, comparisons = build_artifact(
            graph,
            target,
            threads=threads,
            remote=remote,
            on_step=progress.at,
        )
    if not comparisons:
        raise UserError(f"cannot time it here: {built.parity['reason']}")
    return built


def _load(path: Path, wanted: "Metadata", *, timed: bool) -> "Artifact":
    from deploy.artifact import load_artifact
    from deploy.profile import require_timed

    built = load_artifact(path)
    if timed:
        require_timed(built, str(path))
    found = built.metadata
    kinds = [(m.model, m.resolution, m.input, m.output) for m in (found, wanted)]
    if kinds[0] != kinds[1]:
        texts = [" ".join(map(str, kind)) for kind in kinds]
        raise UserError(
            f"{path} is {texts[0]}, not {texts[1]}; name its model, resolution, input and output"
        )
    return built


def _bench_gpu(
    built: "Artifact", source: "Source", pixels: "NDArray[np.uint8]", protocol: "Protocol",
    percentiles: list[float], as_json: bool,
) -> None:  # fmt: skip
    from deploy.gpu.bench import INCLUDES, bench_gpu
    from deploy.measure.statistics import percentile_ms

    with step(f"timing, {protocol.rounds} rounds of {protocol.repeat} calls a side") as progress:
        result = bench_gpu(
            built, source.graph, source.network, pixels, protocol,
            on_round=lambda n: progress.at(f"round {n} of {protocol.rounds}"),
        )  # fmt: skip
    what = {"model": built.metadata.model, "resolution": str(built.metadata.resolution)}
    extra = {
        name: {f"p{p:g}_ms": percentile_ms(calls, p) for p in percentiles}
        for name, calls in result.calls.items()
    }
    if as_json:
        print_json(what | result.to_json() | ({"percentiles": extra} if percentiles else {}))
        return
    rows = []
    for name, s in result.summaries.items():
        values = (s.min_ms, s.mean_ms, s.median_ms, s.p90_ms, s.p95_ms, s.p99_ms, s.std_ms)
        rows.append((name, *(f"{v:.3f}" for v in (*values, *extra[name].values())), s.n))
    half = result.device["precision"] == "fp16"
    title = f"{what['model']} {what['resolution']}, {result.device['gpu']}" + ", fp16" * half
    print_table(title, (*LATENCY_COLUMNS, *(f"p{p:g}" for p in percentiles), "n"), rows)
    for name, ratio in result.ratios.items():
        print(f"{name} / hmseg: {ratio.median:.2f} [{ratio.low:.2f} .. {ratio.high:.2f}]")
    parts = result.to_json()["parts_ms"]
    print(", ".join(f"{part.removesuffix('_ms')} {ms:.3f} ms" for part, ms in parts.items()))
    for name, reason in result.absent.items():
        say(f"{name} is not timed here: {reason}")
    for name, note in result.notes.items():
        say(f"{name}: {note}")
    if result.differing:
        say(f"labels that differ from hmseg's: {result.differing_text}")
    say(f"the time includes {INCLUDES}")
    if half:
        say("hmseg's maps are fp16; the others compute in fp32")


def _bench_remote(
    remote: "Remote", built: "Artifact", pixels: "NDArray[np.uint8]", protocol: "Protocol",
    percentiles: list[float], as_json: bool, profiled: bool,
) -> None:  # fmt: skip
    from deploy.devices.bench import EMULATED, bench_remote
    from deploy.measure.statistics import percentile_ms

    with step(f"timing on {remote.farm.key}, {protocol.rounds} rounds of {protocol.repeat} calls"):
        result = bench_remote(built, pixels, protocol, remote, profiled=profiled)
    metadata = built.metadata
    extra = {f"p{p:g}": percentile_ms(result.calls, p) for p in percentiles}
    if as_json:
        what = {"model": metadata.model, "resolution": str(metadata.resolution)}
        more = {"hmseg": {f"{name}_ms": value for name, value in extra.items()}}
        print_json(what | result.to_json() | ({"percentiles": more} if extra else {}))
    else:
        s = result.summary
        values = (s.min_ms, s.mean_ms, s.median_ms, s.p90_ms, s.p95_ms, s.p99_ms, s.std_ms)
        device = f"{result.device['machine']}, {result.device['architecture']}"
        mark = "EMULATED, " if result.device["emulated"] is True else ""
        print_table(
            f"{metadata.model} {metadata.resolution}, {result.threads} threads, {mark}{device}",
            (*LATENCY_COLUMNS, *extra, "n"),
            [("hmseg", *(f"{v:.2f}" for v in (*values, *extra.values())), s.n)],
        )
        say(f"the time includes {result.includes}")
        if result.profile:
            print_profile(metadata, result.profile)
    if result.device["emulated"] is True:
        say(EMULATED)


def _describe(
    model: str, size: str, result: "BenchResult", percentiles: list[float]
) -> dict[str, object]:
    from deploy import host
    from deploy.measure.statistics import percentile_ms

    extra = {
        name: {f"p{p:g}_ms": percentile_ms(calls, p) for p in percentiles}
        for name, calls in result.calls.items()
    }
    machine = {"cpu": host.cpu_model(), "architecture": host.architecture()}
    return {"model": model, "resolution": size, "machine": machine, **result.to_json()} | (
        {"percentiles": extra} if percentiles else {}
    )


def print_result(model: str, size: str, result: "BenchResult", percentiles: list[float]) -> None:
    """The table and the ratio on stdout; what the time includes on stderr."""
    from deploy import host
    from deploy.measure.statistics import percentile_ms

    rows = []
    for name, s in result.summaries.items():
        values = (s.min_ms, s.mean_ms, s.median_ms, s.p90_ms, s.p95_ms, s.p99_ms, s.std_ms)
        extra = [percentile_ms(result.calls[name], p) for p in percentiles]
        peak = result.memory[name]
        rows.append(
            (
                name,
                *(f"{v:.2f}" for v in (*values, *extra)),
                s.n,
                f"{peak.peak_kib / 1024:.0f}",
                f"{peak.network_kib / 1024:.0f}",
            )
        )
    extra_columns = tuple(f"p{p:g}" for p in percentiles)
    title = f"{model} {size}, {result.threads} threads, {host.cpu_model()}"
    print_table(title, (*LATENCY_COLUMNS, *extra_columns, "n", "peak MiB", "of it network"), rows)
    ratio = result.ratio
    print(
        f"onnxruntime / hmseg: {ratio.median:.2f} [{ratio.low:.2f} .. {ratio.high:.2f}] "
        f"over {ratio.rounds} rounds"
    )
    say(f"the time includes {result.includes}")
