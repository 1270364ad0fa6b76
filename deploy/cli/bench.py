"""hmseg-deploy bench."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import completion, options, places
from deploy.cli.console import print_json, print_table, say, step
from deploy.cli.groups import grouped
from deploy.cli.profile import EMULATED, print_profile, title_of
from deploy.precision import FP32, INT8, PeersPrecision
from deploy.quantise.shipped_file import ships_with
from hmseg import zoo
from lut.errors import UserError, WorkError

if TYPE_CHECKING:
    from deploy.artifact import Artifact
    from deploy.bench import BenchResult
    from deploy.devices.network import Remote
    from deploy.graph.source import Source
    from deploy.metadata import Metadata
    from deploy.object_cache import ObjectCache
    from deploy.target import Target

LATENCY_COLUMNS = ("ms", "min", "mean", "median", "p90", "p95", "p99", "std")


@grouped
def bench(
    *,
    path: Annotated[
        Path | None, typer.Argument(metavar="ARTIFACT", help="The same as --artifact.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A zoo name (hmseg-deploy models), a checkpoint of hmseg train or an ONNX file; "
            "default: the artifact's zoo network, else tiny-hmseg.",
            callback=options.refusing(options.check_model),
            autocompletion=completion.models,
        ),
    ] = None,
    on: options.TargetOptions,
    given: options.SourceOptions,
    ends: options.EndOptions,
    warmup: Annotated[int, typer.Option(help="Calls before each block, not counted.")] = 3,
    repeat: Annotated[int, typer.Option(help="Calls counted in each block.")] = 20,
    rounds: Annotated[int, typer.Option(help="Blocks of each side, in turn.")] = 7,
    percentile: Annotated[
        list[float] | None,
        typer.Option(min=0, max=100, help="Another percentile to report."),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="An image; default: the drawn street.")] = None,
    artifact: Annotated[
        Path | None, typer.Option(help="Time this artifact of the model; default: compile it now.")
    ] = None,
    fail_below: Annotated[
        float | None,
        typer.Option(min=0, help="Exit with 1 where onnxruntime's time / ours is below this."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Time each kernel too, afterwards.")
    ] = False,
    peers_precision: Annotated[
        PeersPrecision | None,
        typer.Option(
            help="Of the peers on a CPU: fp32, or any, which adds OpenVINO, if installed, in fp32 "
            "and bf16, and with --precision int8 of released weights both peers on the graph in 8 "
            "bits (a model that is a QDQ file is that in both). Default: fp32 beside fp32, any "
            "beside low precision.",
        ),
    ] = None,
    place: places.PlaceOptions,
    kept: options.CacheOptions,
    as_json: options.Json = False,
) -> None:
    """Time the compiled network beside onnxruntime.

    In turn, from image to output. With --device or --rpc-key on a device, the network alone. With
    --target cuda on this machine's GPU, beside what else runs there.
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # NVIDIA's libraries read it when they are loaded
    from deploy.measure.interleave import Protocol

    protocol = Protocol(warmup=warmup, repeat=repeat, rounds=rounds)
    if path is not None and artifact is not None:
        raise UserError(f"{path} and --artifact {artifact}: name one artifact")
    artifact = artifact or path
    loaded = _load(artifact, on.precision, timed=profile) if artifact else None
    model = model or _model_of(artifact, loaded)
    if artifact and loaded:
        given, ends = _check_early(artifact, loaded.metadata, model, given, ends)
    if image:
        from deploy.images import read_image  # late: Pillow

        read_image(image)  # in whatever colours: for now only whether it is one
    percentiles = percentile or []
    cache = kept.open()
    workers, remote = place.read()
    if remote and fail_below is not None:
        raise UserError("--fail-below compares with onnxruntime, which a device does not run")
    read = options.read_file(model, given)
    if artifact and loaded:
        given = options.with_normalisation(given, artifact, loaded.metadata, read)
    from deploy.backends import backend_of

    resolved = on.resolve(remote)
    backend = backend_of(resolved)
    backend.check_place(place.threads, remote)
    if loaded is None and on.arch is None:
        resolved = backend.measured_target(resolved, options.target_text(on.target, remote))
    with step(f"exporting {model}"):
        source = _with_scales(options.open_model(model, given, ends, read), on.precision, workers)
    from deploy.bench import PEER
    from deploy.bench import bench as run_bench
    from deploy.images import read_image, resize_image

    if artifact and loaded:
        _require_same(artifact, loaded.metadata, source.metadata)
    built = loaded or _build(source, resolved, workers, remote, cache)
    size, channels = source.metadata.resolution, source.metadata.channels
    pixels = resize_image(read_image(image, channels), size) if image else built.golden.image
    where = f" on {remote.place.name}" if remote else ""
    with step(f"timing{where}, {rounds} rounds of {repeat} calls a side") as progress:
        result = run_bench(
            built, source, pixels, protocol, threads=workers, remote=remote, profiled=profile,
            peers_precision=peers_precision,
            on_round=lambda n: progress.at(f"round {n} of {rounds}"),
        )  # fmt: skip
    if as_json:
        print_json(_describe(result, percentiles))
    else:
        print_result(result, percentiles)
        if result.profile:
            print_profile(source.metadata, result.profile)
    if fail_below is not None:
        if PEER not in result.ratios:
            reason = result.absent.get(PEER, "it is not timed here")
            raise WorkError(f"--fail-below compares with {PEER}: {reason}")
        if (ratio := result.ratios[PEER].median) < fail_below:
            raise WorkError(f"{PEER} / hmseg is {ratio:.2f}, below --fail-below {fail_below:g}")


