"""One training step over several processes (torchrun, gloo or nccl) gives the same numbers as
over one: summed gradients, summed loss counts and synchronised batch norm.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hmseg.train.losses import at_least_float32
from lut.errors import HmsegError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This process among `size` processes; one process alone needs no communication."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU  # where nccl or gloo takes its tensors

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, without gradient."""
        if self.size == 1:
            return tensor
        total = tensor.detach().to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(tensor.device)

    def together(self, work: Callable[[], None]) -> None:
        """Do what may be refused, such as taking a folder, and return when every process has. Where
        one refuses, its HmsegError is raised in all: none waits for what another has given up."""
        refusals: list[HmsegError | None] = [None]
        try:
            work()
        except HmsegError as error:
            refusals = [error]
        if self.size > 1:
            (own,), refusals = refusals, [None] * self.size
            dist.all_gather_object(refusals, own)
        for refusal in refusals:
            if refusal is not None:
                raise refusal

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, torch.split(flat, sizes), strict=True):
            gradient.copy_(part.view(gradient.shape))


ALONE = World()


def join_world(device: torch.device) -> World:
    """The world that torchrun describes in the environment; without it, this process alone."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return World()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), device)


def wait_for_all() -> None:
    """Return when every process of the world has come here: one that leaves while another still
    writes or evaluates tears down connections under it."""
    if dist.is_initialized():
        dist.barrier()


def leave_world() -> None:
    """End the communication that `join_world` began."""
    if dist.is_initialized():
        dist.destroy_process_group()


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, in training mode.

    torch's own SyncBatchNorm runs on GPUs only. Statistics are at least in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training:
            return super().forward(x)
        wide = at_least_float32(x)
        count = wide.new_full((1,), wide.numel() / wide.shape[1])
        sums: Tensor = _AllReduce.apply(torch.cat([wide.sum((0, 2, 3)), count]))  # type: ignore[no-untyped-call]
        total, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        # The squares are of differences from the common mean: E[x^2] - E[x]^2 would cancel.
        centred = wide - mean[:, None, None]
        squares: Tensor = _AllReduce.apply(centred.square().sum((0, 2, 3)))  # type: ignore[no-untyped-call]
        variance = squares / total
        self._track(mean.detach(), squares.detach() / (total - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Turn every BatchNorm2d into the synchronised one, in place; names and tensors stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d


class _AllReduce(torch.autograd.Function):
    """Sum over all processes; the gradient of a sum that all use is the sum of all gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401 - torch's own protocol
        del ctx
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:  # noqa: ANN401 - torch's own protocol
        del ctx
        total = slopes[0].clone()
        dist.all_reduce(total)
        return total
