"""MACs and parameters by the paper's rule (docs/networks.md): multiply-accumulates of the
convolutions only (transposed ones and linear layers count too, where a network has them);
parameters with the affine pair of batch norm, without the auxiliary outputs.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

AUXILIARY_PREFIX = "aux_"
_COUNTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
# Neither counted nor of influence on a size, but most of the time that a run without numbers takes.
_LEFT_OUT = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardswish)


def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of one (1, 3, height, width) image in eval mode.

    Runs on the meta device: no memory, any size.
    """
    return sum(macs_by_layer(model, height, width).values())


def macs_by_layer(model: nn.Module, height: int, width: int) -> dict[str, int]:
    """The same of each layer, by its name in the model; layers that the image does not pass are
    not there."""
    found: dict[str, int] = {}

    def counting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert isinstance(module, _COUNTED)
            # Each value of a transposed convolution's input is multiplied with a filter.
            values = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
            found[name] = found.get(name, 0) + values.numel() * module.weight[0].numel()

        return add

    shadow = copy.deepcopy(model).to("meta").eval()
    for name, module in shadow.named_modules():
        if isinstance(module, _COUNTED):
            module.register_forward_hook(counting(name))
        elif isinstance(module, _LEFT_OUT):
            module.forward = _same  # type: ignore[assignment,method-assign]
    with torch.no_grad():
        shadow(torch.empty(1, 3, height, width, device="meta"))
    return found


def _same(x: Tensor) -> Tensor:
    return x


def count_parameters(model: nn.Module) -> int:
    """Trainable values of the deployed network."""
    return sum(
        p.numel() for name, p in model.named_parameters() if not name.startswith(AUXILIARY_PREFIX)
    )
