"""MACs and parameters by the paper's rule (docs/networks.md): multiply-accumulates of the
convolutions only; parameters with the affine pair of batch norm, without the auxiliary outputs.
"""

import copy

import torch
from torch import Tensor, nn

AUXILIARY_PREFIX = "aux_"


def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of one (1, 3, height, width) image in eval mode.

    Runs on the meta device: no memory, any size.
    """
    total = 0

    def add(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output.numel() * module.weight[0].numel()

    shadow = copy.deepcopy(model).to("meta").eval()
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        shadow(torch.empty(1, 3, height, width, device="meta"))
    return total


def count_parameters(model: nn.Module) -> int:
    """Trainable values of the deployed network."""
    return sum(
        p.numel() for name, p in model.named_parameters() if not name.startswith(AUXILIARY_PREFIX)
    )
