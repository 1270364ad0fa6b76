"""What a user asks for with int8, checked before any long work. Light to import."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lut.errors import UserError

if TYPE_CHECKING:
    import onnx

    from deploy.graph.source import Source
    from deploy.quantise.report import Report
    from deploy.target import Target

INT8 = "int8"
MOST = 100  # frames, unless the user says


def check_loss(points: float) -> None:
    """Raise UserError for what cannot be points of mIoU."""
    if not 0 <= points <= 100:
        raise UserError(f"--max-miou-loss {points:g}: write points of mIoU, 0 to 100, such as 0.5")


@dataclass(frozen=True)
class Request:
    """The program's options of these names; all of them go with int8."""

    calibrate: Path | None = None
    calibrate_frames: int = MOST
    keep: tuple[str, ...] = ()
    max_miou_loss: float | None = None
    sensitivity: bool = False
    save_onnx: Path | None = None

    def check(self, precision: str | None) -> None:
        """Raise UserError for options that have no use, or do not fit each other."""
        if precision != INT8:
            self._refuse("{name} goes with --precision int8")
        if self.calibrate is None:
            others = replace(self, save_onnx=None)
            others._refuse("{name} goes with --calibrate FOLDER")
        elif not self.calibrate.exists():
            raise UserError(f"{self.calibrate}: no such folder")
        if self.calibrate_frames < 1:
            raise UserError(f"--calibrate-frames {self.calibrate_frames}: at least 1 is needed")
        if self.max_miou_loss is not None:
            check_loss(self.max_miou_loss)

    def check_model(
        self, precision: str | None, model: str, file: "onnx.ModelProto | None"
    ) -> None:
        """Raise UserError where a model, of which `file` is the user's own, brings its own scales
        beside these, or has none."""
        if precision != INT8:
            return
        if file is not None and _brings_scales(file):
            self._refuse(
                f"{model} is quantised already, and its own scales count: leave {{name}} out"
            )
        elif self.calibrate is None:
            raise UserError(
                "--precision int8 needs --calibrate FOLDER: some 100 pictures such as the network "
                "will see (an ONNX file that is quantised already needs none)"
            )

    def check_target(self, precision: str | None, target: "Target") -> None:
        """Raise UserError where int8 is asked for on what is no CPU."""
        if precision == INT8 and target.config["kind"] != "llvm":
            raise UserError(f"--precision int8 is for CPUs, not for {target.name}")

    def quantised(
        self, source: "Source", threads: int, progress: Callable[[str], None]
    ) -> "tuple[Source, Report | None]":
        """The source with its graph in 8 bits, and what that cost; a source that brings its own
        scales as it is. Raises UserError as `open_frames` and `quantise` do, WorkError where too
        much is lost."""
        if self.calibrate is None:
            return source, None
        from deploy.quantise.frames import open_frames
        from deploy.quantise.run import Options, quantise

        frames = open_frames(self.calibrate, source.metadata, self.calibrate_frames)
        options = Options(self.keep, self.max_miou_loss, self.sensitivity, threads)
        found = quantise(source.graph, frames, options, progress)
        if self.save_onnx is not None:
            from deploy.graph.export import save_onnx

            save_onnx(found.graph, self.save_onnx)
        return replace(source, quantised=found.graph), found.report

    def _refuse(self, message: str) -> None:
        """Raise UserError with the name of the first option that is given, if one is."""
        nothing = Request()
        for field in ("calibrate", "calibrate_frames", "keep", "max_miou_loss", "sensitivity",
                      "save_onnx"):  # fmt: skip
            if getattr(self, field) != getattr(nothing, field):
                raise UserError(message.format(name=f"--{field.replace('_', '-')}"))


def _brings_scales(model: "onnx.ModelProto") -> bool:
    from deploy.quantise.run import is_quantised

    return is_quantised(model)
