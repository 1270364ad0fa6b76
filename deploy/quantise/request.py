"""What a user asks for with int8, checked before any long work. Light to import."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.precision import AUTO, INT8
from deploy.quantise.gate import check_loss
from deploy.quantise.shipped_file import has_scales
from lut.errors import UserError

if TYPE_CHECKING:
    import onnx

_WITH_INT8 = "{name} goes with --precision int8"
MOST = 100  # frames, unless the user says
_OF_INTEGERS = ("QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


def is_quantised(model: "onnx.ModelProto") -> bool:
    """Whether a graph brings scales of its own for its maps."""
    names = {node.op_type for node in model.graph.node}
    return any(name in _OF_INTEGERS or name.startswith("QLinear") for name in names)


def check_scales(graph: "onnx.ModelProto", model: str) -> None:
    """Raise UserError for int8 of a graph without scales, which would be computed in float32."""
    if not is_quantised(graph):
        raise UserError(
            f"--precision int8: {model} has no scales; hmseg-deploy compile --precision int8 "
            "--calibrate FOLDER finds some: give the artifact that it writes"
        )


def _may_have_scales(model: str) -> bool:
    """A name whose released weights have some, or a checkpoint: `deploy.build` looks at what is
    made of it."""
    return has_scales(model) or Path(model).is_file()


@dataclass(frozen=True)
class Request:
    """The program's options of these names; all of them go with int8, or with what tries it."""

    calibrate: Path | None = None
    calibrate_frames: int = MOST
    keep: tuple[str, ...] = ()
    max_miou_loss: float | None = None
    sensitivity: bool = False
    save_onnx: Path | None = None

    def check(self, precision: str | None) -> None:
        """Raise UserError for options that have no use, or do not fit each other."""
        if precision == AUTO:
            Request(save_onnx=self.save_onnx)._refuse(_WITH_INT8)
        elif precision != INT8.name:
            self._refuse(f"{_WITH_INT8} or auto")
        if self.calibrate is None:
            others = replace(self, save_onnx=None)
            others._refuse("{name} goes with --calibrate FOLDER")
        if self.calibrate_frames < 1:
            raise UserError(f"--calibrate-frames {self.calibrate_frames}: at least 1 is needed")
        if self.max_miou_loss is not None:
            check_loss(self.max_miou_loss)
        if self.calibrate is not None:
            from deploy.images import images_in  # late: numpy

            images_in(self.calibrate)

    def check_model(
        self, precision: str | None, model: str, file: "onnx.ModelProto | None"
    ) -> None:
        """Raise UserError where a model, of which `file` is the user's own, brings its own scales
        beside these, or has none."""
        if precision not in (INT8.name, AUTO):
            return
        if file is not None and is_quantised(file):
            self._refuse(
                f"{model} is quantised already, and its own scales count: leave {{name}} out"
            )
        elif (
            precision == INT8.name
            and self.calibrate is None
            and (file is not None or not _may_have_scales(model))
        ):
            raise UserError(
                "--precision int8 needs --calibrate FOLDER: some 100 pictures such as the network "
                "will see (a file or a checkpoint that is quantised already, and released weights "
                "with scales, need none)"
            )

    def _refuse(self, message: str) -> None:
        """Raise UserError with the name of the first option that is given, if one is."""
        nothing = Request()
        for field in ("calibrate", "calibrate_frames", "keep", "max_miou_loss", "sensitivity",
                      "save_onnx"):  # fmt: skip
            if getattr(self, field) != getattr(nothing, field):
                raise UserError(message.format(name=f"--{field.replace('_', '-')}"))
