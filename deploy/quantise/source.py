"""What a user asks for, done to what ``--model`` names."""

from collections.abc import Callable
from dataclasses import replace

from deploy.graph.source import Source
from deploy.quantise.frames import Frames, open_frames
from deploy.quantise.report import Report
from deploy.quantise.request import Request
from deploy.quantise.run import Options, quantise


def frames_of(request: Request, source: Source) -> Frames:
    """The frames that a request names. Raises UserError as `open_frames`."""
    assert request.calibrate is not None
    return open_frames(request.calibrate, source.metadata, request.calibrate_frames)


def quantise_source(
    request: Request, source: Source, threads: int, progress: Callable[[str], None]
) -> tuple[Source, Report | None]:
    """The source with its graph in 8 bits, written to a file where that is asked for, and what it
    cost; a source that is not to be calibrated as it is. Raises as `open_frames` and `quantise`."""
    if request.calibrate is None:
        return source, None
    frames = frames_of(request, source)
    options = Options(request.keep, request.max_miou_loss, request.sensitivity, threads)
    found = quantise(source.graph, frames, options, progress)
    if request.save_onnx is not None:
        from deploy.graph.export import save_onnx  # late: torch

        save_onnx(found.graph, request.save_onnx)
    return replace(source, quantised=found.graph), found.report
