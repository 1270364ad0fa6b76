"""The options that commands share, and what their texts mean."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import completion
from deploy.cli.console import say
from deploy.metadata import (
    CHANNELS,
    InputKind,
    Metadata,
    OutputKind,
    Values,
    check_normalisation,
    check_threshold,
)
from deploy.object_cache import ObjectCache, default_cache
from deploy.precision import AUTO, check_precision_or_auto, parse_precision
from deploy.quantise.gate import check_loss
from deploy.resolution import Resolution, parse_resolution
from lut.errors import UserError

if TYPE_CHECKING:
    from deploy.artifact import Artifact
    from deploy.devices.network import Remote
    from deploy.graph.source import Source
    from deploy.reading import ReadModel
    from deploy.target import Target


def refusing(check: Callable[[Any], object]) -> Callable[[Any], Any]:
    """An option's callback: `check` raises UserError for a wrong value as soon as it is read,
    before the command imports what takes seconds."""

    def callback(value: Any) -> Any:  # noqa: ANN401 - whatever the option's type is
        if value is not None:
            check(value)
        return value

    return callback


def check_model(model: str) -> None:
    """As `deploy.graph.source.check_model`."""
    from deploy.graph.source import check_model

    check_model(model)


def check_network(model: str) -> None:
    """Raise UserError for what names no network of the search space."""
    from hmseg import zoo

    zoo.network_config(model)


def check_trained(model: str) -> None:
    """Raise UserError for what names no network that `hmseg train` trains."""
    from hmseg import zoo

    if not zoo.is_peer(model):
        zoo.network_config(model)


def check_quantisation(text: str) -> None:
    """As `hmseg.train.config.read_quantisation`."""
    from hmseg.train.config import read_quantisation

    read_quantisation(text)


def check_target(text: str) -> None:
    """As `deploy.targets.check_target`."""
    from deploy.targets import check_target

    check_target(text)


DEFAULT_MODEL = "tiny-hmseg"
HAND_MADE_MODEL = "tiny-mrms"  # what is trained and searched around, as in the paper
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A zoo name (hmseg-deploy models), a checkpoint of hmseg train or an ONNX file.",
        callback=refusing(check_model),
        autocompletion=completion.models,
    ),
]
ResolutionText = Annotated[
    str | None,
    typer.Option(
        "--resolution",
        "-r",
        help="HEIGHTxWIDTH of a zoo model (256x512) or of an ONNX file that does not fix it.",
        callback=refusing(parse_resolution),
        autocompletion=completion.resolutions,
    ),
]
Input = Annotated[
    InputKind,
    typer.Option("--input", help="image (uint8 NHWC) or tensor (normalised float32 NCHW)."),
]
Output = Annotated[
    OutputKind | None,
    typer.Option(
        "--output",
        help="labels (uint8, arg max inside), logits (float32), or masks (uint8, one a class), the "
        "default for an ONNX file that ends in a sigmoid of several classes.",
    ),
]
OutputName = Annotated[
    str | None, typer.Option("--output-name", help="Which output of an ONNX file, if several.")
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Of one class or of masks: what the ONNX file's own output is compared with (0 of a "
        "score, 0.5 of a sigmoid).",
        callback=refusing(check_threshold),
    ),
]
Classes = Annotated[
    int | None, typer.Option("--classes", help="Classes of an untrained zoo model.")
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        help="R,G,B of the image in 0..1, for a float ONNX file (ImageNet); grey: one number.",
        callback=refusing(lambda text: check_normalisation(read_values("--mean", text), None)),
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std",
        help="R,G,B, as --mean.",
        callback=refusing(lambda text: check_normalisation(None, read_values("--std", text))),
    ),
]
TargetText = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        help="cpu (this machine, the default; with --device what fits it), arm, android, cuda, "
        "adreno, x86-64-v2|v3|v4, LLVM's name of a CPU, a tag of TVM such as "
        "nvidia/geforce-gtx-1080-ti, or JSON.",
        callback=refusing(check_target),
        autocompletion=completion.targets,
    ),
]
Architectures = Annotated[
    str | None,
    typer.Option(
        "--arch",
        help="GPUs to make machine code for: sm_61,sm_90. With --target cuda. "
        "Tuned schedules are used where it is one.",
    ),
]
PrecisionText = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="fp32, the default; int8 on CPUs, bf16 on those that compute with it; with --target "
        "cuda fp16: maps lie in memory as such.",
        callback=refusing(parse_precision),
    ),
]
PrecisionOfModel = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="fp32, the default; on CPUs that compute with it bf16, with --target cuda fp16: maps "
        "lie in memory as such, sums are fp32; int8 by the scales of released weights, a "
        "checkpoint or a file.",
        callback=refusing(check_precision_or_auto),  # `resolve` says what is wrong with auto
    ),
]
PrecisionOrAuto = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="fp32, the default; on CPUs that compute with it bf16, with --target cuda fp16: maps "
        "lie in memory as such, sums are fp32; int8, whose products are summed in int32, with "
        "--calibrate or the scales of released weights, a checkpoint or a file; auto, the fastest "
        "on this CPU that keeps the labels, int8 among them where there are scales.",
        callback=refusing(check_precision_or_auto),
    ),
]
MaxMiouLoss = Annotated[
    float | None,
    typer.Option(
        "--max-miou-loss",
        help="Percentage points of mIoU that low precision may lose on the labelled frames [0.5].",
        callback=refusing(check_loss),
    ),
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Compile everything, and keep nothing (hmseg-deploy cache)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where to write.")]


@dataclass(frozen=True)
class SourceOptions:
    """What of a model is compiled."""

    resolution: ResolutionText = None
    classes: Classes = None
    mean: Mean = None
    std: Std = None
    output_name: OutputName = None
    threshold: Threshold = None


@dataclass(frozen=True)
class EndOptions:
    """What goes in and comes out."""

    input_: Input = "image"
    output: Output = None


@dataclass(frozen=True)
class TargetOptions:
    """What it is compiled for."""

    target: TargetText = None
    arch: Architectures = None
    precision: PrecisionOfModel = None

    @property
    def automatic(self) -> bool:
        """Whether the precision is still to be chosen."""
        return self.precision == AUTO

    def resolve(self, remote: "Remote | None" = None, *, automatic: bool = False) -> "Target":
        """The target, where it may be `automatic` the one to begin with; raises UserError as
        `resolve_target` does."""
        from deploy.targets import resolve_target

        if self.automatic and not automatic:
            raise UserError(
                "--precision auto is for hmseg-deploy compile, which times what it makes: name one"
            )
        precision = None if self.automatic else self.precision
        return resolve_target(target_text(self.target, remote), self.arch, precision)


@dataclass(frozen=True)
class ChoiceOptions(TargetOptions):
    """The same, where the precision may be chosen by timing."""

    precision: PrecisionOrAuto = None


def target_text(text: str | None, remote: "Remote | None") -> str:
    """The option, else what fits the device, else this machine."""
    if text is not None:
        return text
    return (remote and remote.fitting) or "cpu"


@dataclass(frozen=True)
class CacheOptions:
    """Whether what was compiled before is compiled again."""

    no_cache: NoCache = False

    def open(self) -> ObjectCache | None:
        """The user's cache, unless there is to be none; raises UserError as `default_cache`."""
        return None if self.no_cache else default_cache()


