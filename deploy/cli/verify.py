"""hmseg-deploy verify."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import completion, options, places
from deploy.cli.console import print_json, print_table, say, step
from deploy.cli.evaluating import judge, print_iou, show_evaluating, to_json
from deploy.cli.groups import grouped
from lut.errors import UserError

if TYPE_CHECKING:
    from deploy.artifact import Artifact
    from deploy.devices.network import Remote
    from deploy.evaluate import Evaluated
    from deploy.graph.source import Source
    from deploy.metadata import Metadata
    from deploy.object_cache import ObjectCache
    from deploy.precision import Precision
    from deploy.runtime import Network
    from deploy.target import Target
    from deploy.verify import Comparison
    from hmseg.data.dataset import SegmentationData

DATASET, SPLIT = "camvid", "val"  # unless the user says


@dataclass(frozen=True)
class LabelOptions:
    """Labelled frames, by which it is judged, too; as of hmseg eval."""

    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="The root folder of a data set: mIoU is measured too, beside float32's, and what "
            "is lost is judged. Frames are of the network's size.",
        ),
    ] = None
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="camvid (the default), cityscapes or lip.")
    ] = None
    split: Annotated[
        str | None, typer.Option("--split", help="train, val (the default) or test.")
    ] = None
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="The same network in float32: a checkpoint, an ONNX file, an artifact or a name "
            "with released weights. With --model by default the model itself, in onnxruntime.",
        ),
    ] = None
    max_miou_loss: options.MaxMiouLoss = None

    def open(self, *, needed: bool) -> "SegmentationData | None":
        """The split, if one is asked for. Raises UserError for options that go with one, for an
        `against` that names nothing, and for none where that is `needed`."""
        if self.data is None:
            for name, value in vars(self).items():
                if value is not None:
                    raise UserError(f"--{name.replace('_', '-')} goes with --data FOLDER")
            return None
        from hmseg.data.registry import open_dataset

        missing = "name the network in float32 with --against" * (needed and self.against is None)
        try:
            data = open_dataset(self.dataset or DATASET, self.data, self.split or SPLIT)
        except UserError as error:
            if missing:
                raise UserError(f"{error}; and {missing}") from error
            raise
        if missing:
            raise UserError(f"--data: {missing}")
        if self.against is not None:
            from deploy.evaluate import check_side

            check_side(self.against, self.dataset or DATASET)
        return data


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
    labels: LabelOptions,
    as_json: options.Json = False,
) -> None:
    """Check an artifact, or a model in all runtimes.

    Of a model torch, onnxruntime and TVM are compared. On this machine, or with --device or
    --rpc-key on a device. With --data by mIoU, too.
    """
    if (artifact is None) == (model is None):
        raise UserError("verify: name an artifact, or a model with --model; not both")
    workers, remote = place.read()
    data, cache = labels.open(needed=artifact is not None), kept.open()
    from deploy.artifact_file import load_artifact

    loaded = None if artifact is None else load_artifact(artifact)
    if artifact and loaded:
        options.check_precision(on.precision, loaded)
        options.with_normalisation(given, artifact, loaded.metadata, None)
        _check_frames(str(artifact), loaded.metadata, data)
    source = None
    if artifact and loaded:
        comparisons = [_replay(loaded, artifact, workers, remote)]
    else:
        assert model is not None
        read = options.read_file(model, given)
        resolved = on.resolve(remote)
        with step(f"exporting {model}"):
            source = options.open_model(model, given, read=read)
        _require_reference(source, data, labels)
        _check_frames(model, source.metadata, data)
        loaded, comparisons = _compare_all(source, resolved, workers, remote, cache)
    sides = None
    if data is not None:
        sides = _evaluate(loaded, str(artifact or model), source, data, labels, workers, remote)
    if as_json:
        reports = [comparison.to_json() for comparison in comparisons]
        print_json({"comparisons": reports, "evaluation": to_json(*sides)} if sides else reports)
    else:
        _print(comparisons, loaded.target.precision)
        if sides is not None:
            print_iou(*sides)
    from deploy.verify import require

    require(comparisons)
    if sides is not None:
        judge(*sides, labels.max_miou_loss)
    say("verified")


def _check_frames(name: str, metadata: "Metadata", data: "SegmentationData | None") -> None:
    """As `deploy.evaluate.check_frames`, if there are any."""
    if data is not None:
        from deploy.evaluate import check_frames

        check_frames(name, metadata, data)


def _require_reference(
    source: "Source", data: "SegmentationData | None", labels: LabelOptions
) -> None:
    """Raise UserError for a model that is no reference of itself: in 8 bits already."""
    from deploy.build import given_graph
    from deploy.quantise.request import is_quantised

    if data is not None and labels.against is None and is_quantised(given_graph(source)):
        raise UserError(
            f"--data: {source.metadata.model} is quantised already: name the network in float32 "
            "with --against"
        )


def _evaluate(
    artifact: "Artifact", name: str, source: "Source | None", data: "SegmentationData",
    labels: LabelOptions, threads: int, remote: "Remote | None",
) -> "tuple[Evaluated, Evaluated]":  # fmt: skip
    """The mIoU of an artifact, and that of the network in float32."""
    from deploy.evaluate import open_side, side_of_graph, side_of_network, use_network

    dataset = labels.dataset or DATASET

    def evaluate(network: "Network") -> "Evaluated":
        return show_evaluating(side_of_network(name, network, data), data, dataset)

    found = use_network(artifact, threads, remote, evaluate)
    if labels.against is not None:
        reference = open_side(labels.against, data, dataset, threads, artifact.metadata)
    else:
        assert source is not None
        reference = side_of_graph(f"{name} in float32", source.graph, data, threads)
    return found, show_evaluating(reference, data, dataset)


def _replay(
    artifact: "Artifact", path: Path, threads: int, remote: "Remote | None"
) -> "Comparison":
    from deploy.evaluate import use_network
    from deploy.verify import replay_golden

    where = f" on {remote.place.name}" if remote else ""
    with step(f"replaying the golden image of {path.name}{where}"):
        return use_network(artifact, threads, remote, replay_golden, str(path))


def _compare_all(
    source: "Source", target: "Target", threads: int, remote: "Remote | None",
    cache: "ObjectCache | None",
) -> "tuple[Artifact, list[Comparison]]":  # fmt: skip
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
    return artifact, comparisons


def _print(comparisons: "list[Comparison]", precision: "Precision") -> None:
    most = precision.most_unexplained  # what low precision is judged by
    no_ties = [f"no ties, at most {most:.0%}"] if most else []
    print_table(
        f"class scores against onnxruntime{precision.note}",
        (
            "side", "image", "rms error", "noise", "allowed", "largest", "noise", "allowed",
            "pixels differing", *no_ties, "passed",
        ),
        [
            (
                c.side,
                c.image,
                *(f"{value:.1e}" for value in (c.rms_error, c.rms_noise, c.rms_tolerance)),
                *(f"{value:.1e}" for value in (c.max_logit_error, c.noise, c.tolerance)),
                f"{c.differing_share:.4%}",
                *(f"{c.unexplained_share:.4%}" for _ in no_ties),
                "yes" if c.passed else "NO",
            )
            for c in comparisons
        ],
    )  # fmt: skip
