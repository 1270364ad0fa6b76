"""hmseg-deploy verify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import options
from deploy.cli.console import print_json, print_table, say, step
from lut.errors import UserError

if TYPE_CHECKING:
    from deploy.devices.network import Remote
    from deploy.verify import Comparison


def verify(
    artifact: Annotated[
        Path | None, typer.Argument(help="An artifact: its golden input is replayed.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Compile this and compare all three sides.")
    ] = None,
    target: options.TargetText = "cpu",
    arch: options.Architectures = None,
    precision: options.PrecisionText = "fp32",
    resolution: options.ResolutionText = None,
    classes: options.Classes = None,
    mean: options.Mean = None,
    std: options.Std = None,
    threads: options.Threads = None,
    rpc_tracker: options.Tracker = None,
    rpc_key: options.Key = None,
    rpc_limit: options.CallLimit = options.CALL_LIMIT_S,
    as_json: options.Json = False,
) -> None:
    """Check an artifact, or torch, onnxruntime and TVM against each other.

    On this machine, or with --rpc-key on a device.
    """
    if (artifact is None) == (model is None):
        raise UserError("verify: name an artifact, or a model with --model; not both")
    workers, remote = options.read_place(threads, rpc_tracker, rpc_key, rpc_limit)
    if artifact is not None:
        found, comparison = _replay(artifact, workers, remote)
        options.check_precision(precision, found)
        precision, comparisons = found, [comparison]
    else:
        assert model is not None
        comparisons = _compare_all(
            model, target, arch, precision, resolution, classes, mean, std, workers, remote
        )
    if as_json:
        print_json([comparison.to_json() for comparison in comparisons])
    else:
        _print(comparisons, precision)
    from deploy.verify import require

    require(comparisons)
    say("verified")


def _replay(path: Path, threads: int, remote: "Remote | None") -> "tuple[str, Comparison]":
    from deploy.artifact import load_artifact
    from deploy.runtime import load
    from deploy.verify import replay_golden

    where = f" on {remote.farm.key}" if remote else ""
    with step(f"replaying the golden image of {path.name}{where}"):
        if remote:
            artifact = load_artifact(path)
            return artifact.target.precision, remote.use(artifact, replay_golden)
        network = load(path, threads=threads)
        return network.artifact.target.precision, replay_golden(network)


def _compare_all(
    model: str, target: str, arch: str | None, precision: str, resolution: str | None,
    classes: int | None, mean: str | None, std: str | None, threads: int,
    remote: "Remote | None",
) -> "list[Comparison]":  # fmt: skip
    with step(f"exporting {model}"):
        source = options.open_model(model, resolution, "labels", classes, mean, std)
    from deploy.build import build_artifact
    from deploy.targets import resolve_target
    from deploy.verify import probe_images, verify_torch

    resolved = resolve_target(target, arch, precision)
    with step(f"compiling for {target}") as progress:
        artifact, comparisons = build_artifact(
            source.graph, resolved, threads=threads, remote=remote, on_step=progress.at
        )
    if "how" in artifact.parity:
        say(f"no GPU here: {artifact.parity['how']}")
    if not comparisons:
        raise UserError(f"cannot verify here: {artifact.parity['reason']}")
    if source.network is not None:
        images = probe_images(source.metadata.resolution, artifact.golden.image)
        with step("torch"):
            comparisons = verify_torch(source.network, source.graph, images) + comparisons
    return comparisons


def _print(comparisons: "list[Comparison]", precision: str) -> None:
    print_table(
        "against onnxruntime" + (", maps in fp16" if precision == "fp16" else ""),
        ("side", "image", "logit error", "allowed", "pixels differing", "passed"),
        [
            (
                c.side,
                c.image,
                f"{c.max_logit_error:.2e}",
                f"{c.tolerance:.2e}",
                f"{c.differing_share:.4%}",
                "yes" if c.passed else "NO",
            )
            for c in comparisons
        ],
    )