def read_file(model: str, options: SourceOptions) -> "ReadModel | None":
    """The ONNX file that the model options name, if they name one. To be read before TVM and torch
    take their memory, as resolving a target makes them: it may be hostile."""
    if not model.endswith(".onnx") or options.classes is not None:
        return None
    size = _checked(options)[0]
    from deploy.reading import read_model

    return read_model(Path(model), size)


def with_normalisation(
    given: SourceOptions, path: Path, found: Metadata, read: "ReadModel | None"
) -> SourceOptions:
    """The options for a model beside its artifact at `path`, which `found` is of: with the
    artifact's mean and standard deviation where the file that was `read` needs some. Raises
    UserError where others are given."""
    for name in ("mean", "std"):
        asked = read_values(f"--{name}", getattr(given, name))
        if asked not in (None, getattr(found, name)):
            raise UserError(
                f"{path} is compiled with {normalisation_text(found)}, not with --{name} "
                f"{getattr(given, name)}: leave --mean and --std out, or compile it again"
            )
    if read is None or read.takes_uint8 or found.mean is None or found.std is None:
        return given
    return replace(given, mean=_listed(found.mean), std=_listed(found.std))


def normalisation_text(found: Metadata) -> str:
    """The mean and the standard deviation of a network as options."""
    if found.mean is None or found.std is None:
        return "no --mean and --std"
    mean, std = (",".join(f"{value:.6g}" for value in values) for values in (found.mean, found.std))
    return f"--mean {mean} --std {std}"


def _listed(values: Values) -> str:
    return ",".join(map(repr, values))  # which is read as the same numbers


def open_model(
    model: str,
    options: SourceOptions | None = None,
    ends: EndOptions | None = None,
    read: "ReadModel | None" = None,
) -> "Source":
    """The graph that the model options name, of a file what was `read` of it; checks every text
    before the heavy imports, and says what its user should know."""
    options, ends = options or SourceOptions(), ends or EndOptions()
    size, means, stds = _checked(options)
    from deploy.graph.source import open_source

    source = open_source(
        model, resolution=size, input_kind=ends.input_, output=ends.output,
        num_classes=options.classes, mean=means, std=stds, output_name=options.output_name,
        threshold=options.threshold, read=read,
    )  # fmt: skip
    if source.imported and source.imported.note:
        say(f"{model}: {source.imported.note}")
    return source


def _checked(options: SourceOptions) -> tuple[Resolution | None, Values | None, Values | None]:
    """The resolution, the mean and the standard deviation; raises UserError for texts of no use."""
    size = read_resolution(options.resolution)
    means, stds = read_values("--mean", options.mean), read_values("--std", options.std)
    check_normalisation(means, stds)
    if options.threshold is not None:
        check_threshold(options.threshold)
    return size, means, stds


def check_precision(asked: str | None, artifact: "Artifact") -> None:
    """Raise UserError where another precision was asked for than an artifact has."""
    found = artifact.target.precision.name
    if asked not in (None, found):
        raise UserError(f"the artifact is {found}, not {asked}; leave --precision out")


def read_resolution(text: str | None) -> Resolution | None:
    """None stays None; see `parse_resolution`."""
    return None if text is None else parse_resolution(text)


def read_values(option: str, text: str | None) -> Values | None:
    """One, three or four numbers with commas between them; raises UserError for anything else."""
    if text is None:
        return None
    try:
        values = tuple(float(word) for word in text.split(","))
        if not all(map(math.isfinite, values)) or len(values) not in CHANNELS:
            raise ValueError
    except ValueError:
        raise UserError(
            f"{option} {text!r}: write one number for each channel, such as 0.5,0.5,0.5"
        ) from None
    return values
