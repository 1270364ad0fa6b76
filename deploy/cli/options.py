"""The options that commands share, and what their texts mean."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.metadata import InputKind, OutputKind, Triple
from deploy.object_cache import ObjectCache, default_cache
from deploy.resolution import Resolution, parse_resolution
from lut.errors import UserError

if TYPE_CHECKING:
    from deploy.artifact import Artifact
    from deploy.graph.source import Source
    from deploy.target import Target

DEFAULT_MODEL = "tiny-hmseg"
HAND_MADE_MODEL = "tiny-mrms"  # what is trained and searched around, as in the paper
Model = Annotated[
    str, typer.Option("--model", "-m", help="A zoo name (hmseg-deploy models) or an ONNX file.")
]
ResolutionText = Annotated[
    str | None,
    typer.Option("--resolution", "-r", help="HEIGHTxWIDTH; 256x512 unless an ONNX file fixes it."),
]
Input = Annotated[
    InputKind,
    typer.Option("--input", help="image (uint8 NHWC) or tensor (normalised float32 NCHW)."),
]
Output = Annotated[
    OutputKind, typer.Option("--output", help="labels (uint8, arg max inside) or logits (float32).")
]
Classes = Annotated[
    int | None, typer.Option("--classes", help="Classes of an untrained zoo model.")
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", help="R,G,B of the image in 0..1, for a float ONNX file (ImageNet)."),
]
Std = Annotated[str | None, typer.Option("--std", help="R,G,B, as --mean.")]
TargetText = Annotated[
    str,
    typer.Option(
        "--target",
        "-t",
        help="cpu (this machine), arm, android, cuda, adreno, x86-64-v2|v3|v4, LLVM's name of a "
        "CPU, a tag of TVM such as nvidia/geforce-gtx-1080-ti, or JSON.",
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
        help="fp32, the default, or with --target cuda fp16: maps lie in memory as half, sums stay "
        "fp32.",
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


@dataclass(frozen=True)
class EndOptions:
    """What goes in and comes out."""

    input_: Input = "image"
    output: Output = "labels"


@dataclass(frozen=True)
class TargetOptions:
    """What it is compiled for."""

    target: TargetText = "cpu"
    arch: Architectures = None
    precision: PrecisionText = None

    def resolve(self) -> "Target":
        """The target; raises UserError as `resolve_target` does."""
        from deploy.targets import resolve_target

        return resolve_target(self.target, self.arch, self.precision)


@dataclass(frozen=True)
class CacheOptions:
    """Whether what was compiled before is compiled again."""

    no_cache: NoCache = False

    def open(self) -> ObjectCache | None:
        """The user's cache, unless there is to be none; raises UserError as `default_cache`."""
        return None if self.no_cache else default_cache()


def open_model(
    model: str, options: SourceOptions | None = None, ends: EndOptions | None = None
) -> "Source":
    """The graph that the model options name; checks every text before the heavy imports."""
    options, ends = options or SourceOptions(), ends or EndOptions()
    size = read_resolution(options.resolution)
    means, stds = read_triple("--mean", options.mean), read_triple("--std", options.std)
    if stds and min(stds) <= 0:
        raise UserError(f"--std {options.std}: the three numbers must be above 0")
    from deploy.graph.source import open_source

    return open_source(
        model, resolution=size, input_kind=ends.input_, output=ends.output,
        num_classes=options.classes, mean=means, std=stds,
    )  # fmt: skip


def check_precision(asked: str | None, artifact: "Artifact") -> None:
    """Raise UserError where another precision was asked for than an artifact has."""
    found = artifact.target.precision.name
    if asked not in (None, found):
        raise UserError(f"the artifact is {found}, not {asked}; leave --precision out")


def read_resolution(text: str | None) -> Resolution | None:
    """None stays None; see `parse_resolution`."""
    return None if text is None else parse_resolution(text)


def read_triple(option: str, text: str | None) -> Triple | None:
    """Three numbers with commas between them; raises UserError for anything else."""
    if text is None:
        return None
    try:
        red, green, blue = (float(word) for word in text.split(","))
        if not all(math.isfinite(number) for number in (red, green, blue)):
            raise ValueError
    except ValueError:
        raise UserError(f"{option} {text!r}: write three numbers, such as 0.5,0.5,0.5") from None
    return red, green, blue
