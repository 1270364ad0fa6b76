"""The options of int8: what a network is calibrated on, and what it may lose."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.console import say, step
from deploy.cli.options import refusing
from deploy.precision import INT8
from deploy.quantise.gate import check_loss
from deploy.quantise.request import MOST, Request
from lut.files import check_writable

if TYPE_CHECKING:
    from deploy.graph.source import Source


@dataclass(frozen=True)
class QuantiseOptions:
    """All of them go with --precision int8, all but --save-onnx with auto."""

    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            help="With --precision int8 or auto: a folder of pictures such as the network will "
            "see; in CamVid's layout (train beside trainannot) mIoU is measured too. Without, "
            "released weights have scales that ship with them.",
        ),
    ] = None
    calibrate_frames: Annotated[
        int, typer.Option("--calibrate-frames", help="At most so many of them, evenly taken.")
    ] = MOST
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            help="NAME[,NAME] of layers that stay wide: whole, the beginning before a dot, or with "
            "*.",
        ),
    ] = None
    max_miou_loss: Annotated[
        float | None,
        typer.Option(
            "--max-miou-loss",
            help="Points that int8 may lose on labelled frames (0.5); without labels 99% of those "
            "that are no tie have to be fp32's.",
            callback=refusing(check_loss),
        ),
    ] = None
    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Print which layers hurt, also where none is kept."),
    ] = False
    save_onnx: Annotated[
        Path | None,
        typer.Option("--save-onnx", help="Write the quantised graph (QDQ) as an ONNX file, too."),
    ] = None

    def read(self, precision: str | None) -> Request:
        """What is asked for, checked as far as can be before a model is read."""
        keep = tuple(word.strip() for word in (self.keep or "").split(",") if word.strip())
        request = Request(
            self.calibrate, self.calibrate_frames, keep, self.max_miou_loss, self.sensitivity,
            self.save_onnx,
        )  # fmt: skip
        request.check(precision)
        if self.save_onnx is not None:
            check_writable(self.save_onnx)
        return request


def show_quantising(
    request: Request, source: "Source", threads: int, precision: str | None
) -> "tuple[Source, dict[str, Any]]":
    """As `quantise_source`, shown as a step, its report printed; with the report's JSON, nothing
    where there is nothing to calibrate."""
    if precision != INT8.name:
        return source, {}
    from deploy.quantise.source import quantise_source

    if request.calibrate is None:
        lines: list[str] = []
        source, _ = quantise_source(request, source, threads, lines.append, precision)
        for line in lines[-1:]:
            say(line)
        return source, {}
    with step(f"quantising by {request.calibrate}") as current:
        source, report = quantise_source(request, source, threads, current.at, precision)
        assert report is not None
        current.result = f"{report.frames} frames"
    for line in report.lines():
        say(line)
    return source, {"quantisation": report.to_json()}
