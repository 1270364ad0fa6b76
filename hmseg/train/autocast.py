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

With dilation 1, and with planar maps, no such gradient was found. So on a CPU a dilated convolution
is taken as what it is on each of the grids of every `dilation`-th pixel: an ordinary one (the "a
trous" identity; Holschneider et al. 1989). Where it is another kind (planar maps, unequal
dilations, a stride, a map that shrinks) it is taken in float32.

The gradients of a depthwise convolution with a stride are right but slow: oneDNN has no fast kernel
for that of the input, and takes its reference. It is the convolution of
stride 1 of a map that has the gradient at every `stride`-th pixel and zeros between them. That of
the weights has a fast kernel for 3x3 alone, and larger ones are taken in float32. Planar maps are
left to torch.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
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
            entered.enter_context(_ConvolutionsOfCPUs())
        yield


class _ConvolutionsOfCPUs(TorchFunctionMode):
    """Takes the convolutions whose gradients are wrong or slow in bfloat16 another way, where
    autocast is on. Their results are bfloat16 as autocast's are, so that what follows computes and
    keeps the same."""

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


Sides = int | tuple[int, ...]


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sides = 1,
    padding: str | Sides = 0,
    dilation: Sides = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.conv2d` under autocast, with right gradients and without slow ones."""
    rest = (bias, stride, padding, dilation, groups)
    strided, dilated = _largest(stride) > 1, _largest(dilation) > 1
    depthwise = groups == weight.shape[0] == input.shape[1] > 1
    ours = input.is_contiguous(memory_format=torch.channels_last)
    pads = None if isinstance(padding, str) else _both(padding)
    plain = bias is None and pads is not None and _pads_less(weight, pads)
    if strided and not dilated and depthwise and ours and plain:
        with torch.autocast("cpu", enabled=False):
            pair = (input.bfloat16(), weight.bfloat16())
            output: Tensor = _StridedDepthwise.apply(  # type: ignore[no-untyped-call]
                *pair, _both(stride), pads
            )
            return output
    if not dilated:
        return torch.conv2d(input, weight, *rest)  # type: ignore[arg-type]
    if not strided and ours and _keeps_size(weight, padding, dilation):
        return _dilated(input, weight, bias, _largest(dilation), groups)
    with torch.autocast("cpu", enabled=False):
        output = torch.conv2d(input.float(), weight.float(), *rest)  # type: ignore[arg-type]
    return output.to(torch.bfloat16)


class _StridedDepthwise(torch.autograd.Function):
    """A depthwise convolution (N, C, H, W) with a stride, without a bias, in bfloat16."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own protocol
        input: Tensor,
        weight: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(input, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401 - torch's own protocol
        *grad_outputs: Tensor,
    ) -> tuple[Tensor | None, ...]:
        (grad_output,), (input, weight) = grad_outputs, ctx.saved_tensors
        stride, padding, groups = ctx.stride, ctx.padding, len(weight)
        kernel = weight.shape[-2:]
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            size = [
                side + 2 * pad - reach + 1
                for side, pad, reach in zip(input.shape[-2:], padding, kernel, strict=True)
            ]
            images, channels = grad_output.shape[:2]
            stuffed = grad_output.new_zeros((images, *size, channels)).permute(0, 3, 1, 2)
            stuffed[:, :, :: stride[0], :: stride[1]] = grad_output
            rest = tuple(reach - 1 - pad for reach, pad in zip(kernel, padding, strict=True))
            of_input = torch.conv2d(stuffed, weight.flip(2, 3), None, 1, rest, 1, groups)
        if ctx.needs_input_grad[1]:
            precision = torch.bfloat16 if max(kernel) <= 3 else torch.float32
            given = (tensor.to(precision) for tensor in (grad_output, input, weight))
            _, of_weight, _ = torch.ops.aten.convolution_backward(
                *given, None, stride, padding, (1, 1), False, (0, 0), groups, (False, True, False)
            )
            of_weight = of_weight.to(weight.dtype)
        return of_input, of_weight, None, None


def _largest(sides: Sides) -> int:
    return max(sides if isinstance(sides, tuple | list) else (sides,))


def _both(sides: Sides) -> tuple[int, ...]:
    return tuple(sides) if isinstance(sides, tuple | list) else (sides, sides)


def _pads_less(weight: Tensor, pads: tuple[int, ...]) -> bool:
    """Whether a convolution pads by less than its kernel."""
    return all(pad < reach for pad, reach in zip(pads, weight.shape[-2:], strict=True))


def _keeps_size(weight: Tensor, padding: str | Sides, dilation: Sides) -> bool:
    """Whether a convolution of one dilation and odd kernel pads its maps to keep their size."""
    rows, columns = _both(dilation)
    wanted = tuple(_largest(dilation) * (side // 2) for side in weight.shape[-2:])
    odd = all(side % 2 for side in weight.shape[-2:])
    same = padding == "same" or (not isinstance(padding, str) and _both(padding) == wanted)
    return rows == columns and odd and same


def _dilated(
    input: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, groups: int
) -> Tensor:
    """A dilated convolution that keeps its map's size, as one of dilation 1 on each of the grids of
    pixels that are `dilation` apart; they are put side by side as images."""
    images, _, height, width = input.shape
    # Channels last, whole pixels are moved.
    pixels = F.pad(input, (0, -width % dilation, 0, -height % dilation)).permute(0, 2, 3, 1)
    rows, columns = pixels.shape[1] // dilation, pixels.shape[2] // dilation
    grids = pixels.reshape(images, rows, dilation, columns, dilation, -1).permute(2, 4, 0, 1, 3, 5)
    apart = grids.reshape(dilation * dilation * images, rows, columns, -1).permute(0, 3, 1, 2)
    padding = tuple(side // 2 for side in weight.shape[-2:])
    output = torch.conv2d(apart, weight, bias, 1, padding, 1, groups)
    grids = output.permute(0, 2, 3, 1).reshape(dilation, dilation, images, rows, columns, -1)
    padded = (rows * dilation, columns * dilation)
    pixels = grids.permute(2, 3, 0, 4, 1, 5).reshape(images, *padded, -1)
    return pixels.permute(0, 3, 1, 2)[:, :, :height, :width]
