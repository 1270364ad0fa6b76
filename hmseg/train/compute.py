"""On what a run or a search computes, in how many processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hmseg.train.distributed import CPU, World, join_world, leave_world
from hmseg.train.memory import keep_freed_memory
from lut.errors import UserError


@dataclass(frozen=True)
class Compute:
    """The device of each process, its threads on the CPU (None: torch's default), and the threads
    that make its samples."""

    device: str = "cpu"
    threads: int | None = None
    loader_threads: int = 2

    def own_process(self) -> None:
        """Fit the whole process to a training, for good: what a program calls that does nothing
        else. On a CPU it keeps the memory that it frees (`keep_freed_memory`)."""
        if self.device == "cpu":
            keep_freed_memory()


@contextmanager
def joined(compute: Compute) -> Iterator[tuple[World, torch.device]]:
    """This process in the world that torchrun describes, and its device; left at the end.

    Raises UserError for a device that is not there.
    """
    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    device = open_device(compute.device)
    world = join_world(device)
    try:
        yield world, device
    finally:
        leave_world()


def open_device(name: str) -> torch.device:
    """cpu, or this process's CUDA device; raises UserError for anything else."""
    if name == "cpu":
        return CPU
    if name != "cuda":
        raise UserError(f"device {name}: choose cpu or cuda")
    if not torch.cuda.is_available():
        raise UserError("device cuda: torch sees no CUDA device here; use cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
