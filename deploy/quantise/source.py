"""What a user asks for, done to what ``--model`` names."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from deploy.graph.source import Source
from deploy.precision import INT8
from deploy.quantise.frames import Frames, open_frames
from deploy.quantise.report import Report
from deploy.quantise.request import Request, check_scales
from deploy.quantise.run import Options, quantise
from deploy.quantise.shipped import with_shipped

if TYPE_CHECKING:
    import onnx


def frames_of(request: Request, source: Source) -> Frames:
    """The frames that a request names. Raises UserError as `open_frames`."""
    assert request.calibrate is not None
    return open_frames(request.calibrate, source.metadata, request.calibrate_frames)


def quantise_source(
    request: Request, source: Source, threads: int, progress: Callable[[str], None],
    precision: str | None,
) -> tuple[Source, Report | None]:  # fmt: skip
    """The source with its graph in 8 bits, written to a file where that is asked for, and what it
    cost. Where nothing is to be calibrated, int8 of released weights is by the scales that ship
    with them (`with_shipped`); any other source is as it is. Raises as `open_frames`, `quantise`
    and `with_shipped`, and UserError where the file would be of a network in float32."""
    if request.calibrate is None:
        if precision == INT8.name and source.released is not None:
            source, said = with_shipped(source, threads, progress)
            progress(said)
        if request.save_onnx is not None:
            check_scales(source.compiled, source.metadata.model)
        _save(source.compiled, request)
        return source, None
    frames = frames_of(request, source)
    options = Options(request.keep, request.max_miou_loss, request.sensitivity, threads)
    found = quantise(source.graph, frames, options, progress)
    _save(found.graph, request)
    return replace(source, quantised=found.graph), found.report


def _save(graph: "onnx.ModelProto", request: Request) -> None:
    if request.save_onnx is not None:
        from deploy.graph.export import save_onnx  # late: torch

        save_onnx(graph, request.save_onnx)
