"""The options that commands share, and what their texts mean."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.devices.address import LOOPBACK, TRACKER_PORT, Address, parse_address
from deploy.metadata import INPUT_KINDS, OUTPUT_KINDS, InputKind, OutputKind, Triple
from deploy.object_cache import ObjectCache, default_cache
from deploy.resolution import Resolution, parse_resolution
from lut.errors import UserError

if TYPE_CHECKING:
    from deploy.artifact import Artifact
    from deploy.devices.network import Remote
    from deploy.graph.source import Source
    from deploy.measure.device import Devices
    from deploy.target import Target
    from lut.table import Identity

DEFAULT_MODEL = "tiny-hmseg"
DEFAULT_PRECISION = "fp32"
HAND_MADE_MODEL = "tiny-mrms"  # what is trained and searched around, as in the paper
MAX_THREADS = 1024

Model = Annotated[
    str, typer.Option("--model", "-m", help="A zoo name (hmseg-deploy models) or an ONNX file.")
]
ResolutionText = Annotated[
    str | None,
    typer.Option("--resolution", "-r", help="HEIGHTxWIDTH; 256x512 unless an ONNX file fixes it."),
]
InputText = Annotated[
    str,
    typer.Option("--input", help="image (uint8 NHWC) or tensor (normalised float32 NCHW)."),
]
OutputText = Annotated[
    str, typer.Option("--output", help="labels (uint8, arg max inside) or logits (float32).")
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
    str,
    typer.Option(
        "--precision",
        help="fp32, or with --target cuda fp16: maps lie in memory as half, sums stay fp32.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="Threads of a call; TVM_NUM_THREADS, else its machine's cores."),
]
Tracker = Annotated[
    str | None,
    typer.Option(
        "--rpc-tracker",
        help="HOST:PORT of TVM's tracker; TVM_TRACKER_HOST and _PORT, else 127.0.0.1:9190.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--rpc-key", help="Work on a device with this key; TVM_TRACKER_KEY, else here."),
]
CallLimit = Annotated[
    float, typer.Option("--rpc-limit", help="Seconds that one call of a device may take.")
]
CALL_LIMIT_S = 120.0
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

    input_: InputText = "image"
    output: OutputText = "labels"


@dataclass(frozen=True)
class TargetOptions:
    """What it is compiled for."""

    target: TargetText = "cpu"
    arch: Architectures = None
    precision: PrecisionText = DEFAULT_PRECISION

    def resolve(self) -> "Target":
        """The target; raises UserError as `resolve_target` does."""
        from deploy.targets import resolve_target

        return resolve_target(self.target, self.arch, self.precision)


@dataclass(frozen=True)
class PlaceOptions:
    """Where it runs."""

    threads: Threads = None
    rpc_tracker: Tracker = None
    rpc_key: Key = None
    rpc_limit: CallLimit = CALL_LIMIT_S

    def read(self) -> "tuple[int, Remote | None]":
        """As `read_place`."""
        return read_place(self.threads, self.rpc_tracker, self.rpc_key, self.rpc_limit)


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
    taken, kind = read_input(ends.input_), read_output(ends.output)
    means, stds = read_triple("--mean", options.mean), read_triple("--std", options.std)
    if stds and min(stds) <= 0:
        raise UserError(f"--std {options.std}: the three numbers must be above 0")
    from deploy.graph.source import open_source

    return open_source(
        model, resolution=size, input_kind=taken, output=kind, num_classes=options.classes,
        mean=means, std=stds,
    )  # fmt: skip


def check_precision(asked: str, artifact: "Artifact") -> None:
    """Raise UserError where another precision was asked for than an artifact has."""
    found = artifact.target.precision.name
    if asked not in (DEFAULT_PRECISION, found):
        raise UserError(f"the artifact is {found}, not {asked}; leave --precision out")


def read_resolution(text: str | None) -> Resolution | None:
    """None stays None; see `parse_resolution`."""
    return None if text is None else parse_resolution(text)


def read_input(text: str) -> InputKind:
    """image or tensor; raises UserError for anything else."""
    for kind in INPUT_KINDS:
        if text == kind:
            return kind
    raise UserError(f"unknown input {text!r}: choose {' or '.join(INPUT_KINDS)}")


def read_output(text: str) -> OutputKind:
    """labels or logits; raises UserError for anything else."""
    for kind in OUTPUT_KINDS:
        if text == kind:
            return kind
    raise UserError(f"unknown output {text!r}: choose {' or '.join(OUTPUT_KINDS)}")


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


def read_tracker(text: str | None) -> Address:
    """The option, else TVM_TRACKER_HOST and TVM_TRACKER_PORT, else this machine's usual port."""
    if text is not None:
        return parse_address(text)
    host = os.environ.get("TVM_TRACKER_HOST") or LOOPBACK
    return parse_address(f"{host}:{os.environ.get('TVM_TRACKER_PORT') or TRACKER_PORT}")