def _with_scales(source: "Source", precision: str | None, threads: int) -> "Source":
    """Where int8 is asked for, released weights by the scales that ship with them, if some do."""
    if precision != INT8.name or not ships_with(source):
        return source
    from deploy.quantise.shipped import with_shipped

    return with_shipped(source, threads)[0]


def _build(
    source: "Source", target: "Target", threads: int, remote: "Remote | None",
    cache: "ObjectCache | None",
) -> "Artifact":  # fmt: skip
    from deploy.build import build_source

    with step(f"compiling for {target.name}") as progress:
        built, comparisons = build_source(
            source, target, threads=threads, remote=remote, cache=cache, on_step=progress.at
        )
    if not comparisons:
        raise UserError(f"cannot time it here: {built.parity['reason']}")
    return built


def _load(path: Path, precision: str | None, *, timed: bool) -> "Artifact":
    from deploy.artifact_file import load_artifact

    built = load_artifact(path)
    options.check_precision(precision, built)
    if timed:
        from deploy.profile import require_timed

        require_timed(built, str(path))
    return built


def _model_of(path: Path | None, artifact: "Artifact | None") -> str:
    """What is timed where no model is named."""
    if artifact is None:
        return options.DEFAULT_MODEL
    name = artifact.metadata.model
    if artifact.metadata.is_users or name not in zoo.list_models():
        raise UserError(f"{path} is of {name}, a file: name that with --model")
    return name


def _check_early(
    path: Path, found: "Metadata", model: str, given: options.SourceOptions,
    ends: options.EndOptions,
) -> tuple[options.SourceOptions, options.EndOptions]:  # fmt: skip
    """The options, with the artifact's own where none are given. Raises UserError where they
    contradict it, as far as is known before the model is exported."""
    size = options.read_resolution(given.resolution)
    named = model in zoo.list_models()
    wanted = replace(
        found, model=model if named else found.model, resolution=size or found.resolution,
        input=ends.input_, output=ends.output or found.output,
    )  # fmt: skip
    _require_same(path, found, wanted)
    if named and found.is_users:
        raise UserError(f"{path} is of a file {model}, not of the zoo's: name that with --model")
    if named:
        given = replace(given, resolution=str(found.resolution))
    return given, replace(ends, output=found.output)


