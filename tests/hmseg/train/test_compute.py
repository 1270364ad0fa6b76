"""On what is computed: devices by name, threads, and a process alone."""

import pytest
import torch

from hmseg.train.compute import Compute, joined, open_device
from hmseg.train.distributed import ALONE, CPU
from lut.errors import UserError


def test_a_process_alone_with_its_threads():
    before = torch.get_num_threads()
    try:
        with joined(Compute(threads=1)) as (world, device):
            assert (world, device, torch.get_num_threads()) == (ALONE, CPU, 1)
        with joined(Compute()):
            assert torch.get_num_threads() == 1  # left as it is
    finally:
        torch.set_num_threads(before)


def test_the_world_is_left_when_the_work_fails(monkeypatch: pytest.MonkeyPatch):
    left: list[bool] = []
    monkeypatch.setattr("hmseg.train.compute.leave_world", lambda: left.append(True))
    with pytest.raises(InterruptedError), joined(Compute()):
        raise InterruptedError
    assert left == [True]


def test_other_devices_are_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="device tpu: choose cpu or cuda"):
        open_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no CUDA device here; use cpu"):
        open_device("cuda")


def test_a_process_keeps_what_it_frees_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch):
    called: list[str] = []
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(
            "hmseg.train.compute.keep_freed_memory", lambda device=device: called.append(device)
        )
        Compute(device).own_process()
    assert called == ["cpu"]
