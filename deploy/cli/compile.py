"""hmseg-deploy compile."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import options, places
from deploy.cli.console import print_json, say, step
from deploy.cli.groups import grouped
from deploy.cli.quantising import QuantiseOptions, show_quantising
from lut.errors import UserError
from lut.files import check_writable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deploy.artifact import Artifact, KernelInfo
    from deploy.fastest import Fastest
    from deploy.quick_timing import QuickTiming
    from deploy.verify import Comparison

MOST_NAMED = 5  # kinds of operators that TVM made
_DIGEST = re.compile(r"_[0-9a-f]{12}$")  # at the end of a kernel's name


@grouped
def compile_model(
    *,
    model: options.Model = options.DEFAULT_MODEL,
    on: options.ChoiceOptions,
    given: options.SourceOptions,
    ends: options.EndOptions,
    place: places.PlaceOptions,
    kept: options.CacheOptions,
    quantising: QuantiseOptions,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="No Winograd convolutions: slower, with less rounding."),
    ] = False,
    form: Annotated[
        str,
        typer.Option(
            "--format", help="hmseg, or c: a folder with libraries, a header and an example."
        ),
    ] = "hmseg",
    dump_passes: Annotated[
        Path | None, typer.Option(help="Write the module after each pass into this folder.")
    ] = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Compile for a target, and check against onnxruntime.

    Writes one artifact file or a C package.
    """
    if form not in ("hmseg", "c"):
        raise UserError(f"--format {form}: write hmseg, an artifact, or c, a folder for C programs")
    package = form == "c"
    if out and not package:
        check_writable(out)
    request = quantising.read(on.precision)
    cache = kept.open()
    workers, remote = place.read()
    read = options.read_file(model, given)
    request.check_model(on.precision, model, read and read.file.model)
    resolved = on.resolve(remote, automatic=True)
    if out and package:
        from deploy.backends import backend_of

        backend_of(resolved).check_package(resolved, out)
    with step(f"exporting {model}"):
        source = options.open_model(model, given, ends, read)
    from deploy.artifact import TVM
    from deploy.artifact_file import save_artifact
    from deploy.backends import backend_of
    from deploy.build import build_source, package_source
    from deploy.compile import default_path

    path = out or (default_path(source, "") if package else default_path(source))
    backend = backend_of(resolved)
    if package:
        backend.check_package(resolved, path)
    else:
        check_writable(path)
    if not on.automatic:
        source, quantisation = show_quantising(request, source, workers, on.precision)
    chosen: list[str] = []
    with step(f"compiling for {resolved.machine}") as progress:
        if on.automatic:
            from deploy.fastest import build_fastest

            found = build_fastest(
                source, resolved, threads=workers, remote=remote, request=request, exact=exact,
                dump=dump_passes, cache=cache, on_step=progress.tell_at_times,
            )  # fmt: skip
            source, artifact, comparisons = found.source, found.artifact, found.comparisons
            resolved = artifact.target
            chosen, quantisation = show_choice(found)
        else:
            artifact, comparisons = build_source(
                source, resolved, threads=workers, remote=remote, exact=exact, dump=dump_passes,
                cache=cache, on_step=progress.tell_at_times,
            )  # fmt: skip
        files = [path]
        if package:
            progress.at("writing the C package")
            files = package_source(source, artifact, path, exact=exact, cache=cache)
        else:
            save_artifact(artifact, path)
        size = sum(file.stat().st_size for file in files)
        progress.result = f"{size / 1e6:.1f} MB, {len(artifact.kernels)} kernels"
    for line in chosen:
        say(line)
    timing = None
    if comparisons and artifact.calls and remote is None:  # it runs here, and is no emulation
        from deploy.quick_timing import time_quickly

        with step(f"timing, {workers} thread{'s' * (workers > 1)}") as progress:
            timing = time_quickly(artifact, source, workers)
            ms = {"": timing.ours_ms, **timing.peers_ms}
            progress.result = ", ".join(f"{name} {one:.3g} ms".strip() for name, one in ms.items())
    left = [kernel for kernel in artifact.kernels if kernel.template == TVM]
    if left:
        untuned = sum(not kernel.tuned for kernel in left) if backend.tunes_nests else 0
        say(left_to_tvm(left, timing.shares if timing else None, untuned))
    if timing:
        for name, times in timing.slower_than.items():
            most = f"; {most_of_the_frame(timing)}" if timing.kernels else ""
            say(f"SLOWER than {name} on this machine: at least {times:.2g} times its time{most}")
    if comparisons:
        say(parity_in_words(artifact, comparisons))
    else:
        say(f"parity not checked: {artifact.parity['reason']}")
        if where := backend.where(resolved):
            say(f"check it {where.format(path.name)}")
    if as_json:
        timed = {"quick_timing": timing.to_json()} if timing else {}
        print_json({"artifact": str(path), **artifact.manifest(), **quantisation, **timed})
    else:
        print(path)


