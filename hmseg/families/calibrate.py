"""Random weights whose activations keep their scale, as a trained network's do.

A fresh network hides mistakes: its batch norms are identities, and what a deep one gives is either
zero or infinite.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.count import AUXILIARY_PREFIX


def calibrate_batch_norm(
    network: nn.Module, seed: int = 0, size: tuple[int, int] = (128, 256)
) -> None:
    """Draw every weight, then set batch norm's statistics from made-up images of `size` (H, W).

    Convolutions are He-initialised, linear layers keep the variance, norms get random scales and
    shifts. In place, the same for the same seed; leaves the network in eval mode.
    """
    generator = torch.Generator().manual_seed(seed)
    network.eval()
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    ]
    with torch.no_grad():
        for name, module in network.named_modules():
            if not name.startswith(AUXILIARY_PREFIX):  # not in eval mode: the draws stay the same
                _draw(module, generator)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the statistics become exactly those of the images
            norm.train()
        network(made_up_images(size, generator))
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()


def made_up_images(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(6, 3, H, W), normalised: a black and a white one, noise, blocks, two smooth ones.

    They are of the kinds that such a network is tried on: a deep random one blows up what no image
    of its calibration was like.
    """
    coarse = (max(2, size[0] // 16), max(2, size[1] // 16))
    black_and_white = torch.tensor([-2.0, 2.4]).view(2, 1, 1, 1).expand(2, 3, *size)
    noise = _uniform((1, 3, *size), generator)
    blocks = F.interpolate(_uniform((1, 3, *coarse), generator), size=size, mode="nearest")
    smooth = F.interpolate(_uniform((2, 3, *coarse), generator), size=size, mode="bilinear")
    smooth += 0.2 * _uniform((2, 3, *size), generator)
    return torch.cat([black_and_white, noise, blocks, smooth])


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """From a black image's values to a white one's."""
    return torch.empty(shape).uniform_(-2.0, 2.4, generator=generator)


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
        if module.weight is not None:
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.uniform_(-0.5, 0.5, generator=generator)
        return
    else:
        return
    if module.bias is not None:
        module.bias.uniform_(-0.1, 0.1, generator=generator)
