"""The door: whatever a path names, it is opened or refused in one line, and nothing is believed."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from deploy.reading import file as door
from deploy.reading import guard, read_model
from deploy.reading.file import UserFile, open_file
from deploy.resolution import Resolution
from lut.errors import UserError
from tests.deploy.reading.files import RNG, Network, normal_form, run


def _network(**given) -> onnx.ModelProto:
    network = Network(**given)
    y = network("Conv", "x", network.weights(32, 3, 3, 3), pads=[1, 1, 1, 1])
    return network.model(network("Conv", network("Relu", y), network.weights(5, 32, 1, 1)))


def _save(path: Path, model: onnx.ModelProto | None = None) -> Path:
    path.write_bytes((model or _network()).SerializeToString())
    return path


def _open(path: Path, resolution: Resolution | None = None) -> UserFile:
    guard.read_here(path, resolution)
    return open_file(path, resolution)


def test_what_is_no_file_of_onnx_is_refused(tmp_path: Path):
    for content, words in (
        (b"", "empty"),
        (b"PK\x03\x04 a checkpoint", r"torch\.onnx\.export"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (bytes(1000), "no ONNX file"),
        (b"\x08\x08", "no graph"),
        (b"hello, this is text\n", "no ONNX file"),
    ):
        path = tmp_path / "n.onnx"
        path.write_bytes(content)
        with pytest.raises(UserError, match=words):
            _open(path)
    for path, words in ((tmp_path / "none.onnx", "no such file"), (tmp_path, "no file")):
        with pytest.raises(UserError, match=words):
            _open(path)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(UserError, match="no file"):
        _open(tmp_path / "pipe.onnx")


def test_a_file_cut_or_changed_anywhere_is_refused_or_read(tmp_path: Path):
    content = _save(tmp_path / "n.onnx").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(content[: rng.integers(1, len(content))])
        if rng.integers(2):
            broken = bytearray(content)
            for place in rng.integers(0, len(content), 3):
                broken[place] = rng.integers(256)
        path = tmp_path / "broken.onnx"
        path.write_bytes(broken)
        message = ""
        try:
            _open(path)
        except UserError as error:
            message = str(error)
        assert message.isprintable()


def test_a_newer_onnx_and_opsets_not_read_here_are_refused(tmp_path: Path):
    for change, words in (
        ({"ir_version": 99}, "IR version 99"),
        ({"opset": 6}, "opset 6"),
        ({"opset": 99}, "opset 99"),
    ):
        with pytest.raises(UserError, match=words):
            _open(_save(tmp_path / "n.onnx", _network(**change)))


def _save_outside(folder: Path) -> tuple[Path, onnx.ModelProto]:
    model = _network()
    path = folder / "model.onnx"
    onnx.save(
        onnx.ModelProto.FromString(model.SerializeToString()), path,
        save_as_external_data=True, location="model.onnx_data", size_threshold=0,
    )  # fmt: skip
    return path, model


def test_weights_beside_the_file_are_read(tmp_path: Path):
    path, model = _save_outside(tmp_path)
    assert _open(path).model.graph.initializer[0].raw_data == model.graph.initializer[0].raw_data


def test_links_are_followed_and_weights_found_on_either_side(tmp_path: Path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    path, _ = _save_outside(tmp_path / "blobs")
    link = tmp_path / "snapshot" / "linked.onnx"
    link.symlink_to(path)
    _open(link)  # its weights lie where the link leads
    (tmp_path / "snapshot" / "model.onnx_data").symlink_to(tmp_path / "blobs" / "model.onnx_data")
    path.rename(tmp_path / "blobs" / "ab12")
    link.unlink()
    link.symlink_to(tmp_path / "blobs" / "ab12")
    _open(link)  # as in Hugging Face's cache


def test_weights_elsewhere_missing_or_short_are_refused(tmp_path: Path):
    path, _ = _save_outside(tmp_path)
    model = onnx.load(path, load_external_data=False)
    for location in ("../secret", "/etc/passwd", "a/../../b", "", "..\\b"):
        for tensor in model.graph.initializer:
            tensor.external_data[0].value = location
        with pytest.raises(UserError, match="outside its folder"):
            _open(_save(tmp_path / "other.onnx", model))
    data = tmp_path / "model.onnx_data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(UserError, match="truncated"):
        _open(path)
    data.unlink()
    with pytest.raises(UserError, match=r"'model\.onnx_data', is missing"):
        _open(path)


def test_a_file_above_2_gb_is_run_with_its_weights_handed_over(tmp_path: Path, monkeypatch):
    file = open_file(_save(tmp_path / "n.onnx"), None)
    image = RNG.standard_normal((1, 3, 8, 12)).astype(np.float32)
    wanted = run(file.session(), image)
    monkeypatch.setattr(door, "_LARGEST_PROTOBUF", 1000)
    np.testing.assert_array_equal(run(file.session(), image)[0], wanted[0])


def _shape(model: onnx.ModelProto) -> list[int]:
    return [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]


def test_dynamic_axes_take_the_resolution():
    size = Resolution(64, 96)
    assert _shape(normal_form(_network(shape=("n", 3, "h", "w")), size)) == [1, 3, 64, 96]
    assert _shape(normal_form(_network(shape=("n", 3, 64, None)), size)) == [1, 3, 64, 96]
    network = Network(17, ("n", "h", "w", 3))
    y = network("Conv", network("Transpose", "x", perm=[0, 3, 1, 2]), network.weights(2, 3, 1, 1))
    assert _shape(normal_form(network.model(y), size)) == [1, 64, 96, 3]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (("n", 3, "h", "w"), "give --resolution"),
        ((4, 3, 8, 12), "batch of 1"),
        ((1, "c", "h", "w"), "1, 3 or 4 channels"),
        (("n", 8), "export the network with a fixed shape"),
    ],
)
def test_axes_that_cannot_be_fixed_are_refused(shape: tuple, words: str):
    with pytest.raises(UserError, match=words):
        normal_form(_network(shape=shape))


def test_a_resolution_that_contradicts_the_file_is_refused():
    with pytest.raises(UserError, match="height is fixed, 64x96 is asked for"):
        normal_form(_network(), Resolution(64, 96))


def test_a_files_text_cannot_reach_the_terminal():
    network = Network(17)
    y = network("Conv", "x", network.weights(4, 2, 3, 3))
    model = network.model(y)
    model.graph.node[0].name = "evil\x1b]0;\x07\n" + "A" * 1_000_000
    with pytest.raises(UserError) as caught:
        normal_form(model)
    assert str(caught.value).isprintable()
    assert "evil\\x1b]0;\\x07\\n" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_read_model_gives_the_file_and_its_normal_form(tmp_path: Path):
    path = _save(tmp_path / "n.onnx", _network(shape=("n", 3, "h", "w"), element=TensorProto.FLOAT))
    read = read_model(path, Resolution(64, 96))
    assert _shape(read.graph) == _shape(read.file.model) == [1, 3, 64, 96]
    with pytest.raises(UserError, match=rf"^{path}: the input 'x'.*--resolution"):
        read_model(path, None)


def test_reading_takes_so_much_memory_and_no_more(tmp_path: Path):
    # Thirty million empty nodes: a protobuf of 60 MB that takes gigabytes when it is parsed.
    nodes = b"\x0a\x00" * 30_000_000
    size = len(nodes)
    length = bytes(
        (size >> shift) & 127 | (128 if size >> shift + 7 else 0) for shift in (0, 7, 14, 21)
    )
    path = tmp_path / "bomb.onnx"
    path.write_bytes(b"\x08\x08\x3a" + length + nodes)
    with pytest.raises(UserError, match="bomb"):
        read_model(path, None)


def test_a_crash_of_a_library_is_one_line():
    assert "SIGSEGV" in guard._why_it_ended(-11, "")
    assert "more time" in guard._why_it_ended(-24, "")
    assert "more memory" in guard._why_it_ended(-6, "what():  std::bad_alloc")
    assert guard._why_it_ended(1, "\x1b[31m").isprintable()


@pytest.mark.parametrize("part", ["op_type", "name", "domain", "input", "output"])
def test_names_that_take_memory_are_refused(tmp_path: Path, part: str):
    model = _network()
    node = model.graph.node[1]
    if part in ("input", "output"):
        getattr(node, part)[0] = "\x1b" * 20_000
    else:
        setattr(node, part, "\x1b" * 20_000)
    with pytest.raises(UserError, match=r"^it has a name of 20000 letters; it is damaged"):
        door.parse(_save(tmp_path / "n.onnx", model))
