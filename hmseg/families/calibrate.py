"""Random weights whose activations keep their scale, as a trained network's do.

A fresh network hides mistakes: its batch norms are identities, and what a deep one gives is either
zero or infinite.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_IMAGES = 6


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
        for module in network.modules():
            _draw(module, generator)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the statistics become exactly those of the images
            norm.train()
        network(made_up_images(_IMAGES, size, generator))
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()


def made_up_images(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(count, 3, H, W), normalised: from smooth patches to pure noise, of differing brightness and
    contrast.

    What a network pools over the whole image varies among these as much as among the images that
    it will be tried on: statistics of alike images would make others huge behind a batch norm.
    """
    grid = (max(2, size[0] // 16), max(2, size[1] // 16))
    patches = torch.randn(count, 3, *grid, generator=generator)
    smooth = F.interpolate(patches, size=size, mode="bilinear", align_corners=False)
    noise = torch.randn(count, 3, *size, generator=generator)
    share = torch.linspace(0, 1, count).view(-1, 1, 1, 1)
    contrast = 1.5 * torch.rand(count, 1, 1, 1, generator=generator)
    brightness = torch.randn(count, 3, 1, 1, generator=generator)
    return contrast * ((1 - share) * smooth + share * noise) + brightness


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
