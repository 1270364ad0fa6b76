"""What is asked for with int8, before any long work."""

from pathlib import Path

import onnx
import pytest

from deploy.quantise.request import Request, is_quantised
from lut.errors import UserError
from tests.deploy.quantise.maps import conv, graph_of, node
from tests.deploy.quantise.test_frames import folder_of


def of_integers() -> onnx.ModelProto:
    """A file in onnxruntime's QOperator form."""
    model = onnx.ModelProto()
    model.graph.node.add(op_type="QuantizeLinear")
    model.graph.node.add(op_type="QLinearConv")
    return model


def plain() -> onnx.ModelProto:
    return graph_of([conv("x", "e"), node("Relu", "e", "y")], ["y"])


@pytest.mark.parametrize(
    ("request_", "precision", "said"),
    [
        (Request(keep=("a",)), None, "--keep goes with --precision int8"),
        (Request(keep=("a",)), "auto", "--keep goes with --calibrate FOLDER"),
        (Request(Path(), save_onnx=Path("q")), "auto", "--save-onnx goes with --precision int8"),
        (Request(keep=("a",)), "int8", "--keep goes with --calibrate FOLDER"),
        (Request(Path("nowhere")), "int8", "nowhere: no such folder"),
        (Request(Path(), calibrate_frames=0), "int8", "at least 1 is needed"),
        (Request(Path(), max_miou_loss=-1), "int8", "write points of mIoU"),
    ],
)
def test_options_that_do_not_fit(request_: Request, precision: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        request_.check(precision)


def test_a_name_or_a_float_file_needs_frames() -> None:
    for model, file in (("tiny-mrms-a", None), ("mine.onnx", plain())):
        with pytest.raises(UserError, match="needs --calibrate FOLDER"):
            Request().check_model("int8", model, file)


def test_a_folder_without_pictures_is_refused_before_any_work(tmp_path: Path) -> None:
    for precision in ("int8", "auto"):
        with pytest.raises(UserError, match=r"no PNG, JPEG, .* in this folder"):
            Request(tmp_path).check(precision)


def test_auto_takes_frames_or_none(tmp_path: Path) -> None:
    """But for a file whose own scales count."""
    folder = folder_of(tmp_path / "frames", 1)
    for model, file in (("tiny-hmseg", None), ("mine.onnx", plain()), ("q.onnx", of_integers())):
        Request().check("auto")
        Request().check_model("auto", model, file)
        Request(folder).check("auto")
    with pytest.raises(UserError, match="its own scales count: leave --calibrate out"):
        Request(Path()).check_model("auto", "q.onnx", of_integers())


def test_a_name_with_released_weights_has_some() -> None:
    Request().check_model("int8", "tiny-hmseg", None)


def test_a_checkpoint_may_bring_scales(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"")
    Request().check_model("int8", str(path), None)


def test_operators_of_integers_bring_scales() -> None:
    file = of_integers()
    assert is_quantised(file)
    Request().check_model("int8", "mine.onnx", file)
    with pytest.raises(UserError, match="is quantised already"):
        Request(keep=("a",)).check_model("int8", "mine.onnx", file)
