"""The precision of a training: torch's autocast to bfloat16, and what it may not cast.

The gradient of the weights of a dilated convolution is wrong on CPUs with AVX-512: torch 2.13 takes
it from oneDNN 3.12 (`jit_bf16:avx512_core`). Seen where the maps are channels last, the rows longer
than 28 pixels, the stride 1, and a group's channels no multiple of 16 (depthwise: one): numbers as
large as the gradient, mostly others each time, now and then inf or NaN, and a heap that glibc finds
corrupted, so memory is read and written that is not the kernel's:

    x, g = (torch.randn(2, 32, 22, 30).bfloat16().to(memory_format=torch.channels_last)
            for _ in range(2))
    w = torch.randn(32, 1, 3, 3, dtype=torch.bfloat16)
    for dtype in (torch.bfloat16, torch.float32):
        weight = w.to(dtype).requires_grad_()
        y = F.conv2d(x.to(dtype), weight, None, 1, 2, 2, 32)
        print(torch.autograd.grad(y, weight, g.to(dtype))[0].flatten()[:4])

With dilation 1, and with planar maps, no such gradient was found. A CPU takes every dilated
convolution in float32: one rule, which does not lean on the sizes that were seen to fail.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hmseg.train.config import Precision


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Within the block operations on `device` are cast to bfloat16 where `precision` is that, and
    are computed as they come where it is another."""
    bfloat16 = precision == "bfloat16"
    with ExitStack() as entered:
        entered.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=bfloat16))
        if bfloat16 and device.type == "cpu":
            entered.enter_context(_DilatedInFloat32())
        yield


class _DilatedInFloat32(TorchFunctionMode):
    """Takes dilated convolutions in float32 where autocast is on. Their results are bfloat16 as
    autocast's are, so that what follows computes and keeps the same."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - torch's own protocol
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is torch.conv2d and torch.is_autocast_enabled("cpu"):
            return _conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.conv2d` under autocast, computed in float32 where it is dilated."""
    rest = (bias, stride, padding, dilation, groups)
    if max(dilation if isinstance(dilation, tuple | list) else (dilation,)) == 1:
        return torch.conv2d(input, weight, *rest)  # type: ignore[arg-type]
    with torch.autocast("cpu", enabled=False):
        output = torch.conv2d(input.float(), weight.float(), *rest)  # type: ignore[arg-type]
    return output.to(torch.bfloat16)