def _require_same(path: Path, found: "Metadata", wanted: "Metadata") -> None:
    texts = [
        f"{m.model} {m.resolution} {m.input} {m.output} of {m.channels} channels"
        for m in (found, wanted)
    ]
    if texts[0] != texts[1]:
        raise UserError(
            f"{path} is {texts[0]}, not {texts[1]}; name its --model, --resolution, --input and "
            "--output"
        )
    texts = [
        options.normalisation_text(m)
        + ("" if m.threshold is None else f" and a class where its score is above {m.threshold:g}")
        for m in (found, wanted)
    ]
    if texts[0] != texts[1]:
        raise UserError(f"{path} is compiled with {texts[0]}, not with {texts[1]}")


def _describe(result: "BenchResult", percentiles: list[float]) -> dict[str, object]:
    what = {"model": result.metadata.model, "resolution": str(result.metadata.resolution)}
    more = {
        name: {f"{p}_ms": ms for p, ms in _percentiles(calls, percentiles).items()}
        for name, calls in result.calls.items()
    }
    return what | result.to_json() | ({"percentiles": more} if percentiles else {})


def _percentiles(calls: list[int], percentiles: list[float]) -> dict[str, float]:
    from deploy.measure.statistics import percentile_ms

    return {f"p{p:g}": percentile_ms(calls, p) for p in percentiles}


def print_result(result: "BenchResult", percentiles: list[float]) -> None:
    """The table and the ratios on stdout; what the time includes, and what is not timed and why, on
    stderr."""
    rows = []
    digits = 2 if all(s.median_ms >= 1 for s in result.summaries.values()) else 3
    for name, s in result.summaries.items():
        values = [s.min_ms, s.mean_ms, s.median_ms, s.p90_ms, s.p95_ms, s.p99_ms, s.std_ms]
        values += _percentiles(result.calls[name], percentiles).values()
        row = [name, *(f"{v:.{digits}f}" for v in values), s.n]
        if peak := result.memory.get(name):
            row += [f"{peak.peak_kib / 1024:.0f}", f"{peak.network_kib / 1024:.0f}"]
        rows.append(row)
    columns = [*LATENCY_COLUMNS, *(f"p{p:g}" for p in percentiles), "n"]
    columns += ["peak MiB", "of it network"] * bool(result.memory)
    title = title_of(result.metadata, result.threads, result.machine, result.note)
    print_table(title, columns, rows)
    for name, ratio in result.ratios.items():
        print(
            f"{name} / hmseg: {ratio.median:.2f} [{ratio.low:.2f} .. {ratio.high:.2f}] "
            f"over {ratio.rounds} rounds"
        )
    if result.parts:
        print(", ".join(f"{part} {ms:.3f} ms" for part, ms in result.parts_ms.items()))
    for name, reason in result.absent.items():
        say(f"{name} is not timed here: {reason}")
    for name, note in result.notes.items():
        say(f"{name}: {note}")
    if differing := [f"{n} {share:.4%}" for n, share in result.differing.items() if share]:
        say(f"labels that differ from hmseg's: {', '.join(differing)}")
    say(f"the time includes {result.includes}")
    theirs = {result.precisions[name] for name in result.ratios}
    low = theirs - {FP32.name}
    if result.note and not low:
        say(f"hmseg has its{result.note.removeprefix(',')}; the others compute in fp32")
    elif low:
        by = [f"{name} {precision}" for name, precision in result.precisions.items()]
        say(f"precision: {', '.join(by)}{result.note and f' ({result.note[2:]})'}")
        if fastest := result.fastest_peer:
            ratio = result.ratios[fastest]
            say(f"fastest peer at any precision: {fastest}, {ratio.median:.2f} times hmseg's time")
    if result.machine["emulated"] is True:
        say(EMULATED)
