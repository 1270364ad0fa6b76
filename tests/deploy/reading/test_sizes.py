"""A right file at a size that does not suit it: which size does is said."""

import pytest

import deploy.reading
from deploy.reading import guard, read_model
from deploy.reading.sizes import fitting
from deploy.resolution import Resolution
from lut.errors import UserError
from tests.deploy.reading.files import Network


def halved_twice(path, height="h", width="w"):
    """Two poolings and two upsamplings, beside the image: sides must be multiples of 4."""
    network = Network(shape=(1, 3, height, width))
    y = "x"
    for _ in range(2):
        y = network("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    scales = network.const([1.0, 1.0, 4.0, 4.0])
    y = network("Concat", "x", network("Resize", y, "", scales, mode="nearest"), axis=1)
    y = network("Conv", y, network.weights(5, 6, 1, 1))
    path.write_bytes(network.model(y).SerializeToString())
    return path


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(deploy.reading, "read_apart", guard.read_here)


def refusal(path, *size):
    with pytest.raises(UserError) as caught:
        read_model(path, Resolution(*size))
    return str(caught.value)


def test_both_neighbours_are_named(here, tmp_path):
    path = halved_twice(tmp_path / "n.onnx")
    assert refusal(path, 65, 98) == (
        f"{path}: 65x98 does not suit this network (Concat node 'Concat_3' fails): give "
        "--resolution 64x96 or 68x100, sides that are multiples of 4"
    )
    for size in ((64, 96), (68, 100)):
        read_model(path, Resolution(*size))


def test_a_fixed_side_stays(here, tmp_path):
    path = halved_twice(tmp_path / "n.onnx", width=100)
    assert "give --resolution 64x100 or 68x100, sides" in refusal(path, 66, 100)


def test_what_is_wrong_at_any_size_or_fixed_is_said_as_it_is(here, tmp_path):
    path = halved_twice(tmp_path / "n.onnx", width=98)
    assert "wrong by ONNX's rules" in refusal(path, 66, 98)
    path = halved_twice(tmp_path / "n.onnx", 66, 98)
    with pytest.raises(UserError, match="wrong by ONNX's rules"):
        read_model(path)


def test_what_takes_too_much_is_tried_once(monkeypatch, tmp_path):
    asked = []

    def too_much(_path, size):
        asked.append(size)
        raise guard.EndedError("too much")

    monkeypatch.setattr(deploy.reading, "read_apart", too_much)
    assert refusal(tmp_path / "n.onnx", 66, 66).endswith("n.onnx: too much")
    assert asked == [(66, 66)]


@pytest.mark.parametrize("needed", [2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("asked", [(193, 385), (255, 511), (64, 97)])
def test_the_smallest_multiple_is_found(asked, needed):
    asked, tried = Resolution(*asked), []

    def passes(size):
        tried.append(size)
        return all(side % needed == 0 for side in size)

    multiple, sizes = fitting(asked, (True, True), passes)
    assert multiple == needed
    assert 1 <= len(sizes) <= 2
    for size in sizes:
        assert passes(size)
        assert all(abs(a - b) < needed for a, b in zip(size, asked, strict=True))
    assert len(tried) < 12


def test_none_is_found():
    tried = []
    assert fitting(Resolution(193, 385), (True, True), tried.append) == (0, [])
    assert len(tried) == 1
    assert fitting(Resolution(64, 128), (True, True), tried.append) == (0, [])
    assert len(tried) == 1


def test_names_that_are_no_text(tmp_path):
    path = halved_twice(tmp_path / "n.onnx", height="rows")
    path.write_bytes(path.read_bytes().replace(b"rows", b"\xffows"))
    assert "\n" not in refusal(path, 65, 98)
