"""How much memory a training step needs, estimated before it is taken, and what becomes of it
afterwards."""

import copy
import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from hmseg.families import SIDES
from lut.errors import UserError

# Activations kept for the backward pass are counted exactly; gradients in flight and the kernels'
# scratch come on top. Measured on tiny-mrms and mrms, 180x240 to 360x480, float32; the tests hold
# tiny-mrms at 180x240.
OVERHEAD = 1.4
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def activation_bytes(model: nn.Module, crop: tuple[int, int], element_size: int) -> int:
    """Bytes of one image's activations that the backward pass keeps.

    Runs on the meta device: nothing is computed and nothing allocated. Raises UserError where the
    network does not take such a crop.
    """
    batch = 2
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[id(tensor)] = tensor
        return tensor

    shadow = copy.deepcopy(model).to("meta", torch.float32).train()
    own = {id(tensor) for tensor in (*shadow.parameters(), *shadow.buffers())}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        try:
            outputs = shadow(torch.empty(batch, 3, *crop, device="meta"))
        except RuntimeError as error:  # torch's for shapes that do not fit
            raise UserError(
                f"the network does not take crops of {crop[0]}x{crop[1]}: choose sides that "
                f"{SIDES} divides"
            ) from error
    del outputs
    elements = sum(tensor.numel() for key, tensor in kept.items() if key not in own)
    return elements * element_size // batch


def check_memory(
    model: nn.Module, crop: tuple[int, int], batch: int, element_size: int, available: int
) -> None:
    """Raise UserError, naming a batch that would fit, unless a step fits in `available` bytes."""
    each = activation_bytes(model, crop, element_size) * OVERHEAD
    fits = int(available / each)
    if batch > fits:
        need = batch * each / 2**30
        advice = f"{fits} would fit" if fits >= 2 else "use a smaller crop"
        raise UserError(
            f"a batch of {batch} crops of {crop[0]}x{crop[1]} needs about {need:.1f} GiB, "
            f"{available / 2**30:.1f} GiB are free: {advice}"
        )


def keep_freed_memory() -> None:
    """From here on, and for good, the process keeps the memory that it frees, so that the next
    step's maps lie where this one's lay. Each would else be given back to the system and come again
    page by page, zeroed. Does nothing where the C library has no `mallopt` (musl) or refuses."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never


@contextmanager
def explain_exhaustion(crop: Sequence[int], batch: int) -> Iterator[None]:
    """Turn torch's errors of exhausted memory within a block into a UserError."""
    try:
        yield
    except RuntimeError as error:
        # On a CPU torch has no type of its own for it.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate" not in str(error):
            raise
        raise UserError(
            f"out of memory at a batch of {batch} crops of {crop[0]}x{crop[1]}; the last "
            "checkpoint is kept: train with a smaller batch or crop, or free the memory"
        ) from error


def available_bytes(device: torch.device, processes: int = 1) -> int:
    """Free memory for a batch that `processes` share: this machine's, which they share too, or as
    many GPUs like this one."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free * processes
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return min(int(line.split()[1]) * 1024, _left_in_container())
    raise UserError("/proc/meminfo names no MemAvailable; this needs Linux 3.14 or later")


def _left_in_container(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container's limit (cgroup 2) leaves; no limit is as much as there can be."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except OSError:
        return sys.maxsize
    return sys.maxsize if limit == "max" else max(0, int(limit) - used)