def show_choice(found: "Fastest") -> "tuple[list[str], dict[str, Any]]":
    """What is said of a precision that was chosen, and the JSON of what int8 was calibrated by."""
    report, choice = found.quantisation, found.choice
    lines = report.lines() if report else []
    values = {"quantisation": report.to_json()} if report else {}
    return [*lines, *choice.table(), str(choice)], values


def parity_in_words(artifact: "Artifact", comparisons: "Sequence[Comparison]") -> str:
    """The worst of what the gate saw: in low precision of the compiled network alone."""
    precision = artifact.target.precision
    if precision.most_unexplained:
        comparisons = [c for c in comparisons if c.side == "tvm"]
    worst = max(comparisons, key=lambda c: c.share_of_tolerance)
    differing = max(c.differing_share for c in comparisons)
    images = len({c.image for c in comparisons})
    emulated = f", {artifact.parity['how']}," if "how" in artifact.parity else ""
    no_ties = ""
    if precision.most_unexplained:
        most = max(c.unexplained_share for c in comparisons)
        no_ties = f", {most:.4%} that are no tie (allowed {precision.most_unexplained:.0%})"
    return (
        f"parity{precision.note} with onnxruntime{emulated} on {images} images: logit error "
        f"{worst.max_logit_error:.2g} (allowed {worst.tolerance:.2g}), {differing:.4%} of the "
        f"pixels differ at most{no_ties}"
    )


def most_of_the_frame(timing: "QuickTiming") -> str:
    """The kernel that takes most of a frame: its share, what it computes and what it is called."""
    from lut.words import kernel_in_words

    kernel = max(timing.kernels, key=lambda kernel: kernel.median_ms)
    times = f" in {kernel.calls} calls" if kernel.calls > 1 else ""
    return (
        f"most of the frame, {timing.shares[kernel.name]:.0%}{times}, takes {kernel.name}, "
        f"{kernel_in_words(kernel.spec)}"
    )


def left_to_tvm(
    left: "Sequence[KernelInfo]", shares: "Mapping[str, float] | None", untuned: int
) -> str:
    """Which operators TVM's own lowering made, those of one kind together: where the frame was
    timed with the share of its time, the slowest first."""
    kinds: dict[str, list[str]] = {}
    for kernel in left:
        kinds.setdefault(_DIGEST.sub("", kernel.name), []).append(kernel.name)
    known = shares or {}
    times = {kind: sum(known.get(name, 0.0) for name in names) for kind, names in kinds.items()}
    slowest = sorted(kinds, key=lambda kind: -times[kind])

    def said(kind: str) -> str:
        count = f" x{len(kinds[kind])}" if len(kinds[kind]) > 1 else ""
        return f"{kind}{count}" + ("" if shares is None else f" {times[kind]:.1%}")

    named = [said(kind) for kind in slowest[:MOST_NAMED]]
    if others := slowest[MOST_NAMED:]:
        rest = sum(times[kind] for kind in others)
        count = sum(len(kinds[kind]) for kind in others)
        named.append(f"{count} others" + ("" if shares is None else f" {rest:.1%}"))
    whole = "" if shares is None else f", {sum(times.values()):.0%} of the frame's time"
    advice = f"; hmseg-deploy tune may speed up {untuned} of them" if untuned else ""
    return f"left to TVM's own lowering{whole}: {', '.join(named)}{advice}"
