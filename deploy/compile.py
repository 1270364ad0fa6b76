"""One call from a model to an artifact on disk: `hmseg.compile`."""

import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.artifact import SUFFIX
from deploy.artifact_file import save_artifact
from deploy.graph.source import check_model, open_source
from deploy.host import default_threads
from deploy.metadata import (
    INPUT_KINDS,
    OUTPUT_KINDS,
    InputKind,
    OutputKind,
    check_normalisation,
    check_threshold,
)
from deploy.object_cache import default_cache
from deploy.precision import AUTO, check_precision_or_auto
from deploy.quantise.request import MOST, Request
from deploy.resolution import DEFAULT_RESOLUTION, Resolution, parse_resolution
from deploy.targets import check_target, resolve_target
from lut.errors import HmsegWarning, UserError
from lut.files import check_writable

if TYPE_CHECKING:
    from torch import nn

    from deploy.graph.source import Source


class NotCheckedWarning(HmsegWarning):
    """An artifact is written that nothing at hand can run."""


def compile_model(
    model: "str | Path | nn.Module",
    out: str | Path | None = None,
    *,
    resolution: str | tuple[int, int] | None = None,
    target: str = "cpu",
    precision: str | None = None,
    threads: int | None = None,
    input: InputKind = "image",
    output: OutputKind | None = None,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    output_name: str | None = None,
    threshold: float | None = None,
    calibrate: str | Path | None = None,
    calibrate_frames: int = MOST,
    keep: Sequence[str] = (),
    max_miou_loss: float | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Path:
    """Compile a model, check it against onnxruntime, and write one artifact file, which
    `hmseg.load` loads. Returns its path.

    `model` is a name of the zoo, the path of an ONNX file or of a training's checkpoint, or a torch
    module that takes a normalised image, float32 (1, 3, H, W), and gives class scores (1, K, h, w);
    it is exported in eval mode and not changed. `out` is the file; by default it is named after the
    model and lies in the current folder. `resolution` is "HEIGHTxWIDTH" or (height, width), for an
    ONNX file what the file leaves open, for others 256x512 unless it is given.

    `target`, `precision`, `input`, `output`, `output_name` and `threshold` are the program's
    options of these names; `mean` and `std` are of the image in 0..1, one number for each channel
    (ImageNet's where an RGB image is normalised). `threads` are those that the network is tuned
    for, by default as many as `hmseg.load` takes. `num_classes` is of a zoo name, without its
    released weights. `calibrate` is a folder of frames for the precision int8, and for auto, with
    `calibrate_frames`, `keep` and `max_miou_loss` as the program's options; without, released
    weights have scales that ship with them. `on_step` is told what is done now, and what int8
    costs.

    Raises UserError for what cannot be compiled as asked, WorkError where the compiled network does
    not match: then nothing is written. Warns where nothing at hand runs the target, so that it was
    not checked.
    """
    check_target(target)
    if precision is not None:
        check_precision_or_auto(precision)
    folder_of_frames = None if calibrate is None else Path(calibrate)
    kept = (keep,) if isinstance(keep, str) else tuple(keep)
    request = Request(folder_of_frames, calibrate_frames, kept, max_miou_loss)
    request.check(precision)
    if isinstance(model, str | Path):
        check_model(str(model))
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}; it must be at least 1")
    _check_kind("input", input, INPUT_KINDS)
    _check_kind("output", output, (None, *OUTPUT_KINDS))
    check_normalisation(mean, std)
    if threshold is not None:
        check_threshold(threshold)
    size = _resolution(resolution)
    if out is not None:
        check_writable(Path(out))
    cache = default_cache()
    with tempfile.TemporaryDirectory() as folder:
        name = str(model) if isinstance(model, str | Path) else _export(model, size, Path(folder))
        source = open_source(
            name, resolution=size, input_kind=input, output=output, num_classes=num_classes,
            mean=None if mean is None else tuple(mean), std=None if std is None else tuple(std),
            output_name=output_name, threshold=threshold,
        )  # fmt: skip
    request.check_model(precision, name, source.imported and source.imported.file.model)
    from deploy.build import build_source  # late: TVM, which a model that is refused does not need
    from deploy.quantise.source import quantise_source

    automatic = precision == AUTO
    resolved = resolve_target(target, precision=None if automatic else precision)
    path = default_path(source) if out is None else Path(out)
    check_writable(path)
    workers = threads or default_threads()
    if automatic:
        from deploy.fastest import build_fastest

        found = build_fastest(
            source, resolved, threads=workers, request=request, cache=cache, on_step=on_step
        )
        artifact, comparisons = found.artifact, found.comparisons
        for line in (*found.choice.table(), str(found.choice)):
            on_step(line)
    else:
        source, report = quantise_source(request, source, workers, on_step, precision)
        if report is not None:
            on_step(report.lines()[-1])
        artifact, comparisons = build_source(
            source, resolved, threads=workers, cache=cache, on_step=on_step
        )
    if not comparisons:
        message = f"{path} was not checked: {artifact.parity['reason']}"
        warnings.warn(message, NotCheckedWarning, stacklevel=2)
    save_artifact(artifact, path)
    return path


def default_path(source: "Source", suffix: str = SUFFIX) -> Path:
    """Where a source's artifact, or with another suffix what else is made of it, is written unless
    its user says where."""
    return Path(f"{source.metadata.file_name}{suffix}")


def _resolution(given: str | tuple[int, int] | None) -> Resolution | None:
    if given is None or isinstance(given, str):
        return None if given is None else parse_resolution(given)
    if not isinstance(given, Iterable):
        raise UserError(f'resolution is {given!r}; write "HEIGHTxWIDTH" or (height, width)')
    return parse_resolution("x".join(map(str, given)))


def _check_kind(name: str, given: str | None, known: Sequence[str | None]) -> None:
    if given not in known:
        words = ", ".join(map(repr, known))
        raise UserError(f"{name} is {given!r}; it must be one of {words}")


def _export(module: "nn.Module", resolution: Resolution | None, folder: Path) -> str:
    """A module as a user's ONNX file: from there on it takes the same road."""
    from torch import nn

    if not isinstance(module, nn.Module):
        raise UserError(
            f"the model is a {type(module).__name__}; give a name of the zoo, the path of an ONNX "
            "file, or a torch module"
        )
    from deploy.graph.export import export_module

    path = folder / f"{type(module).__name__}.onnx"
    export_module(module, resolution or DEFAULT_RESOLUTION, path)
    return str(path)
