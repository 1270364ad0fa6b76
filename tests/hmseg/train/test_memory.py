"""The estimate of a step's memory, against what a process really takes."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hmseg.train.memory import (
    OVERHEAD,
    _left_in_container,
    activation_bytes,
    available_bytes,
    check_memory,
)
from hmseg.zoo import create_model
from lut.errors import UserError

CODE = r"""
import re, torch
from pathlib import Path
from hmseg.train.losses import BoostedLoss
from hmseg.train.memory import keep_freed_memory
from hmseg.zoo import create_model
torch.set_num_threads(1)
keep_freed_memory()
model = create_model("tiny-mrms", num_classes=11).to(memory_format=torch.channels_last).train()
def peak(batch):
    images = torch.randn(batch, 3, 180, 240).contiguous(memory_format=torch.channels_last)
    BoostedLoss()(model(images), torch.zeros(batch, 180, 240)).backward()
    # Not getrusage: its maximum is inherited from the process that started this one.
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
peak(2)
small = peak(2)
print((peak(10) - small) // 8)
"""


def test_the_estimate_is_near_what_a_step_takes():
    taken = int(subprocess.check_output([sys.executable, "-c", CODE]))
    model = create_model("tiny-mrms", num_classes=11)
    estimate = OVERHEAD * activation_bytes(model, (180, 240), 4)
    assert 0.9 * taken < estimate < 1.6 * taken


def test_activations_of_a_known_network():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    # Each convolution keeps its input.
    assert activation_bytes(model, (10, 20), 4) == (3 + 8) * 200 * 4
    assert next(model.parameters()).device.type == "cpu"


def test_a_batch_that_cannot_fit_names_one_that_does():
    model = create_model("tiny-mrms", num_classes=11)
    with pytest.raises(UserError, match=r"a batch of 64 .*1024x2048 needs about ") as refused:
        check_memory(model, (1024, 2048), 64, 4, available=20 << 30)
    fits = int(re.search(r": (\d+) would fit$", str(refused.value))[1])
    check_memory(model, (1024, 2048), fits, 4, available=20 << 30)
    with pytest.raises(UserError):
        check_memory(model, (1024, 2048), fits + 1, 4, available=20 << 30)
    with pytest.raises(UserError, match="use a smaller crop"):
        check_memory(model, (4096, 8192), 64, 4, available=2 << 30)
    check_memory(model, (360, 480), 8, 4, available=4 << 30)


def test_a_crop_that_the_network_does_not_take():
    model = create_model("dfanet-b", num_classes=11)
    with pytest.raises(UserError, match="not take crops of 360x480: choose sides that 64 divides"):
        check_memory(model, (360, 480), 8, 4, available=4 << 30)


def test_the_machine_says_what_is_free():
    assert available_bytes(torch.device("cpu")) > 1 << 20


def test_a_container_has_no_more_than_its_limit(tmp_path):
    (tmp_path / "memory.current").write_text("300\n")
    for limit, left in (("1000\n", 700), ("200\n", 0), ("max\n", sys.maxsize)):
        (tmp_path / "memory.max").write_text(limit)
        assert _left_in_container(tmp_path) == left
    assert _left_in_container(tmp_path / "none") == sys.maxsize


KEEPING = r"""
import resource, sys, torch
from hmseg.train.memory import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    for _ in range(4):
        torch.ones(1 << 24)  # 64 MiB
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_kept_for_the_next_step():
    def faults(how: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", KEEPING, how]))

    pages = 4 * (1 << 26) // resource.getpagesize()
    assert faults("keep") < pages // 100
    if "[always]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        assert faults("leave") > pages // 2  # what it is for
