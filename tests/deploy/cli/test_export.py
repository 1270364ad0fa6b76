import onnx
import pytest

from tests.deploy.cli.conftest import files


def test_a_zoo_network(cli, tmp_path):
    done = cli("export", "-r", "64x96", "--output", "logits", "--classes", "11").succeeded()
    assert done.out == "tiny-hmseg-64x96.onnx\n"
    assert "not trained" in done.err
    model = onnx.load(tmp_path / "tiny-hmseg-64x96.onnx")
    onnx.checker.check_model(model, full_check=True)
    shape = [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, 11, 64, 96]


def test_a_file_of_the_user(cli, user_onnx, tmp_path):
    options = ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    done = cli("export", "-m", user_onnx, "-o", "new/out.onnx", *options).succeeded()
    assert done.out == "new/out.onnx\n"
    assert onnx.load(tmp_path / "new" / "out.onnx").graph.input[0].name == "image"


def test_a_name_in_a_file_cannot_lead_out_of_the_folder(cli, user_onnx, tmp_path):
    cli("export", "-m", user_onnx, "-o", "first.onnx").succeeded()
    model = onnx.load(tmp_path / "first.onnx")
    next(p for p in model.metadata_props if p.key == "model").value = "../../outside"
    onnx.save(model, tmp_path / "evil.onnx")
    done = cli("export", "-m", "evil.onnx").succeeded()
    assert done.out == "outside-64x64.onnx\n"
    assert files(tmp_path) == ["evil.onnx", "first.onnx", "outside-64x64.onnx"]


BAD = {
    "model": (["-m", "no-such"], "unknown model"),
    "missing file": (["-m", "none.onnx"], "no such file"),
    "long name": (["-m", "x" * 300], "unknown model"),
    "one number": (["-r", "256"], "HEIGHTxWIDTH"),
    "zero": (["-r", "0x512"], "between 64"),
    "negative": (["-r=-1x5"], "HEIGHTxWIDTH"),
    "huge": (["-r", "99999x99999"], "between 64"),
    "text": (["-r", "large"], "HEIGHTxWIDTH"),
    "output": (["--output", "scores"], "'scores' is not one of 'labels', 'logits'"),
    "classes": (["--classes", "1"], "num_classes"),
    "mean of the zoo": (["--mean", "1,1,1"], "--mean and --std go with"),
    "mean": (["--mean", "1,2"], "one number for each channel"),
    "std": (["--std", "0,1,1"], "above 0"),
    "not a number": (["--std", "nan,1,1"], "one number for each channel"),
    "folder": (["-o", "."], "it is a folder"),
    "below a file": (["-o", "/etc/hostname/x.onnx"], "cannot write"),
    "device": (["-o", "/proc/x.onnx"], "cannot write"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(cli, case, tmp_path):
    arguments, message = BAD[case]
    done = cli("export", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.error
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "it is empty"), (b"text", "no ONNX file"), (b"\x08\x08garbage\xff", "no ONNX file")],
)
def test_files_that_are_no_onnx(cli, content, message, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    done = cli("export", "-m", "m.onnx")
    assert done.code == 2
    assert message in done.error
    assert files(tmp_path) == ["m.onnx"]
