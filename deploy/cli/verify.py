"""hmseg-deploy verify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import completion, options, places
from deploy.cli.console import print_json, print_table, say, step
from deploy.cli.groups import grouped
from lut.errors import UserError

if TYPE_CHECKING:
    from deploy.artifact import Artifact
    from deploy.devices.network import Remote
    from deploy.graph.source import Source
    from deploy.object_cache import ObjectCache
    from deploy.precision import Precision
    from deploy.target import Target
    from deploy.verify import Comparison


@grouped
def verify(
    *,
    artifact: Annotated[
        Path | None, typer.Argument(help="An artifact: its golden input is replayed.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Compile this and compare all three sides.",
            callback=options.refusing(options.check_model),
            autocompletion=completion.models,
        ),
    ] = None,
    on: options.TargetOptions,
    given: options.SourceOptions,
    place: places.PlaceOptions,
    kept: options.CacheOptions,
    as_json: options.Json = False,
) -> None:
    """Check an artifact, or torch, onnxruntime and TVM against each other.

    On this machine, or with --device or --rpc-key on a device.
    """
    if (artifact is None) == (model is None):
        raise UserError("verify: name an artifact, or a model with --model; not both")
    cache = kept.open()
    workers, remote = place.read()
    from deploy.artifact_file import load_artifact

    if artifact is not None:
        loaded = load_artifact(artifact)
        options.check_precision(on.precision, loaded)
        found, comparisons = loaded.target.precision, [_replay(loaded, artifact, workers, remote)]
    else:
        assert model is not None
        read = options.read_file(model, given)
        resolved = on.resolve(remote)
        found = resolved.precision
        with step(f"exporting {model}"):
            source = options.open_model(model, given, read=read)
        comparisons = _compare_all(source, resolved, workers, remote, cache)
    if as_json:
        print_json([comparison.to_json() for comparison in comparisons])
    else:
        _print(comparisons, found)
    from deploy.verify import require

    require(comparisons)
    say("verified")


def _replay(
    artifact: "Artifact", path: Path, threads: int, remote: "Remote | None"
) -> "Comparison":
    from deploy.backends import backend_of
    from deploy.runtime import open_artifact
    from deploy.verify import replay_golden

    where = f" on {remote.place.name}" if remote else ""
    with step(f"replaying the golden image of {path.name}{where}"):
        if remote is None:
            return replay_golden(open_artifact(artifact, str(path), threads=threads))
        devices = backend_of(artifact.target).devices(threads, remote)
        return devices.use(artifact, lambda session: replay_golden(session.network))


def _compare_all(
    source: "Source", target: "Target", threads: int, remote: "Remote | None",
    cache: "ObjectCache | None",
) -> "list[Comparison]":  # fmt: skip
    from deploy.build import build_source
    from deploy.verify import probe_images, verify_torch

    with step(f"compiling for {target.name}") as progress:
        artifact, comparisons = build_source(
            source, target, threads=threads, remote=remote, cache=cache, on_step=progress.at
        )
    if "how" in artifact.parity:
        say(f"checked on {artifact.parity['how']}")
    if not comparisons:
        raise UserError(f"cannot verify here: {artifact.parity['reason']}")
    if source.network is not None:
        images = probe_images(source.metadata.resolution, artifact.golden.image)
        with step("torch"):
            comparisons = verify_torch(source.network, source.graph, images) + comparisons
    return comparisons


def _print(comparisons: "list[Comparison]", precision: "Precision") -> None:
    print_table(
        f"class scores against onnxruntime{precision.note}",
        (
            "side", "image", "rms error", "noise", "allowed", "largest", "noise", "allowed",
            "pixels differing", "passed",
        ),
        [
            (
                c.side,
                c.image,
                *(f"{value:.1e}" for value in (c.rms_error, c.rms_noise, c.rms_tolerance)),
                *(f"{value:.1e}" for value in (c.max_logit_error, c.noise, c.tolerance)),
                f"{c.differing_share:.4%}",
                "yes" if c.passed else "NO",
            )
            for c in comparisons
        ],
    )  # fmt: skip
