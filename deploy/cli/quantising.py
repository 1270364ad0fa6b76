"""The options of int8: what a network is calibrated on, and what it may lose."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import options
from deploy.cli.console import Step, say, step
from lut.errors import UserError
from lut.files import check_writable

if TYPE_CHECKING:
    from deploy.graph.source import Source
    from deploy.quantise import Report
    from deploy.reading import ReadModel

_USUAL = 100  # frames: `deploy.quantise.MOST`, which is not imported for this


def _check_share(value: float) -> None:
    if not 0 <= value <= 100:
        raise UserError(f"--max-miou-loss {value:g}: write points of mIoU, 0 to 100, such as 0.5")


@dataclass(frozen=True)
class QuantiseOptions:
    """All of them go with --precision int8."""

    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            help="With --precision int8: a folder of pictures such as the network will see; in "
            "CamVid's layout (train beside trainannot) mIoU is measured too.",
        ),
    ] = None
    calibrate_frames: Annotated[
        int, typer.Option("--calibrate-frames", help="At most so many of them, evenly taken.")
    ] = _USUAL
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
            callback=options.refusing(_check_share),
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

    def check(self, precision: str | None, model: str, read: "ReadModel | None") -> None:
        """Raise UserError where these options do not fit the precision, or the model that was
        `read`, before the long imports."""
        if precision != options.INT8:
            for name, given in self._given().items():
                if given:
                    raise UserError(f"{name} goes with --precision int8")
            return
        own_scales = False
        if read is not None:
            from deploy.quantise import is_quantised

            own_scales = is_quantised(read.file.model)
        if own_scales:
            for name, given in self._given().items():
                if given:
                    raise UserError(
                        f"{model} is quantised already, and its own scales count; leave {name} out"
                    )
        elif self.calibrate is None:
            raise UserError(
                "--precision int8 needs --calibrate FOLDER: some 100 pictures such as the network "
                "will see (an ONNX file that is quantised already needs none)"
            )
        if self.calibrate is not None and not self.calibrate.exists():
            raise UserError(f"{self.calibrate}: no such folder")
        if self.calibrate_frames < 1:
            raise UserError(f"--calibrate-frames {self.calibrate_frames}: at least 1 is needed")
        if self.save_onnx is not None:
            check_writable(self.save_onnx)

    def _given(self) -> dict[str, bool]:
        return {
            "--calibrate": self.calibrate is not None,
            "--calibrate-frames": self.calibrate_frames != _USUAL,
            "--keep": self.keep is not None,
            "--max-miou-loss": self.max_miou_loss is not None,
            "--sensitivity": self.sensitivity,
            "--save-onnx": self.save_onnx is not None,
        }

    def quantised(self, source: "Source", threads: int, current: Step) -> "tuple[Source, Report]":
        """The source with its graph in 8 bits, and what that cost."""
        from deploy.quantise import Options, open_frames, quantise

        assert self.calibrate is not None
        frames = open_frames(self.calibrate, source.metadata, self.calibrate_frames)
        found = quantise(
            source.graph, frames,
            Options(
                keep=tuple(word.strip() for word in (self.keep or "").split(",") if word.strip()),
                max_miou_loss=self.max_miou_loss, sensitivity=self.sensitivity, threads=threads,
            ),
            current.at,
        )  # fmt: skip
        return replace(source, quantised=found.graph), found.report


def quantise_source(
    given: QuantiseOptions, source: "Source", threads: int
) -> "tuple[Source, dict[str, Any]]":
    """As `QuantiseOptions.quantised`, shown as a step, its report printed, and the graph written
    where asked for; with the report's JSON, nothing where there is nothing to quantise."""
    if given.calibrate is None:
        return source, {}
    with step(f"quantising by {given.calibrate}") as current:
        source, report = given.quantised(source, threads, current)
        current.result = f"{report.frames} frames"
    for line in report.lines():
        say(line)
    if given.save_onnx is not None:
        from deploy.graph.export import save_onnx

        save_onnx(source.compiled, given.save_onnx)
    return source, {"quantisation": report.to_json()}
