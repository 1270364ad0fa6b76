"""hmseg-deploy compile."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli import options, places
from deploy.cli.console import print_json, say, step
from deploy.cli.groups import grouped
from lut.files import check_writable


@grouped
def compile_model(
    *,
    model: options.Model = options.DEFAULT_MODEL,
    on: options.TargetOptions,
    given: options.SourceOptions,
    ends: options.EndOptions,
    place: places.PlaceOptions,
    kept: options.CacheOptions,
    dump_passes: Annotated[
        Path | None, typer.Option(help="Write the module after each pass into this folder.")
    ] = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Compile for a target, check against onnxruntime, write one artifact file."""
    if out:
        check_writable(out)
    cache = kept.open()
    workers, remote = place.read()
    resolved = on.resolve()
    with step(f"exporting {model}"):
        source = options.open_model(model, given, ends)
    from deploy.artifact import SUFFIX, TVM
    from deploy.artifact_file import save_artifact
    from deploy.backends import backend_of
    from deploy.build import build_source

    path = out or Path(f"{source.metadata.file_name}{SUFFIX}")
    check_writable(path)
    backend = backend_of(resolved)
    with step(f"compiling for {resolved.machine}") as progress:
        artifact, comparisons = build_source(
            source, resolved, threads=workers, remote=remote, dump=dump_passes, cache=cache,
            on_step=progress.at,
        )  # fmt: skip
        save_artifact(artifact, path)
        progress.result = f"{path.stat().st_size / 1e6:.1f} MB, {len(artifact.kernels)} kernels"
    left = [kernel for kernel in artifact.kernels if kernel.template == TVM]
    if left:
        names = ", ".join(f"{kernel.name}{' (tuned)' * kernel.tuned}" for kernel in left)
        untuned = sum(not kernel.tuned for kernel in left) if backend.tunes_nests else 0
        advice = f"; {untuned} not tuned, which hmseg-deploy tune can mend" if untuned else ""
        say(f"left to TVM's own lowering: {names}{advice}")
    emulated = f", {artifact.parity['how']}," if "how" in artifact.parity else ""
    if comparisons:
        worst = max(comparisons, key=lambda c: c.share_of_tolerance)
        differing = max(c.differing_share for c in comparisons)
        images = len({c.image for c in comparisons})
        say(
            f"parity{resolved.precision.note} with onnxruntime{emulated} on {images} images: logit "
            f"error {worst.max_logit_error:.2g} (allowed {worst.tolerance:.2g}), {differing:.4%} "
            "of the pixels differ at most"
        )
    else:
        say(f"parity not checked: {artifact.parity['reason']}")
        if where := backend.where(resolved):
            say(f"check it {where.format(path.name)}")
    if as_json:
        print_json({"artifact": str(path), **artifact.manifest()})
    else:
        print(path)