def read_key(key: str | None) -> str | None:
    """The option, else TVM_TRACKER_KEY; None where neither names one."""
    key = key if key is not None else os.environ.get("TVM_TRACKER_KEY") or None
    if key is not None and (not key or not key.isprintable() or any(c in key for c in " :")):
        raise UserError(f"--rpc-key {key!r}: write a word without spaces and colons, such as arm")
    return key


def read_place(
    threads: int | None, tracker: str | None, key: str | None, limit_s: float
) -> "tuple[int, Remote | None]":
    """The number of threads, and the devices that the options name: None where the work is done on
    this machine. Without a number in --threads or TVM_NUM_THREADS it is that of the cores which do
    the work."""
    word = read_key(key)
    if word is None:
        if tracker is not None:
            raise UserError(
                "--rpc-tracker needs --rpc-key; hmseg-deploy device list shows the keys"
            )
        return read_threads(threads), None
    address = read_tracker(tracker)
    if not 0 < limit_s < math.inf:
        raise UserError(f"--rpc-limit {limit_s}: write a number of seconds above 0")
    from deploy.cli.console import say
    from deploy.devices.network import Remote
    from deploy.devices.session import Farm
    from deploy.devices.tracker import require_key

    require_key(address, word)  # before long work
    farm = Farm(address, word, call_limit_s=limit_s)
    if threads is not None or os.environ.get("TVM_NUM_THREADS"):
        workers = read_threads(threads)
    else:
        device = Remote(farm, 1, on_lost=say).on_one(lambda session: session.describe())
        if device is None:
            raise UserError(f"the device {word} does not say how many cores it has; name --threads")
        workers = device.cores
    return workers, Remote(farm, workers, on_lost=say)


def read_table_place(
    identity: "Identity", tracker: str | None, key: str | None, limit_s: float
) -> "tuple[int, Remote | None]":
    """`read_place` for what a table was measured on."""
    if identity.threads:
        return read_place(identity.threads, tracker, key, limit_s)
    _, remote = read_place(None, tracker, key, limit_s)
    return 0, remote


def resolve_measured_target(text: str, precision: str = DEFAULT_PRECISION) -> "Target":
    """`resolve_target` for what is measured: of the machine at hand alone.

    Raises UserError where there is none, or another than `text` names.
    """
    from deploy.backends import backend_of
    from deploy.targets import resolve_target

    target = resolve_target(text, None, precision)
    return backend_of(target).measured_target(target, text)


def open_devices(threads: int, remote: "Remote | None", target: "Target") -> "Devices":
    """What measures a table of `target`: the devices that the options name, else this machine."""
    from deploy.backends import backend_of

    return backend_of(target).devices(threads, remote)


def read_threads(threads: int | None) -> int:
    """The option, else TVM_NUM_THREADS, else this process's cores."""
    name = "--threads"
    if threads is None:
        text = os.environ.get("TVM_NUM_THREADS")
        if text:
            name = "TVM_NUM_THREADS"
            threads = int(text) if text.isdecimal() and text.isascii() else 0
        else:
            threads = len(os.sched_getaffinity(0))
    if not 1 <= threads <= MAX_THREADS:
        found = text if name != "--threads" else threads
        raise UserError(f"{name} {found}: write a number from 1 to {MAX_THREADS}")
    os.environ["TVM_NUM_THREADS"] = str(threads)
    return threads
