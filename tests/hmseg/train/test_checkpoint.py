"""Checkpoints: exact round trip, and every kind of file that is no checkpoint."""

import itertools
import json
import resource
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hmseg.train.checkpoint import Checkpoint, load_into
from hmseg.train.config import Stage, TrainConfig
from hmseg.zoo import create_model
from lut.errors import UserError

CONFIG = TrainConfig(
    "tiny-mrms", "camvid", (Stage((64, 96), 4, 10), Stage((96, 96), 2, 5)), seed=3, ema_decay=0.9
)


def make(classes: int = 11) -> Checkpoint:
    model = create_model("tiny-mrms", num_classes=classes)
    model.to(memory_format=torch.channels_last)
    average = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    optimizer = {f"{name}/momentum_buffer": p.detach() * 2 for name, p in model.named_parameters()}
    names = tuple(f"class {index}" for index in range(classes))
    schedules = ((0, "64x96:4:20"), (7, CONFIG.schedule))
    return Checkpoint(CONFIG, 7, names, model.state_dict(), average, optimizer, schedules)


def test_what_is_saved_is_loaded(tmp_path: Path):
    saved, path = make(), tmp_path / "run" / "last.safetensors"
    saved.save(path)
    loaded = Checkpoint.load(path)
    assert (loaded.config, loaded.step, loaded.classes) == (CONFIG, 7, saved.classes)
    assert loaded.schedules == saved.schedules
    for group in ("weights", "average", "optimizer"):
        mine, theirs = getattr(saved, group), getattr(loaded, group)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert loaded.released is loaded.average


@pytest.mark.parametrize("size", [0, 5, 1000, -10])
def test_a_file_cut_short_is_named(tmp_path: Path, size: int):
    path = tmp_path / "last.safetensors"
    make().save(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=f"{path}: not a whole checkpoint"):
        Checkpoint.load(path)


def test_other_files_are_named(tmp_path: Path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(UserError, match="no such checkpoint"):
        Checkpoint.load(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="not a checkpoint of a training run"):
        Checkpoint.load(path)
    torch.save({"x": torch.zeros(2)}, path)  # a pickle is never opened
    with pytest.raises(UserError, match="not a whole checkpoint"):
        Checkpoint.load(path)


def test_another_architecture_is_named():
    checkpoint, path = make(), Path("last.safetensors")
    with pytest.raises(UserError, match=r"last\.safetensors: another network: .* is \(.*\), not"):
        load_into(create_model("mrms", num_classes=11), checkpoint.weights, path)
    with pytest.raises(UserError, match="another network: it has no"):
        load_into(create_model("tiny-mrms", num_classes=11), {}, path)
    with pytest.raises(UserError, match=r"another network: aux_low\.bias is"):
        load_into(create_model("tiny-mrms", num_classes=19), checkpoint.weights, path)
    larger = checkpoint.weights | {"head.new": torch.zeros(1)}
    with pytest.raises(UserError, match=r"another network: its head\.new is not in this one"):
        load_into(create_model("tiny-mrms", num_classes=11), larger, path)


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("step", "-1", "step -1 of 15"), ("step", str(1 << 60), "of 15"), ("step", "x", "invalid"),
        ("classes", "[1]", "not a list of texts"), ("classes", "[" * 100_000, "nested too deeply"),
        ("schedules", "5", "not iterable"), ("before", "null", "not iterable"),
        ("config", "[]", "configuration"), ("config", "{}", "configuration"),
        ("config", CONFIG.to_json().replace('"seed": 3', '"seed": "3"'), "'seed' is '3', not int"),
        ("config", CONFIG.to_json().replace("float32", "int4"), "unknown precision 'int4'"),
        ("frames", '{"train": 1}', "not texts by frame"),
    ],
)  # fmt: skip
def test_a_made_up_header_is_one_line(tmp_path: Path, field: str, value: str, message: str):
    path = tmp_path / "last.safetensors"
    make(2).save(path)
    header, tensors = header_of(path.read_bytes())
    header["__metadata__"][field] = value
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)
    with pytest.raises(UserError, match=f"{path}: not a whole checkpoint .*{message}"):
        Checkpoint.load(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "not finite"), (float("inf"), "not finite"), (None, "torch.int64, not")],
)
def test_weights_that_are_no_numbers_are_called_so(value: float | None, message: str):
    weights = dict(make().weights)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name] = weights[name].long() if value is None else weights[name] * value
    with pytest.raises(UserError, match=f"a.safetensors: {name} .*{message}"):
        load_into(create_model("tiny-mrms", num_classes=11), weights, Path("a.safetensors"))


def test_images_of_so_many_steps():
    """Counted batch by batch; a made-up number of steps is counted as fast."""
    for step in (0, 3, 10, 12, 15):
        batches = itertools.islice(CONFIG.batches(), step)
        assert CONFIG.images_after(step) == sum(spec.size for spec in batches)
    assert CONFIG.images_after(1 << 60) == 50


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path):
    """A limit on the size of files stands for the full disk: it needs no root."""
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"the previous one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*last\.safetensors"):
            make().save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"the previous one"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
